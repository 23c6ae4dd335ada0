"""Texts as vectors, by a model on this machine or at an endpoint, and the nearest of them.

numpy, onnxruntime and tokenizers come with the extra `semantic`, which most installations lack:
they are imported when a model is opened.
"""

import hashlib
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import httpx2
from annotated_types import MinLen
from pydantic import BaseModel, ValidationError

from server.errors import Unavailable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

MODELS = [folder + name for name in ("model", "model_quantized") for folder in ("", "onnx/")]
TOKENIZER = "tokenizer.json"
INPUTS = {"input_ids", "attention_mask", "token_type_ids"}
SENTENCE = "sentence_embedding"
MOST_TOKENS = 256
THREADS = 2
FOLDER_BATCH = 32
ENDPOINT_BATCH = 64
TIMEOUT = timedelta(seconds=30)
FLOAT_BYTES = 4
DECIMALS = 6


class SemanticNotInstalled(Unavailable):
    code = "semantic_not_installed"


class EmbeddingModelBroken(Unavailable):
    code = "embedding_model_broken"


class EmbeddingEndpointFailed(Unavailable):
    code = "embedding_endpoint_failed"


class Embedder(Protocol):
    """Makes vectors of texts. It blocks: call it in a worker thread.

    Attributes:
        name: which model it is; vectors of models with different names are never compared.
    """

    name: str

    def embed(self, texts: Sequence[str]) -> list[bytes]:
        """Make a vector of each text: little-endian floats of 32 bits, of length one together.

        Raises:
            EmbeddingModelBroken: the model on this machine fails.
            EmbeddingEndpointFailed: the endpoint does.
        """
        ...


def open_embedder(
    *, model: str, url: str | None, key: str | None, timeout: timedelta = TIMEOUT
) -> Embedder:
    """Open the model in a folder, or get ready to ask an endpoint. This blocks, too.

    Args:
        model: a folder, or the model's name at the endpoint.
        url: of an OpenAI-compatible endpoint, up to `/v1`; nothing is sent to it yet.
        timeout: how long the endpoint may keep silent.

    Raises:
        SemanticNotInstalled: a library of the extra is missing.
        EmbeddingModelBroken: what is in the folder makes no vectors.
        EmbeddingEndpointFailed: no request can be made with this URL or key.
    """
    _library("numpy")
    return _FolderModel(model) if url is None else _Endpoint(model, url, key, timeout)


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """Vectors of one model in one matrix, with the ids of their texts."""

    ids: Sequence[int]
    matrix: "NDArray[np.float32]"

    @classmethod
    def of(cls, ids: Sequence[int], blobs: Sequence[bytes]) -> "Vectors":
        """Take what an embedder made, one for each id.

        Raises:
            EmbeddingEndpointFailed: they are of different sizes. A folder's name changes with its
                model; an endpoint's may come to mean another one, and only re-indexing helps.
        """
        return cls(ids, _matrix(blobs))

    def nearest(self, queries: Sequence[bytes], limit: int) -> list[tuple[int, float]]:
        """Find the ids that are nearest to any of the queries, and how near: the cosine.

        Raises:
            EmbeddingEndpointFailed: the queries are of another size, as with `of`.
        """
        import numpy as np

        if not queries or not self.ids:
            return []
        asked = _matrix(queries)
        _refuse_mixed({asked.shape[1], self.matrix.shape[1]})
        # In 32 bits, products of equal vectors differ by where these are, which would order them.
        products = self.matrix.astype(np.float64) @ asked.T
        best = products.max(axis=1).round(DECIMALS)
        order: list[int] = np.lexsort((self.ids, -best))[:limit].tolist()
        return [(self.ids[at], float(best[at])) for at in order]


class _FolderModel:
    def __init__(self, model: str) -> None:
        tokenizers, onnxruntime = _library("tokenizers"), _library("onnxruntime")
        self._shown = Path(model).name or model
        try:
            folder = Path(model).expanduser().absolute()
            weights = self._find(folder, [f"{name}.onnx" for name in MODELS])
            words = self._find(folder, [TOKENIZER])
            self.name = f"{folder.name}-{_digest(weights, words)}"
        except (OSError, RuntimeError) as error:
            raise self._broken("cannot be read") from error
        with self._failing(f"has a {words.name} that is no tokenizer"):
            self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(words))
        # Many files bring settings of their own, which cut earlier or fill up every text.
        self._tokenizer.enable_truncation(max_length=MOST_TOKENS)
        self._tokenizer.enable_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        # Only errors: it warns about how a model could be made better.
        options.log_severity_level = 3
        with self._failing(f"has a {weights.name} that is no model"):
            self._session: Any = onnxruntime.InferenceSession(
                str(weights), options, providers=["CPUExecutionProvider"]
            )
        self._inputs = {one.name for one in self._session.get_inputs()}
        if "input_ids" not in self._inputs or not self._inputs <= INPUTS:
            wanted = ", ".join(sorted(self._inputs))
            raise self._broken(f"wants other inputs than the tokens of a text: {wanted}")
        outputs = [one.name for one in self._session.get_outputs()]
        self._output = SENTENCE if SENTENCE in outputs else outputs[0]
        self.embed(["Does it work?"])

    def embed(self, texts: Sequence[str]) -> list[bytes]:
        return [one for batch in _batches(texts, FOLDER_BATCH) for one in self._embed(batch)]

    def _embed(self, texts: Sequence[str]) -> list[bytes]:
        import numpy as np

        with self._failing("has a tokenizer that fails"):
            encodings = self._tokenizer.encode_batch(texts)
        mask = np.array([one.attention_mask for one in encodings], dtype=np.int64)
        feed = {
            "input_ids": np.array([one.ids for one in encodings], dtype=np.int64),
            "attention_mask": mask,
            "token_type_ids": np.array([one.type_ids for one in encodings], dtype=np.int64),
        }
        with self._failing("fails when it is run"):
            [output] = self._session.run(
                [self._output], {name: feed[name] for name in self._inputs}
            )
        if output.ndim == 3 and output.shape[:2] == mask.shape:
            weights = mask[:, :, np.newaxis]
            output = (output * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1)
        elif output.ndim != 2 or len(output) != len(texts):
            raise self._broken("has an output that is no vector of each text or token")
        with self._failing("makes vectors of numbers that are not finite"):
            return _pack(output)

    def _find(self, folder: Path, names: Sequence[str]) -> Path:
        for name in names:
            if (folder / name).is_file():
                return folder / name
        raise self._broken(f"has no {names[0]}")

    @contextmanager
    def _failing(self, problem: str) -> Generator[None]:
        # What the libraries raise has nothing in common but `Exception`.
        try:
            yield
        except Exception as error:
            raise self._broken(problem) from error

    def _broken(self, problem: str) -> EmbeddingModelBroken:
        return EmbeddingModelBroken(
            f"The embedding model {self._shown} {problem}.",
            hint=f"DRAMATIS_EMBEDDING_MODEL must name a folder with model.onnx and {TOKENIZER},"
            " or with DRAMATIS_EMBEDDING_URL a model there.",
        )


