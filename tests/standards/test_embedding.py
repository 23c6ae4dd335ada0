import json
import math
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from struct import pack, unpack
from threading import Event, Thread

import pytest
from dirty_equals import IsStr
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot
from onnx import TensorProto, helper

from server.standards.embedding import (
    Embedder,
    EmbeddingEndpointFailed,
    EmbeddingModelBroken,
    Vectors,
    open_embedder,
)
from tests.standards.tiny_model import SENTENCE, TOKENS, make_model

KEY = "k-0123456789"
FOLDER_HINT = (
    "DRAMATIS_EMBEDDING_MODEL must name a folder with model.onnx and tokenizer.json,"
    " or with DRAMATIS_EMBEDDING_URL a model there."
)

Answer = Callable[[list[str]], tuple[int, bytes]]


def floats(blob: bytes) -> list[float]:
    return [round(one, 4) + 0.0 for one in unpack(f"<{len(blob) // 4}f", blob)]


def blob(*numbers: float) -> bytes:
    return pack(f"<{len(numbers)}f", *numbers)


def local(folder: Path) -> Embedder:
    return open_embedder(model=str(folder), url=None, key=None)


def broken(folder: Path, text: str = "retry") -> str:
    with pytest.raises(EmbeddingModelBroken) as refused:
        local(folder).embed([text])
    return str(refused.value).removesuffix(f" {FOLDER_HINT}")


def test_a_text_is_found_by_what_it_means(tmp_path: Path):
    model = local(make_model(tmp_path))
    texts = ["Ship it on Fridays.", "Keep every secret in the vault.", "Postgres is the storage."]
    vectors = Vectors.of([1, 2, 3], model.embed(texts))

    found = vectors.nearest(model.embed(["credential"]), limit=3)

    assert found == [(2, 1.0), (1, 0.0), (3, 0.0)]


def test_a_vector_has_the_length_one(tmp_path: Path):
    model = local(make_model(tmp_path, meanings=[["red"], ["green"]], length=7.0))

    found = model.embed(["red", "Red, green!", "red red red green"])

    assert [floats(one) for one in found] == snapshot(
        [[1.0, 0.0], [0.7071, 0.7071], [0.9487, 0.3162]]
    )


def test_a_text_without_meaning_is_near_nothing(tmp_path: Path):
    model = local(make_model(tmp_path))

    [nothing, retry] = model.embed(["", "retry"])

    assert Vectors.of([1], [retry]).nearest([nothing], limit=1) == [(1, 0.0)]


def test_the_texts_beside_it_do_not_change_a_vector(tmp_path: Path):
    model = local(make_model(tmp_path))
    texts = ["retry " * (1 + count % 40) + "test " * count for count in range(70)]

    together = model.embed(texts)

    alone = [one for text in texts for one in model.embed([text])]
    assert floats(b"".join(together)) == pytest.approx(floats(b"".join(alone)), abs=1e-3)


def test_no_texts_have_no_vectors(tmp_path: Path):
    assert local(make_model(tmp_path)).embed([]) == []


def test_a_text_is_cut_after_256_tokens_and_not_before(tmp_path: Path):
    model = local(make_model(tmp_path, meanings=[["red"], ["green"]]))

    # Two of the tokens mark the beginning and the end.
    [within, beyond] = model.embed(["red " * 253 + "green", "red " * 254 + "green"])

    assert (floats(within), floats(beyond)) == snapshot(([1.0, 0.004], [1.0, 0.0]))


def test_a_model_is_named_after_its_folder_and_what_is_in_it(tmp_path: Path):
    folders = [make_model(tmp_path / name / "tiny") for name in ("a", "b", "c", "d")]
    make_model(folders[2], length=2.0)
    make_model(folders[3], meanings=[["retry"]])

    names = [local(folder).name for folder in folders]

    assert names == [IsStr(regex=r"tiny-[0-9a-f]{12}")] * 4
    assert names[0] == names[1]
    assert len(set(names)) == 3


@pytest.mark.parametrize(
    "weights",
    ["model.onnx", "onnx/model.onnx", "model_quantized.onnx", "onnx/model_quantized.onnx"],
)
def test_the_weights_may_lie_where_they_are_published(tmp_path: Path, weights: str):
    model = local(make_model(tmp_path, weights=weights))

    assert len(model.embed(["retry"])) == 1


def test_a_model_is_given_only_the_inputs_that_it_has(tmp_path: Path):
    model = local(make_model(tmp_path, inputs=["input_ids", "attention_mask"]))

    assert len(model.embed(["retry"])) == 1


