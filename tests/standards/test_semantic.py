import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from dirty_equals import IsStr
from inline_snapshot import snapshot
from sqlalchemy import text

from server.access import add_tenant
from server.standards.catalogue import statistics
from server.standards.embedding import EmbeddingModelBroken
from server.standards.indexer import index_standards
from server.standards.search import search_standards
from server.standards.semantic import embed_missing
from server.standards.shapes import SearchResult
from server.work import App, Caller, Embedding, Work
from tests.conftest import but
from tests.standards.conftest import Project, agent_of, eventually, using, watching
from tests.standards.test_embedding import Service, answered, serving
from tests.standards.tiny_model import MEANINGS, make_model

pytestmark = pytest.mark.anyio

VAULT = "# Vault\n\nEvery credential is in the vault.\n\n## Rotation\n\nA new one each month.\n"
SHIPPING = "# Shipping\n\nWe ship on Mondays.\n"
WORKERS = "# Workers\n\nThe worker stops.\n\n## Faults\n\nA fault is reported.\n"


async def search(app: App, *queries: str, **filters: Any) -> SearchResult:
    return await search_standards(app, agent_of(app), queries, **filters)


def topics(result: SearchResult) -> list[str]:
    return [hit.topic for hit in result.hits]


async def embed(app: App) -> int:
    return await embed_missing(app, agent_of(app))


async def vectors(app: App) -> dict[str, str | None]:
    """Return by which model there is a vector, for the text of each passage."""

    async def read(work: Work) -> dict[str, str | None]:
        rows = await work.session.execute(
            text("SELECT text, embedded_by, embedding IS NULL AS none FROM dramatis.passages")
        )
        return {row.text: None if row.none else row.embedded_by for row in rows}

    return await using(app, agent_of(app), read)


async def standing(app: App) -> str:
    return (await using(app, agent_of(app), statistics)).vectors


def with_model(app: App, folder: Path) -> App:
    return but(app, embedding=Embedding(str(folder), None, None), memory={})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "tiny")


@pytest.fixture
async def indexed(project: Project, app: App, model: Path) -> App:
    project.write("security/vault.md", VAULT)
    project.write("operations/shipping.md", f"---\ntags: [monday]\n---\n\n{SHIPPING}")
    app = with_model(app, model)
    await index_standards(app, agent_of(app))
    return app


@pytest.fixture
async def embedded(indexed: App) -> App:
    await embed(indexed)
    return indexed


async def test_a_text_is_found_by_what_it_means(embedded: App):
    result = await search(embedded, "Where do I keep a password?")

    assert topics(result) == ["vault"]
    assert (result.found_by, result.note) == ("full text and vectors", None)
    assert [(hit.section, hit.relevance, hit.highlight) for hit in result.hits] == [
        ("", 0.5, IsStr())
    ]


async def test_without_a_model_only_words_are_found(embedded: App):
    result = await search(but(embedded, embedding=None, memory={}), "password")

    assert (result.hits, result.found_by) == ([], "full text")


async def test_what_is_good_both_ways_comes_before_what_is_good_in_one(
    project: Project, indexed: App
):
    project.write("security/named.md", "# Named\n\nThe password has a name.\n")
    project.write("security/meant.md", "# Meant\n\nA secret.\n")
    await index_standards(indexed, agent_of(indexed))
    await embed(indexed)

    result = await search(indexed, "password name")

    assert topics(result) == ["named", "vault", "meant"]
    assert [hit.relevance for hit in result.hits] == snapshot([0.9841, 0.5, 0.4919])


async def test_words_without_a_meaning_bring_nothing_near(embedded: App):
    assert topics(await search(embedded, "Xylophones, mostly")) == []


async def test_each_of_several_wordings_has_its_meaning(embedded: App):
    result = await search(embedded, "password", "a release")

    assert sorted(topics(result)) == ["shipping", "vault"]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"domain": "security"}, ["vault"]),
        ({"domain": "operations"}, ["shipping"]),
        ({"tags": ["monday"]}, ["shipping"]),
        ({"layer": "project"}, ["shipping", "vault"]),
        ({"layer": "universal"}, []),
    ],
)
async def test_filters_hold(embedded: App, filters: dict[str, Any], found: list[str]):
    result = await search(embedded, "password", "release", **filters)

    assert sorted(topics(result)) == found


