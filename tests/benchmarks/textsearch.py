"""The baseline of search: what Postgres has for it, over the passages of one of our projects."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from tests.benchmarks.raw import Connection

_COPY = """
CREATE TEMP TABLE texts AS
SELECT s.path, p.text,
  to_tsvector('english', concat_ws(E'\\n', s.title, p.section, p.text)) AS document
FROM dramatis.passages p
JOIN dramatis.standards s ON s.id = p.standard_id
JOIN dramatis.projects project ON project.id = s.project_id AND project.root = {}
"""
_FIND = """
SELECT path, text FROM texts, {} query
WHERE document @@ query ORDER BY ts_rank(document, query) DESC LIMIT %(limit)s
"""
# Every word is wanted, as people expect of a search; or any of them, which finds more.
EVERY = "websearch_to_tsquery('english', %(question)s)"
ANY = "CAST(replace(CAST(plainto_tsquery('english', %(question)s) AS text), '&', '|') AS tsquery)"


@dataclass(frozen=True, slots=True)
class TextSearch:
    connection: Connection

    async def index(self, project: Path) -> None:
        """Make vectors of the words of all passages, which are in the database, and an index."""
        await self.connection.execute("DROP TABLE IF EXISTS texts")
        await self.connection.execute(sql.SQL(_COPY).format(sql.Literal(str(project))))
        await self.connection.execute("CREATE INDEX ON texts USING gin (document)")
        await self.connection.execute("ANALYZE texts")

    async def find(self, words: str, question: str, limit: int = 5) -> list[str]:
        """Return the files of the best passages; `words` is `EVERY` or `ANY`."""
        cursor = await self.connection.execute(
            _FIND.format(words).encode(), {"question": question, "limit": limit}
        )
        return [path for path, _ in await cursor.fetchall()]


@asynccontextmanager
async def text_search(host: str) -> AsyncGenerator[TextSearch]:
    """Connect as the superuser, whom no policy costs anything."""
    async with await psycopg.AsyncConnection.connect(
        host=host, port=5432, user="postgres", dbname="dramatis", autocommit=True
    ) as connection:
        yield TextSearch(connection)