@pytest.mark.parametrize("outputs", [[SENTENCE], [TOKENS, SENTENCE]])
def test_vectors_of_sentences_are_taken_as_they_are(tmp_path: Path, outputs: list[str]):
    model = local(make_model(tmp_path, meanings=[["red"], ["green"]], outputs=outputs))

    assert floats(model.embed(["green"])[0]) == [0.0, -1.0]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.onnx", None, "has no model.onnx"),
        ("tokenizer.json", None, "has no tokenizer.json"),
        ("model.onnx", b"no model", "has a model.onnx that is no model"),
        ("tokenizer.json", b"{", "has a tokenizer.json that is no tokenizer"),
    ],
)
def test_a_folder_that_is_no_model_is_refused(
    tmp_path: Path, name: str, content: bytes | None, said: str
):
    folder = make_model(tmp_path / "tiny")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)

    assert broken(folder) == f"The embedding model tiny {said}."


@pytest.mark.parametrize("folder", ["~nobody-of-this-name/tiny", f"{'x' * 300}/tiny"])
def test_a_folder_that_cannot_be_is_refused(folder: str):
    assert broken(Path(folder)) == "The embedding model tiny cannot be read."


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("pixels", "wants other inputs than the tokens of a text: pixels"),
        ("attention_mask", "wants other inputs than the tokens of a text: attention_mask"),
        ("input_ids", "has an output that is no vector of each text or token"),
    ],
)
def test_a_network_that_makes_no_vectors_of_texts_is_refused(tmp_path: Path, entry: str, said: str):
    folder = make_model(tmp_path / "tiny")
    graph = helper.make_graph(
        [helper.make_node("Shape", [entry], ["shape"])],
        "shape",
        [helper.make_tensor_value_info(entry, TensorProto.INT64, ["batch", "tokens"])],
        [helper.make_tensor_value_info("shape", TensorProto.INT64, [2])],
    )
    network = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])
    (folder / "model.onnx").write_bytes(network.SerializeToString())

    assert broken(folder) == f"The embedding model tiny {said}."


def test_a_tokenizer_of_another_model_is_found_out(tmp_path: Path):
    folder = make_model(tmp_path / "tiny", meanings=[["red"]])
    other = make_model(tmp_path / "other")
    (other / "tokenizer.json").replace(folder / "tokenizer.json")

    assert broken(folder, "ship") == "The embedding model tiny fails when it is run."


def test_a_tokenizer_that_does_not_know_what_to_do_is_found_out(tmp_path: Path):
    folder = make_model(tmp_path / "tiny")
    file = folder / "tokenizer.json"
    file.write_text(file.read_text().replace('"unk_token": "[UNK]"', '"unk_token": "none"'))

    assert broken(folder) == "The embedding model tiny has a tokenizer that fails."


def test_a_model_that_loses_its_numbers_is_found_out(tmp_path: Path):
    folder = make_model(tmp_path / "tiny", length=math.nan)

    assert broken(folder) == (
        "The embedding model tiny makes vectors of numbers that are not finite."
    )


