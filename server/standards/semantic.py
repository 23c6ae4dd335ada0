"""Search by meaning: vectors of passages, made in the background and compared exactly.

The vectors are kept with the passages, as bytes, so that any Postgres will do. They are compared in
this process, where ten thousand take a few milliseconds; an index of vectors would find less under
row-level security, which filters only what the index has returned.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache

import anyio.to_thread
from sqlalchemy import ColumnElement, LargeBinary, and_, bindparam, func, or_, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from db.tables import PassageRow, ProjectRow, StandardRow
from db.unavailable import EmbeddedUnavailable
from server.errors import Unavailable
from server.standards.embedding import TIMEOUT, Embedder, Vectors, open_embedder
from server.standards.indexer import Progress, touch
from server.standards.projects import find_project
from server.standards.ranking import LONGEST_QUERY, Filters
from server.work import App, Caller, DatabaseUnavailable, Embedding, Work

BATCH = 32
PATIENCE = timedelta(seconds=3)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The queries as vectors, by which model; none, and why, where they cannot be made."""

    name: str
    vectors: list[bytes]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Meant:
    """Passages by meaning, best first; `None` where vectors cannot be had. The notes say why."""

    ranked: list[tuple[int, float]] | None
    notes: list[str]


async def embed_queries(app: App, queries: Sequence[str]) -> Wanted | None:
    """Make vectors of queries; `None` without a model.

    An endpoint may be slow, and nobody is to hold a transaction meanwhile.
    """
    if app.embedding is None:
        return None
    key = ("wanted", app.embedding, *queries)
    remembered = app.memory.get(key)
    if isinstance(remembered, Wanted):
        return remembered
    try:
        embedder = await anyio.to_thread.run_sync(_for_queries, app.embedding)
        shortened = [query[:LONGEST_QUERY] for query in queries]
        vectors = await anyio.to_thread.run_sync(embedder.embed, shortened)
    except Unavailable as error:
        return Wanted("", [], f"Without vectors: {error.args[0]}")
    app.memory[key] = wanted = Wanted(embedder.name, vectors)
    return wanted


async def by_meaning(
    work: Work, project: ProjectRow, wanted: Wanted, filters: Filters, limit: int
) -> Meant:
    """Rank passages by how near they are to the nearest of the queries."""
    if wanted.problem is not None:
        return Meant(None, [wanted.problem])
    try:
        vectors, missing = await _vectors(work, project, wanted.name)
        ranked = await anyio.to_thread.run_sync(vectors.nearest, wanted.vectors, len(vectors.ids))
    except Unavailable as error:
        return Meant(None, [f"Without vectors: {error.args[0]}"])
    notes = [f"{missing:,} passages have no vector yet."] if missing else []
    if not ranked:
        return Meant(None, notes)
    allowed = await _allowed(work, project, filters)
    # What is not near at all would be in the list only because it has to be somewhere.
    kept = [one for one in ranked if one[1] > 0 and (allowed is None or one[0] in allowed)]
    return Meant(kept[:limit], notes)


async def standing(work: Work, project: ProjectRow) -> str:
    """Say whether passages can be found by their meaning."""
    if work.app.embedding is None:
        return "off: DRAMATIS_EMBEDDING_MODEL names no model"
    try:
        embedder = await anyio.to_thread.run_sync(_embedder, work.app.embedding)
    except Unavailable as error:
        return f"unavailable: {error}"
    missing = await _count_missing(work, project, embedder.name)
    return f"{missing:,} passages have no vector yet" if missing else "all passages have vectors"


async def embed_missing(app: App, caller: Caller, *, progress: Progress | None = None) -> int:
    """Make the vectors that are missing, one process at a time.

    Returns:
        How many were made; 0 without a model, or while another process makes them.

    Raises:
        Unavailable: the model or the endpoint cannot be had; what was made until then stays.
    """
    if app.embedding is None:
        return 0
    embedder = await anyio.to_thread.run_sync(_embedder, app.embedding)
    async with app.work(caller) as work:
        project = await find_project(work)
    if project is None:
        return 0
    made = 0
    async with _alone(app, project) as locked:
        while locked:
            async with app.work(caller) as work:
                missing = await _missing(work, project, embedder.name)
                left = len(missing) and await _count_missing(work, project, embedder.name)
            if not missing:
                return made
            texts = ["\n".join(part for part in row[1:] if part) for row in missing]
            blobs = await anyio.to_thread.run_sync(embedder.embed, texts)
            async with app.work(caller) as work:
                await _store(work, project, embedder, [row[0] for row in missing], blobs)
            made += len(blobs)
            if progress is not None:
                progress(made, made + left - len(blobs))
    return made