async def test_before_its_vectors_are_made_a_text_is_found_by_its_words(indexed: App):
    result = await search(indexed, "credential", "secret")

    assert (topics(result), result.found_by, result.note) == snapshot(
        (["vault"], "full text", "3 passages have no vector yet.")
    )
    assert await standing(indexed) == snapshot("3 passages have no vector yet")


async def test_vectors_that_were_made_meanwhile_are_used_at_once(indexed: App):
    await search(indexed, "password")
    await embed(indexed)

    result = await search(indexed, "password")

    assert topics(result) == ["vault"]
    assert await standing(indexed) == snapshot("all passages have vectors")


async def test_vectors_are_made_of_what_has_none_and_of_nothing_else(
    project: Project, embedded: App
):
    before = await vectors(embedded)
    project.write("operations/workers.md", WORKERS)
    await index_standards(embedded, agent_of(embedded))
    steps: list[tuple[int, int]] = []

    made = await embed_missing(
        embedded, agent_of(embedded), progress=lambda done, of: steps.append((done, of))
    )

    assert (made, steps) == (2, [(2, 2)])
    assert (await vectors(embedded)).items() >= before.items()
    assert await embed(embedded) == 0


async def test_while_some_vectors_are_missing_the_others_are_used(project: Project, embedded: App):
    project.write("operations/workers.md", WORKERS)
    await index_standards(embedded, agent_of(embedded))

    result = await search(embedded, "password", "a fault")

    assert sorted(topics(result)) == ["vault", "workers"]
    assert (result.found_by, result.note) == snapshot(
        ("full text and vectors", "2 passages have no vector yet.")
    )


async def test_many_vectors_are_made_in_several_steps(project: Project, indexed: App):
    sections = "\n\n".join(f"## Section {number}\n\nRetry {number}." for number in range(70))
    project.write("development/long.md", f"# Long\n\n{sections}\n")
    await index_standards(indexed, agent_of(indexed))
    steps: list[tuple[int, int]] = []

    made = await embed_missing(
        indexed, agent_of(indexed), progress=lambda done, of: steps.append((done, of))
    )

    assert (made, steps) == snapshot((73, [(32, 73), (64, 73), (73, 73)]))


async def test_a_text_that_is_gone_is_not_found_by_its_meaning(project: Project, embedded: App):
    await search(embedded, "password")
    (project.place.standards / "security" / "vault.md").unlink()
    await index_standards(embedded, agent_of(embedded))

    assert topics(await search(embedded, "password")) == []


async def test_another_model_makes_all_vectors_anew(tmp_path: Path, embedded: App):
    other = with_model(embedded, make_model(tmp_path / "other", meanings=MEANINGS[:3]))

    before = await search(other, "password")
    made = await embed(other)
    after = await search(other, "password")

    assert (before.found_by, topics(before), made) == ("full text", [], 3)
    assert (after.found_by, topics(after)) == ("full text and vectors", ["vault"])
    names = {*(await vectors(other)).values()}
    assert [*names] == [IsStr(regex="other-[0-9a-f]{12}")]


async def test_two_projects_never_mix(project: Project, embedded: App):
    elsewhere = Project((project.place.root.parent / "elsewhere").resolve())
    elsewhere.write("security/passwords.md", "# Passwords\n\nA secret is long.\n")
    other = but(embedded, place=elsewhere.place)
    await index_standards(other, agent_of(other))
    await embed(other)

    assert topics(await search(embedded, "a credential, a password")) == ["vault"]
    assert topics(await search(other, "a credential, a password")) == ["passwords"]


async def test_two_tenants_never_mix(project: Project, embedded: App, caller: Caller):
    tenant = await using(embedded, caller, lambda work: add_tenant(work, "acme"))
    theirs = but(embedded, tenant_id=tenant.id)
    project.write("security/vault.md", "# Keys\n\nA secret is long.\n")
    await index_standards(theirs, agent_of(theirs))
    await embed(theirs)

    ours, result = await search(embedded, "password"), await search(theirs, "password")

    assert [hit.text for hit in ours.hits] == ["Every credential is in the vault."]
    assert [hit.text for hit in result.hits] == ["A secret is long."]


async def test_a_server_makes_vectors_in_the_background(
    project: Project, own_app: App, model: Path
):
    project.write("security/vault.md", VAULT)
    app = with_model(own_app, model)

    async with watching(app):

        async def found() -> bool:
            return topics(await search(app, "password")) == ["vault"]

        await eventually(found)
        project.write("operations/shipping.md", SHIPPING)

        async def shipped() -> bool:
            return topics(await search(app, "a release")) == ["shipping"]

        await eventually(shipped)