class Service:
    """An endpoint of embeddings that answers what a test wants, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None, dict[str, object]]] = []
        self.answer: Answer = well
        self.netloc = ""

    def open(self, *, key: str | None = None, user: str = "", timeout_s: float = 5) -> Embedder:
        return open_embedder(
            model="tiny",
            url=f"http://{user}{self.netloc}/v1/",
            key=key,
            timeout=timedelta(seconds=timeout_s),
        )

    def refusal(self, *texts: str) -> str:
        with pytest.raises(EmbeddingEndpointFailed) as refused:
            self.open(key=KEY).embed(texts or ["a"])
        return said(refused.value)


def said(failure: EmbeddingEndpointFailed) -> str:
    return str(failure.args[0])


def vector(text: str) -> list[float]:
    return [len(text), 1.0]


def answered(vectors: Sequence[tuple[object, object]]) -> bytes:
    data = [{"object": "embedding", "index": at, "embedding": one} for at, one in vectors]
    return json.dumps({"object": "list", "data": data, "model": "tiny"}).encode()


def well(texts: list[str]) -> tuple[int, bytes]:
    vectors = [(at, vector(text)) for at, text in enumerate(texts)]
    return 200, answered(vectors[::-1])


@contextmanager
def serving(service: Service) -> Generator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            service.asked.append((self.path, self.headers["Authorization"], body))
            status, content = service.answer(body["input"])
            # Whoever asked may have gone.
            with suppress(ConnectionError):
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        service.netloc = f"127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    with serving(service):
        yield service


def test_an_endpoint_is_asked_for_the_vectors_of_texts(service: Service):
    found = service.open(key=KEY).embed(["abc", ""])

    assert service.asked == snapshot(
        [("/v1/embeddings", "Bearer k-0123456789", {"model": "tiny", "input": ["abc", ""]})]
    )
    assert [floats(one) for one in found] == snapshot([[0.9487, 0.3162], [0.0, 1.0]])


def test_an_endpoint_is_asked_for_64_texts_at_a_time(service: Service):
    texts = ["x" * count for count in range(130)]

    found = service.open().embed(texts)

    assert [body["input"] for _, _, body in service.asked] == [
        texts[:64],
        texts[64:128],
        texts[128:],
    ]
    lengths = [round(length / one) for length, one in (unpack("<2f", blob) for blob in found)]
    assert lengths == [len(text) for text in texts]


@pytest.mark.parametrize(
    ("key", "user", "sent"),
    [
        (None, "", None),
        ("", "", None),
        (KEY, "", f"Bearer {KEY}"),
        (None, "ann:pass@", "Basic YW5uOnBhc3M="),
        (KEY, "ann:pass@", f"Bearer {KEY}"),
    ],
)
def test_an_endpoint_is_told_who_asks(
    service: Service, key: str | None, user: str, sent: str | None
):
    service.open(key=key, user=user).embed(["a"])

    assert [authorization for _, authorization, _ in service.asked] == [sent]


def test_an_endpoint_is_named_without_who_asks(service: Service):
    assert service.open(key=KEY, user="ann:pass@").name == f"tiny@{service.netloc}"
    assert open_embedder(model="m", url="https://a.example/v1?k=s", key=None).name == "m@a.example"


@pytest.mark.parametrize("status", [302, 401, 404, 429, 500])
def test_a_status_is_said_without_what_came_with_it(service: Service, status: int):
    service.answer = lambda texts: (status, f"The key {KEY} is wrong.".encode())

    with pytest.raises(EmbeddingEndpointFailed) as refused:
        service.open(key=KEY).embed(["a"])

    assert (refused.value.code, str(refused.value)) == (
        "embedding_endpoint_failed",
        f"The embedding endpoint answered with status {status}. Try again later. If it goes on, check"
        " DRAMATIS_EMBEDDING_URL, DRAMATIS_EMBEDDING_KEY and DRAMATIS_EMBEDDING_MODEL.",
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff<html>",
        b"[]",
        b'{"error": "no"}',
        answered([("first", [1.0])]),
        answered([(0, "AACAPw==")]),
        answered([(0, [None])]),
        answered([(0, [])]),
    ],
)
def test_an_answer_that_is_no_vectors_is_refused(service: Service, content: bytes):
    service.answer = lambda texts: (200, content)

    assert service.refusal() == (
        "The embedding endpoint answered with something else than embeddings."
    )


@pytest.mark.parametrize("indexes", [[], [0], [0, 0], [1, 2], [0, 1, 2]])
def test_an_answer_without_one_vector_of_each_text_is_refused(service: Service, indexes: list[int]):
    service.answer = lambda texts: (200, answered([(at, [1.0]) for at in indexes]))

    assert service.refusal("a", "b") == (
        "The embedding endpoint did not make one vector of each text."
    )


@pytest.mark.parametrize("number", [math.nan, math.inf, 1e300])
def test_an_answer_with_numbers_beyond_measure_is_refused(service: Service, number: float):
    service.answer = lambda texts: (200, answered([(0, [number, number])]))

    assert service.refusal() == (
        "The embedding endpoint made a vector of numbers that are not finite."
    )


def test_an_answer_with_vectors_of_different_sizes_is_refused(service: Service):
    service.answer = lambda texts: (200, answered([(0, [1.0]), (1, [1.0, 2.0])]))

    assert service.refusal("a", "b") == (
        "The embedding endpoint made vectors of different sizes, 1 and 2 numbers."
    )


def test_a_size_that_changes_later_is_refused(service: Service):
    model = service.open()
    model.embed(["a"])
    service.answer = lambda texts: (200, answered([(0, [1.0, 2.0, 3.0])]))

    with pytest.raises(EmbeddingEndpointFailed, match=r"different sizes, 2 and 3 numbers\."):
        model.embed(["a"])


def test_an_endpoint_is_not_waited_for_without_end(service: Service):
    asked_no_more = Event()

    def late(texts: list[str]) -> tuple[int, bytes]:
        asked_no_more.wait(5)
        return well(texts)

    service.answer = late
    with pytest.raises(EmbeddingEndpointFailed) as refused:
        service.open(timeout_s=0.05).embed(["a"])
    asked_no_more.set()

    assert said(refused.value) == "The embedding endpoint did not answer within 0.05 s."


def test_an_endpoint_that_is_not_there_is_said_to_be_so():
    service = Service()
    with serving(service):
        pass

    assert service.refusal() == "The embedding endpoint could not be reached."


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://ann:pass@[::1", "cannot be read"),
        ("", "is neither http nor https with a host"),
        ("localhost:11434/v1", "is neither http nor https with a host"),
        ("ftp://ann:pass@a.example/v1", "is neither http nor https with a host"),
        ("file:///etc/passwd", "is neither http nor https with a host"),
        ("https:///v1", "is neither http nor https with a host"),
    ],
)
def test_a_url_of_no_endpoint_is_refused(url: str, why: str):
    with pytest.raises(EmbeddingEndpointFailed) as refused:
        open_embedder(model="m", url=url, key=None)

    assert said(refused.value) == f"The embedding endpoint has a URL that {why}."


@pytest.mark.parametrize("key", ["schlüssel", "a\nb"])
def test_a_key_that_cannot_be_sent_is_refused(key: str):
    with pytest.raises(EmbeddingEndpointFailed) as refused:
        open_embedder(model="m", url="https://a.example/v1", key=key)

    assert said(refused.value) == (
        "The embedding endpoint cannot be sent a key with such characters."
    )


MISSING = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
from server.standards.embedding import SemanticNotInstalled, open_embedder
try:
    open_embedder(model="m", url=sys.argv[2] or None, key=None)
except SemanticNotInstalled as refused:
    print(refused.code, refused)
"""


