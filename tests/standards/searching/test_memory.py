"""What is remembered of searches: their results, and how often each standard was one."""

import itertools
from typing import Any

import anyio
import pytest
from cachetools import TTLCache

from server.standards.indexer import index_standards
from server.work import REMEMBERED, REMEMBERED_S, App
from tests.conftest import but
from tests.standards.conftest import FLAKY, RETRIES, Index, Project, agent_of
from tests.standards.searching.conftest import change, counts, files, fresh, search

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def remembering(indexed: App, clock: Clock) -> App:
    memory = TTLCache[Any, object, float](REMEMBERED, REMEMBERED_S, timer=clock)
    return but(indexed, memory=memory)


BEHIND = "UPDATE dramatis.passages SET text = 'Nobody was told.'"


@pytest.mark.parametrize("query", ["jitter", f"jitter {'x' * 3_000}"])
async def test_the_same_search_is_remembered_for_five_minutes(
    remembering: App, clock: Clock, query: str
):
    first = await search(remembering, query)
    await change(remembering, BEHIND)

    clock.now_s = 299
    remembered = await search(remembering, query)
    clock.now_s = 301
    again = await search(remembering, query)

    assert remembered.hits == first.hits
    assert [hit.text for hit in again.hits] == ["Nobody was told."]


async def test_that_nothing_fits_is_remembered_too(remembering: App, clock: Clock):
    first = await search(remembering, "jolt")
    await change(remembering, "UPDATE dramatis.postings SET term = 'jolt' WHERE term = 'jitter'")

    clock.now_s = 299
    remembered = await search(remembering, "jolt")
    clock.now_s = 301
    again = await search(remembering, "jolt")

    assert (first.hits, remembered.hits) == ([], [])
    assert files(again) == ["development/retries.md"]


async def test_another_search_is_not_answered_from_what_is_remembered(remembering: App):
    await search(remembering, "jitter")
    await change(remembering, BEHIND)

    others = [
        await search(remembering, "jitter", limit=4),
        await search(remembering, "jitter", domain="development"),
        await search(remembering, "jitter", "jitter"),
    ]

    assert {hit.text for result in others for hit in result.hits} == {"Nobody was told."}


async def test_a_changed_file_is_found_as_it_is_though_a_search_was_remembered(
    project: Project, remembering: App, index: Index
):
    await search(remembering, "jitter")
    project.write("development/retries.md", "# Retries\n\nAdd jitter, always.\n")
    await index()

    result = await search(remembering, "jitter")

    assert [hit.text for hit in result.hits] == ["Add jitter, always."]


async def test_a_standard_that_another_server_indexed_is_found(project: Project, remembering: App):
    await search(remembering, "jitter")
    project.write("operations/jitter.md", "# Jitter\n\nJitter spreads the load.\n")
    other = fresh(remembering)
    await index_standards(other, agent_of(other))

    result = await search(remembering, "jitter")

    assert sorted(files(result)) == ["development/retries.md", "operations/jitter.md"]


async def test_a_search_counts_once_for_each_standard_that_it_returns(indexed: App):
    result = await search(indexed, "tests people clock")

    assert files(result) == ["testing/flaky-tests.md", "testing/flaky-tests.md"]
    assert await counts(indexed) == {"flaky-tests": 1, "retries": 0}


async def test_a_remembered_search_counts_like_any_other(indexed: App):
    for _ in range(3):
        await search(indexed, "jitter")

    assert await counts(indexed) == {"flaky-tests": 0, "retries": 3}


async def test_twenty_searches_at_once_count_twenty(project: Project, own_app: App):
    project.write("testing/flaky-tests.md", f"{FLAKY} Retry never.\n")
    project.write("development/retries.md", f"{RETRIES} Not in a test.\n")
    await index_standards(own_app, agent_of(own_app))
    both_ways = itertools.cycle(("retry jitter test", "test midnight retry"))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for query in itertools.islice(both_ways, 20):
                tasks.start_soon(search, own_app, query)

    assert await counts(own_app) == {"flaky-tests": 20, "retries": 20}