async def test_of_two_servers_one_makes_the_vectors(project: Project, own_app: App, model: Path):
    project.write("security/vault.md", VAULT)
    app = with_model(own_app, model)
    await index_standards(app, agent_of(app))
    made: list[int] = []

    async def make() -> None:
        made.append(await embed(app))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(make)

    assert sorted(made) == [0, 0, 0, 2]


async def test_without_a_model_there_is_nothing_to_make(indexed: App):
    app = but(indexed, embedding=None)

    assert await embed(app) == 0
    assert await standing(app) == snapshot("off: DRAMATIS_EMBEDDING_MODEL names no model")


async def test_in_a_project_that_was_never_indexed_there_is_nothing_to_make(app: App, model: Path):
    assert await embed(with_model(app, model)) == 0


async def test_a_broken_model_is_named_and_words_are_found(tmp_path: Path, indexed: App):
    app = with_model(indexed, tmp_path / "nothing")

    result = await search(app, "credential")

    assert (topics(result), result.found_by, result.note) == snapshot(
        (
            ["vault"],
            "full text",
            "Without vectors: The embedding model nothing has no model.onnx.",
        )
    )
    assert await standing(app) == IsStr(regex="unavailable: The embedding model nothing has .*")
    with pytest.raises(EmbeddingModelBroken):
        await embed(app)


async def test_a_model_that_was_mended_is_used_by_the_next_search(
    tmp_path: Path, embedded: App, model: Path
):
    app = with_model(embedded, tmp_path / "mended" / "tiny")
    before = await search(app, "password")
    shutil.copytree(model, tmp_path / "mended" / "tiny")

    after = await search(app, "password")

    assert (topics(before), topics(after)) == ([], ["vault"])


async def test_without_the_extra_words_are_found(
    tmp_path: Path, indexed: App, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "numpy", None)

    result = await search(with_model(indexed, tmp_path / "unopened"), "credential")

    assert (topics(result), result.found_by, result.note) == snapshot(
        (
            ["vault"],
            "full text",
            "Without vectors: Search by meaning needs numpy, which is not installed.",
        )
    )


async def test_with_the_endpoint_away_words_are_found(indexed: App):
    app = but(indexed, embedding=Embedding("tiny", "http://127.0.0.1:1/v1", None), memory={})

    result = await search(app, "credential")

    assert (topics(result), result.found_by, result.note) == snapshot(
        (
            ["vault"],
            "full text",
            "Without vectors: The embedding endpoint could not be reached.",
        )
    )


async def test_nobody_waits_long_for_an_endpoint_that_says_nothing(indexed: App):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        app = but(indexed, embedding=Embedding("tiny", url, None), memory={})

        result = await search(app, "credential")

    assert (topics(result), result.found_by, result.note) == snapshot(
        (
            ["vault"],
            "full text",
            "Without vectors: The embedding endpoint did not answer within 3 s.",
        )
    )


async def test_the_same_queries_are_embedded_once_whatever_becomes_of_the_index(
    project: Project, app: App
):
    project.write("security/vault.md", VAULT)
    service = Service()
    with serving(service):
        embedding = Embedding("tiny", f"http://{service.netloc}/v1", None)
        app = but(app, embedding=embedding, memory={})
        await index_standards(app, agent_of(app))
        for limit in (5, 5, 1):
            await search(app, "password", limit=limit)
        await embed(app)
        result = await search(app, "password")

    asked = [body["input"] for _, _, body in service.asked]
    assert asked == [["password"], [IsStr(), IsStr()]]
    assert result.found_by == "full text and vectors"


async def test_vectors_of_another_size_are_not_compared_and_that_is_said(
    project: Project, app: App
):
    project.write("security/vault.md", VAULT)
    service = Service()
    with serving(service):
        embedding = Embedding("resized", f"http://{service.netloc}/v1", None)
        app = but(app, embedding=embedding, memory={})
        await index_standards(app, agent_of(app))
        await embed(app)
        service.answer = lambda texts: (200, answered([(0, [1.0, 2.0, 3.0])]))
        result = await search(app, "credential")

    assert (topics(result), result.found_by, result.note) == snapshot(
        (
            ["vault"],
            "full text",
            "Without vectors: The embedding endpoint made vectors of different sizes, 2 and 3 numbers.",
        )
    )