@pytest.mark.parametrize(
    ("library", "url"),
    [
        ("numpy", ""),
        ("onnxruntime", ""),
        ("tokenizers", ""),
        ("numpy", "https://a.example/v1"),
    ],
)
def test_without_the_extra_it_is_said_what_to_install(library: str, url: str):
    done = subprocess.run(
        [sys.executable, "-c", MISSING, library, url], capture_output=True, text=True, check=True
    )

    assert done.stdout == (
        f"semantic_not_installed Search by meaning needs {library}, which is not installed."
        " Install dramatis-mcp[semantic], or leave DRAMATIS_EMBEDDING_MODEL unset.\n"
    )


def test_libraries_of_the_extra_are_not_imported_before_they_are_needed():
    code = "import sys, server.standards.embedding; print(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert set(done.stdout.split()) & {"numpy", "onnxruntime", "tokenizers"} == set()


directions = st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3).filter(
    lambda numbers: math.hypot(*numbers) > 0.1
)


def unit(numbers: Sequence[float]) -> bytes:
    return blob(*(one / math.hypot(*numbers) for one in numbers))


@given(
    st.lists(directions, min_size=1),
    st.lists(directions, min_size=1, max_size=3),
    st.integers(1, 20),
)
def test_the_nearest_are_those_with_the_highest_cosine(
    stored: list[list[float]], asked: list[list[float]], limit: int
):
    ids = [100 - at for at in range(len(stored))]
    expected = {
        key: max(
            sum(a * b for a, b in zip(one, query, strict=True))
            / (math.hypot(*one) * math.hypot(*query))
            for query in asked
        )
        for key, one in zip(ids, stored, strict=True)
    }

    found = Vectors.of(ids, [unit(one) for one in stored]).nearest(
        [unit(one) for one in asked], limit
    )

    assert len(found) == min(limit, len(stored))
    assert found == sorted(found, key=lambda one: (-one[1], one[0]))
    assert dict(found) == pytest.approx({key: expected[key] for key, _ in found}, abs=1e-5)
    others = set(ids) - {key for key, _ in found}
    assert all(expected[key] <= found[-1][1] + 1e-5 for key in others)


@given(directions, st.integers(1, 50), st.integers(1, 50))
def test_equal_vectors_come_in_the_order_of_their_ids(
    direction: list[float], count: int, limit: int
):
    ids = list(range(count, 0, -1))

    found = Vectors.of(ids, [unit(direction)] * count).nearest([unit([1, 2, 3])], limit)

    assert [key for key, _ in found] == sorted(ids)[:limit]


@pytest.mark.parametrize(("blobs", "queries"), [([], []), ([], [blob(1, 0)]), ([blob(1, 0)], [])])
def test_nothing_is_near_where_there_is_nothing(blobs: list[bytes], queries: list[bytes]):
    assert Vectors.of(range(len(blobs)), blobs).nearest(queries, limit=5) == []


def test_vectors_of_different_sizes_are_not_compared():
    mixed = r"made vectors of different sizes, 1 and 2 numbers\."

    with pytest.raises(EmbeddingEndpointFailed, match=mixed):
        Vectors.of([1, 2], [blob(1), blob(1, 0)])
    with pytest.raises(EmbeddingEndpointFailed, match=mixed):
        Vectors.of([1], [blob(1)]).nearest([blob(1, 0)], limit=1)