@asynccontextmanager
async def _alone(app: App, project: ProjectRow) -> AsyncGenerator[bool]:
    """Hold the lock of the project's vectors, on a connection of its own; False if another does."""
    lock = {"project_id": project.id}
    try:
        async with app.database.engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            locked = bool(await connection.scalar(_LOCK, lock))
            try:
                yield locked
            finally:
                # With the connection, the lock is gone too.
                with anyio.CancelScope(shield=True), suppress(DBAPIError):
                    await connection.execute(_UNLOCK, lock)
    except (DBAPIError, PoolTimeout, EmbeddedUnavailable) as error:
        raise DatabaseUnavailable(
            "The database does not answer.", hint="Vectors are made when it does again."
        ) from error


@cache
def _embedder(embedding: Embedding, timeout: timedelta = TIMEOUT) -> Embedder:
    return open_embedder(
        model=embedding.model, url=embedding.url, key=embedding.key, timeout=timeout
    )


def _for_queries(embedding: Embedding) -> Embedder:
    """Open the model, or an endpoint that may not keep whoever searches waiting for long."""
    return _embedder(embedding) if embedding.url is None else _embedder(embedding, PATIENCE)


async def _vectors(work: Work, project: ProjectRow, name: str) -> tuple[Vectors, int]:
    key = ("vectors", work.caller.tenant_id, project.id, name)
    remembered = work.app.memory.get(key)
    if isinstance(remembered, _Remembered) and remembered.generation == project.generation:
        return remembered.vectors, remembered.missing
    rows = await work.session.execute(
        select(PassageRow.id, PassageRow.embedding)
        .where(PassageRow.project_id == project.id, PassageRow.embedded_by == name)
        .order_by(PassageRow.id)
    )
    ids, blobs = list[int](), list[bytes]()
    for passage_id, blob in rows:
        if blob is not None:
            ids.append(passage_id)
            blobs.append(blob)
    vectors = await anyio.to_thread.run_sync(Vectors.of, ids, blobs)
    missing = await _count_missing(work, project, name)
    work.app.memory[key] = _Remembered(project.generation, vectors, missing)
    return vectors, missing


@dataclass(frozen=True, slots=True)
class _Remembered:
    generation: int
    vectors: Vectors
    missing: int


async def _allowed(work: Work, project: ProjectRow, filters: Filters) -> set[int] | None:
    if filters == Filters(None, (), None):
        return None
    conditions = [StandardRow.project_id == project.id, StandardRow.tags.contains(filters.tags)]
    if filters.domain is not None:
        conditions.append(func.split_part(StandardRow.key, "/", 1) == filters.domain)
    if filters.layer is not None:
        conditions.append(StandardRow.layer == filters.layer)
    query = select(PassageRow.id).join(StandardRow, StandardRow.id == PassageRow.standard_id)
    return set(await work.session.scalars(query.where(*conditions)))


def _lacking(project: ProjectRow, name: str) -> ColumnElement[bool]:
    return and_(
        PassageRow.project_id == project.id,
        or_(PassageRow.embedded_by.is_(None), PassageRow.embedded_by != name),
    )


async def _missing(work: Work, project: ProjectRow, name: str) -> list[tuple[int, str, str, str]]:
    rows = await work.session.execute(
        select(PassageRow.id, StandardRow.title, PassageRow.section, PassageRow.text)
        .join(StandardRow, StandardRow.id == PassageRow.standard_id)
        .where(_lacking(project, name))
        .order_by(PassageRow.id)
        .limit(BATCH)
    )
    return [(row.id, row.title, row.section, row.text) for row in rows]


async def _count_missing(work: Work, project: ProjectRow, name: str) -> int:
    query = select(func.count()).select_from(PassageRow).where(_lacking(project, name))
    return await work.session.scalar(query) or 0


async def _store(
    work: Work, project: ProjectRow, embedder: Embedder, ids: Sequence[int], blobs: Sequence[bytes]
) -> None:
    """Keep vectors. A passage that is gone meanwhile takes its vector along."""
    await work.session.execute(
        _KEEP, {"ids": list(ids), "vectors": list(blobs), "name": embedder.name}
    )
    await touch(work, project.id)


_LOCK = text("SELECT pg_try_advisory_lock(hashtext('dramatis.vectors'), :project_id)")
_UNLOCK = text("SELECT pg_advisory_unlock(hashtext('dramatis.vectors'), :project_id)")
_KEEP = text("""
UPDATE dramatis.passages p SET embedding = made.vector, embedded_by = :name
FROM unnest(CAST(:ids AS bigint[]), :vectors) AS made (id, vector)
WHERE p.id = made.id
""").bindparams(bindparam("vectors", type_=ARRAY(LargeBinary)))
