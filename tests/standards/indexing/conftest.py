"""What is in the index, read beside the services."""

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import text

from server.standards.catalogue import list_standards
from server.standards.search import search_standards
from server.standards.shapes import Hit, StandardSummary
from server.work import App, Caller, Work
from tests.standards.conftest import using

SHOWN = ".agent-os/standards"


class Shelf:
    """What is in the index, read beside the services."""

    def __init__(self, app: App, caller: Caller) -> None:
        self._app = app
        self._caller = caller

    async def select(self, query: str) -> list[tuple[Any, ...]]:
        async def read(work: Work) -> list[tuple[Any, ...]]:
            return [tuple(row) for row in await work.session.execute(text(query))]

        return await using(self._app, self._caller, read)

    async def change(self, statement: str) -> None:
        async def write(work: Work) -> None:
            await work.session.execute(text(statement))

        await using(self._app, self._caller, write)

    async def passages(self) -> list[tuple[Any, ...]]:
        """Return path, line, section and text of every passage."""
        return await self.select(
            "SELECT path, line, section, text FROM dramatis.passages p"
            " JOIN dramatis.standards s ON s.id = p.standard_id ORDER BY path, p.id"
        )

    async def postings(self) -> list[tuple[Any, ...]]:
        return await self.select(
            "SELECT path, section, term, tf, o.length FROM dramatis.postings o"
            " JOIN dramatis.passages p ON p.id = o.passage_id"
            " JOIN dramatis.standards s ON s.id = o.standard_id ORDER BY path, p.id, term"
        )

    async def versions(self) -> dict[str, tuple[Any, ...]]:
        """Return where each row of a standard lies, which a change moves, and ids of passages."""
        rows = await self.select(
            "SELECT path, s.ctid::text, array_agg(p.id ORDER BY p.id) FROM dramatis.standards s"
            " JOIN dramatis.passages p ON p.standard_id = s.id GROUP BY path, s.ctid::text"
        )
        return {path: tuple(version) for path, *version in rows}

    async def generation(self) -> int:
        ((generation,),) = await self.select("SELECT generation FROM dramatis.projects")
        return generation

    async def found(self, query: str, **filters: Any) -> Sequence[Hit]:
        result = await search_standards(self._app, self._caller, query, **filters)
        assert result.found_by == "full text"
        return result.hits

    async def listed(self) -> list[StandardSummary]:
        return (await using(self._app, self._caller, list_standards)).standards

    async def counts(self) -> dict[str, int]:
        return {one.file.removeprefix(f"{SHOWN}/"): one.query_count for one in await self.listed()}


@pytest.fixture
def shelf(app: App, agent: Caller) -> Shelf:
    return Shelf(app, agent)


def shown(*paths: str) -> list[str]:
    return [f"{SHOWN}/{path}" for path in paths]
