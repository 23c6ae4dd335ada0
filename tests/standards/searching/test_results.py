"""What a search returns, in which order, and what it refuses."""

import itertools
from typing import Any

import anyio
import pytest
from dirty_equals import IsFloat, IsStr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inline_snapshot import snapshot

from server.access import add_tenant
from server.errors import Invalid
from server.standards.indexer import index_standards
from server.standards.search import search_now, search_standards
from server.standards.shapes import QUERY_LENGTH
from server.work import App, Caller
from tests.conftest import but
from tests.standards.conftest import FLAKY, RETRIES, Index, Project, agent_of, using
from tests.standards.searching.conftest import HOSTILE, SHOWN, counts, files, search

pytestmark = pytest.mark.anyio


async def test_a_hit_says_what_it_is_and_where_it_stands(indexed: App):
    result = await search(indexed, "exponential retry, back-off")

    assert result.model_dump() == snapshot(
        {
            "hits": [
                {
                    "file": ".agent-os/standards/development/retries.md",
                    "domain": "development",
                    "topic": "retries",
                    "layer": "project",
                    "section": "Pattern",
                    "line": 5,
                    "text": "Retry only what is idempotent, with exponential back-off and jitter.",
                    "highlight": "«Retry» only what is idempotent, with «exponential» «back»-off and jitter",
                    "relevance": IsFloat(gt=0.4, lt=1),
                    "tokens": 17,
                    "review": "unreviewed",
                    "approved_by": None,
                }
            ],
            "found_by": "full text",
            "took_ms": IsFloat(gt=0),
            "tokens": 17,
            "note": None,
        }
    )


async def test_the_line_is_that_of_the_file_below_its_front_matter(indexed: App):
    result = await search(indexed, "midnight")

    assert [(hit.section, hit.line) for hit in result.hits] == [("Pattern", 13)]


async def test_the_best_come_first_and_all_within_one(project: Project, app: App, index: Index):
    project.write("testing/clocks.md", "# Clocks\n\nA clock is passed in. A clock never waits.\n")
    project.write("testing/seeds.md", "# Seeds\n\nOne is printed, as the clock is.\n")
    project.write("testing/names.md", "# Names\n\nA name is a sentence.\n")
    await index()

    result = await search(app, "passed clock")

    relevance = [hit.relevance for hit in result.hits]
    assert files(result) == ["testing/clocks.md", "testing/seeds.md"]
    assert relevance == sorted(relevance, reverse=True)
    assert all(0 < one <= 1 for one in relevance)
    assert result.tokens == sum(hit.tokens for hit in result.hits)


async def test_there_are_five_hits_unless_asked_for_more_or_fewer(
    project: Project, app: App, index: Index
):
    for number in range(25):
        project.write(f"testing/clock-{number}.md", f"# Clock {number}\n\nPass it in.\n")
    await index()

    found = [
        len((await search(app, "clock", **limit)).hits)
        for limit in ({}, {"limit": 1}, {"limit": 20})
    ]

    assert found == [5, 1, 20]


async def test_each_of_several_wordings_counts(indexed: App):
    result = await search(indexed, "midnight", "jitter", "whatever")

    assert sorted(files(result)) == ["development/retries.md", "testing/flaky-tests.md"]


async def test_one_query_may_come_without_a_list(indexed: App):
    result = await search_standards(indexed, agent_of(indexed), "jitter")

    assert files(result) == ["development/retries.md"]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, ["development/retries.md", "testing/flaky-tests.md"]),
        ({"domain": " Testing "}, ["testing/flaky-tests.md"]),
        ({"domain": "test"}, []),
        ({"tags": ["PYTHON"]}, ["testing/flaky-tests.md"]),
        ({"tags": ["python", "flaky"]}, ["testing/flaky-tests.md"]),
        ({"tags": ["python", "java"]}, []),
        ({"layer": "project"}, ["development/retries.md", "testing/flaky-tests.md"]),
        ({"layer": "universal"}, []),
        ({"domain": "development", "tags": ["python"]}, []),
    ],
)
async def test_filters_hold(indexed: App, filters: dict[str, Any], found: list[str]):
    asked = ("midnight", "jitter")

    assert sorted(files(await search(indexed, *asked, **filters))) == found


async def test_the_library_is_searched_too(project: Project, app: App, index: Index):
    library = project.place.root.parent / "library"
    (library / "languages" / "python").mkdir(parents=True)
    (library / "languages" / "python" / "clocks.md").write_text("# Clocks\n\nUse monotonic.\n")
    project.write("testing/flaky-tests.md", FLAKY)
    app = but(app, place=but(project.place, library=library), memory={})
    await index_standards(app, agent_of(app))

    everywhere = await search(app, "clock")
    only = await search(app, "clock", layer="language")

    assert {hit.file for hit in everywhere.hits} == {
        "languages/python/clocks.md",
        f"{SHOWN}/testing/flaky-tests.md",
    }
    assert [(hit.file, hit.layer, hit.domain) for hit in only.hits] == [
        ("languages/python/clocks.md", "language", "python")
    ]


@pytest.mark.parametrize("query", HOSTILE)
async def test_any_text_is_a_query(indexed: App, query: str):
    result = await search(indexed, query)

    assert result.found_by == "full text"
    assert await counts(indexed) == {
        "retries": int("development/retries.md" in files(result)),
        "flaky-tests": int("testing/flaky-tests.md" in files(result)),
    }


@settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(query=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=200))
async def test_no_text_breaks_a_search(indexed: App, query: str):
    if not query.strip():
        query = "retry"

    result = await search(indexed, f"{query} jitter")

    assert result.found_by == "full text"


async def test_only_the_beginning_of_a_very_long_query_counts_and_that_is_said(indexed: App):
    result = await search(indexed, f"jitter {'x ' * 1_200} midnight")

    assert files(result) == ["development/retries.md"]
    assert result.note == snapshot("Only the first 2,000 characters of a query count.")


@pytest.mark.parametrize(
    ("queries", "filters", "refused"),
    [
        (("",), {}, "queries.0: must not be empty or blank."),
        ((" \n\t",), {}, "queries.0: must not be empty or blank."),
        (("retry", " "), {}, "queries.1: must not be empty or blank."),
        ((), {}, IsStr(regex=r"queries: .*at least 1 item.*")),
        (("retry",) * 6, {}, IsStr(regex=r"queries: .*at most 5 items.*")),
        (("a\0b",), {}, "queries.0: must not contain the NUL character."),
        (("\ud800",), {}, "queries.0: must be valid Unicode text."),
        (("x" * (QUERY_LENGTH + 1),), {}, IsStr(regex=r"queries\.0: .*10000 characters.*")),
        (("retry",), {"limit": 0}, IsStr(regex=r"limit: .*greater than or equal to 1.*")),
        (("retry",), {"limit": 21}, IsStr(regex=r"limit: .*less than or equal to 20.*")),
        (("retry",), {"layer": "other"}, IsStr(regex=r"layer: .*")),
        (("retry",), {"domain": ""}, "domain: must not be empty or blank."),
        (("retry",), {"tags": [""]}, "tags.0: must not be empty or blank."),
    ],
)
async def test_what_breaks_a_rule_is_refused(
    indexed: App, queries: tuple[str, ...], filters: dict[str, Any], refused: object
):
    with pytest.raises(Invalid) as error:
        await search(indexed, *queries, **filters)

    assert str(error.value) == refused


async def test_where_nothing_fits_the_domains_there_are_named(indexed: App):
    result = await search(indexed, "kubernetes")

    assert (result.hits, result.note) == snapshot(
        (
            [],
            "Nothing fits. There are standards on development, testing: try other words for it.",
        )
    )


async def test_a_project_without_standards_says_so(app: App, index: Index):
    await index()

    result = await search(app, "retry")

    assert (result.hits, result.note) == ([], "The project has no standards yet.")


async def test_what_was_indexed_and_is_gone_is_no_lost_index(
    project: Project, indexed: App, index: Index
):
    for path in project.files():
        (project.place.standards / path).unlink()
    await index()

    result = await search(indexed, "retry")

    assert (result.found_by, result.note) == ("full text", "The project has no standards yet.")


async def test_two_projects_on_one_database_never_mix(project: Project, indexed: App):
    elsewhere = Project((project.place.root.parent / "elsewhere").resolve())
    elsewhere.write("testing/flaky-tests.md", "# Flaky tests\n\nLeave them, jitter and all.\n")
    other = but(indexed, place=elsewhere.place)
    await index_standards(other, agent_of(other))

    here, there = await search(indexed, "jitter"), await search(other, "jitter")

    assert files(here) == ["development/retries.md"]
    assert [hit.text for hit in there.hits] == ["Leave them, jitter and all."]
    assert await counts(indexed) == {"flaky-tests": 0, "retries": 1}
    assert await counts(other) == {"flaky-tests": 1}


async def test_two_tenants_in_one_project_never_mix(project: Project, indexed: App, caller: Caller):
    tenant = await using(indexed, caller, lambda work: add_tenant(work, "acme"))
    theirs = but(indexed, tenant_id=tenant.id)
    project.write("development/retries.md", "# Retries\n\nNo jitter here.\n")
    await index_standards(theirs, agent_of(theirs))

    ours = await search(indexed, "jitter")
    result = await search(theirs, "jitter")

    assert [hit.text for hit in result.hits] == ["No jitter here."]
    assert [hit.text for hit in ours.hits] == [
        "Retry only what is idempotent, with exponential back-off and jitter."
    ]
    assert (await counts(indexed))["retries"] == 1


async def test_a_search_without_a_watcher_finds_what_is_on_the_disk_now(
    project: Project, indexed: App
):
    project.write("development/retries.md", "# Retries\n\nAdd jitter, always.\n")

    result = await search_now(indexed, agent_of(indexed), "jitter", limit=1)

    assert [hit.text for hit in result.hits] == ["Add jitter, always."]


async def test_an_index_run_between_two_steps_of_a_search_is_not_in_its_way(
    project: Project, own_app: App
):
    project.write("development/retries.md", RETRIES)
    await index_standards(own_app, agent_of(own_app))
    versions = (f"{RETRIES}\nNumber {number}.\n" for number in itertools.count())
    done = anyio.Event()
    topics: list[str] = []

    async def keep_changing() -> None:
        while not done.is_set():
            project.write("development/retries.md", next(versions))
            await index_standards(own_app, agent_of(own_app))

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_changing)
            for _ in range(30):
                topics += [hit.topic for hit in (await search(own_app, "jitter")).hits]
            done.set()

    assert topics == ["retries"] * 30