class _Embedding(BaseModel):
    index: int
    embedding: Annotated[list[float], MinLen(1)]


class _Answer(BaseModel):
    data: list[_Embedding]


class _Endpoint:
    def __init__(self, model: str, url: str, key: str | None, timeout: timedelta) -> None:
        parsed = _parse(url)
        if key:
            if not (key.isascii() and key.isprintable()):
                raise _failed("cannot be sent a key with such characters")
            # A user in the URL would be sent instead of the key.
            parsed = parsed.copy_with(userinfo=b"")
        self.name = f"{model}@{parsed.netloc.decode()}"
        self._model = model
        self._url = parsed.copy_with(path=f"{parsed.path.rstrip('/')}/embeddings")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._timeout_s = timeout.total_seconds()
        # Reading the certificates takes longer than many a request.
        self._tls = httpx2.create_ssl_context()
        self._size: int | None = None

    def embed(self, texts: Sequence[str]) -> list[bytes]:
        with httpx2.Client(
            headers=self._headers, timeout=self._timeout_s, verify=self._tls
        ) as client:
            batches = _batches(texts, ENDPOINT_BATCH)
            return [one for batch in batches for one in self._embed(client, batch)]

    def _embed(self, client: httpx2.Client, texts: Sequence[str]) -> list[bytes]:
        found = sorted(self._ask(client, texts), key=lambda one: one.index)
        if [one.index for one in found] != list(range(len(texts))):
            raise _failed("did not make one vector of each text")
        self._size = self._size or len(found[0].embedding)
        _refuse_mixed({self._size, *(len(one.embedding) for one in found)})
        try:
            return _pack([one.embedding for one in found])
        except ValueError:
            raise _failed("made a vector of numbers that are not finite") from None

    def _ask(self, client: httpx2.Client, texts: Sequence[str]) -> list[_Embedding]:
        # Causes are left out: they may hold the key, the URL or what was answered.
        try:
            response = client.post(self._url, json={"model": self._model, "input": list(texts)})
        except httpx2.TimeoutException:
            raise _failed(f"did not answer within {self._timeout_s:g} s") from None
        except httpx2.HTTPError:
            raise _failed("could not be reached") from None
        if not response.is_success:
            raise _failed(f"answered with status {response.status_code}")
        try:
            return _Answer.model_validate_json(response.content).data
        except ValidationError:
            raise _failed("answered with something else than embeddings") from None


def _library(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise SemanticNotInstalled(
            f"Search by meaning needs {name}, which is not installed.",
            hint="Install dramatis-mcp[semantic], or leave DRAMATIS_EMBEDDING_MODEL unset.",
        ) from error


def _parse(text: str) -> httpx2.URL:
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL:
        raise _failed("has a URL that cannot be read") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise _failed("has a URL that is neither http nor https with a host")
    return url


def _failed(problem: str) -> EmbeddingEndpointFailed:
    return EmbeddingEndpointFailed(
        f"The embedding endpoint {problem}.",
        hint="Try again later. If it goes on, check DRAMATIS_EMBEDDING_URL, DRAMATIS_EMBEDDING_KEY"
        " and DRAMATIS_EMBEDDING_MODEL.",
    )


def _refuse_mixed(sizes: Collection[int]) -> None:
    if len(sizes) > 1:
        said = " and ".join(str(size) for size in sorted(sizes))
        raise _failed(f"made vectors of different sizes, {said} numbers")


def _batches(texts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (texts[at : at + size] for at in range(0, len(texts), size))


def _digest(*files: Path) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:12]


def _pack(vectors: "ArrayLike") -> list[bytes]:
    """Give each vector, a row, the length one. One of zeros, which is near nothing, keeps its own.

    Raises:
        ValueError: numbers are not finite, or so large that their squares are not.
    """
    import numpy as np

    rows = np.asarray(vectors, dtype=np.float64)
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.isfinite(lengths).all():
        raise ValueError("not finite")
    lengths[lengths == 0] = 1
    return [row.tobytes() for row in (rows / lengths).astype("<f4")]


def _matrix(blobs: Sequence[bytes]) -> "NDArray[np.float32]":
    import numpy as np

    sizes = {len(blob) // FLOAT_BYTES for blob in blobs}
    _refuse_mixed(sizes)
    return np.frombuffer(b"".join(blobs), dtype="<f4").reshape(len(blobs), max(sizes, default=0))
