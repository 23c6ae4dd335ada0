"""Two standards in the index, and searches for them."""

from typing import Any

import pytest
from sqlalchemy import text

from server.standards.catalogue import list_standards
from server.standards.search import search_standards
from server.standards.shapes import QUERY_LENGTH, SearchResult
from server.work import App, Work
from tests.conftest import but
from tests.standards.conftest import FLAKY, RETRIES, Index, Project, agent_of, using

SHOWN = ".agent-os/standards"
TAGGED = f"---\ntags: [Python, flaky]\n---\n\n{FLAKY}"
HOSTILE = [
    "'; DROP TABLE dramatis.standards; --",
    "-e",
    "--",
    "%",
    "%s %(queries)s :queries ${x} {0}",
    "(a & | b",
    "\\",
    "' \\' '' \\\\'",
    '"a "b',
    "retry:*",
    ":*",
    "<->",
    "retry <-> jitter",
    "!!",
    "the and of",
    "重试 必须 幂等",
    "🙂🔥",
    "re\u0301try \u202e\ufeff",
    "retry" * (QUERY_LENGTH // 5),
    "é" * QUERY_LENGTH,
    "retry " * (QUERY_LENGTH // 6),
]


async def search(app: App, *queries: str, **filters: Any) -> SearchResult:
    return await search_standards(app, agent_of(app), queries, **filters)


def files(result: SearchResult) -> list[str]:
    return [hit.file.removeprefix(f"{SHOWN}/") for hit in result.hits]


async def counts(app: App) -> dict[str, int]:
    listing = await using(app, agent_of(app), list_standards)
    return {one.topic: one.query_count for one in listing.standards}


async def change(app: App, statement: str) -> None:
    async def write(work: Work) -> None:
        await work.session.execute(text(statement))

    await using(app, agent_of(app), write)


def fresh(app: App) -> App:
    """Another server on the same database: it remembers nothing of what this one found."""
    return but(app, memory={})


@pytest.fixture
async def indexed(project: Project, app: App, index: Index) -> App:
    project.write("testing/flaky-tests.md", TAGGED)
    project.write("development/retries.md", RETRIES)
    await index()
    return fresh(app)
