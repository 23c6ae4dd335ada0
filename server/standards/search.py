"""Find the passages that answer, and say how they were found and who approved them."""

import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import anyio.to_thread
from sqlalchemy import text

from db.tables import ProjectRow
from server.errors import Unavailable, parse
from server.standards import semantic
from server.standards.folder import find_files
from server.standards.hits import details, indexed_hit, scanned_hit
from server.standards.indexer import index_standards
from server.standards.presence import expecting_index, index_gone
from server.standards.projects import checked, find_project, the_place
from server.standards.ranking import LONGEST_QUERY, Filters, by_words
from server.standards.scanning import scan
from server.standards.shapes import Hit, Layer, Searched, SearchResult, folded
from server.work import App, Caller, Place, Work

# Reciprocal rank fusion: what is first in one list does not outvote what is good in both.
RRF = 60
FUSED = 50
WORDS = "full text"
BOTH = "full text and vectors"
SCAN = "scan of the files"
# An index run may take away what was just found, but not twice in a moment.
ATTEMPTS = 2
NO_STANDARDS = "The project has no standards yet."


class NotIndexed(Unavailable):
    code = "not_indexed"


async def search_standards(
    app: App,
    caller: Caller,
    queries: str | Sequence[str],
    *,
    limit: int = 5,
    domain: str | None = None,
    tags: Sequence[str] = (),
    layer: Layer | None = None,
) -> SearchResult:
    """Find the passages that answer best, and count a query for each standard among them.

    Takes no `Work`: without a database the files themselves are searched, and the answer says so.

    Args:
        queries: one question, or the same one in several wordings.
        tags: all of them are wanted.

    Raises:
        Invalid: an argument breaks a rule; any text but a blank one is a query.
        NoProject, StandardsOutside: see `the_place`.
    """
    asked = _asked(queries, limit=limit, domain=domain, tags=tags, layer=layer)
    place = the_place(app)
    began = time.perf_counter()
    # Before the transaction, for a model may take longer than one should.
    wanted = await semantic.embed_queries(app, asked.queries)
    try:
        with expecting_index():
            return _timed(await _found(app, caller, asked, wanted), began)
    except Unavailable as error:
        why = str(error.args[0]).rstrip(".")
    return _timed(await _scan(place, asked, why), began)


async def search_files(
    place: Place | None,
    unavailable: Unavailable,
    queries: str | Sequence[str],
    *,
    limit: int = 5,
    domain: str | None = None,
    tags: Sequence[str] = (),
    layer: Layer | None = None,
) -> SearchResult:
    """Search the files of a place, where there is not even an app to ask.

    Args:
        unavailable: why there is none.

    Raises:
        Invalid, NoProject, StandardsOutside: see `search_standards`.
    """
    asked = _asked(queries, limit=limit, domain=domain, tags=tags, layer=layer)
    began = time.perf_counter()
    return _timed(await _scan(checked(place), asked, _why(unavailable)), began)


def _asked(
    queries: str | Sequence[str],
    *,
    limit: int,
    domain: str | None,
    tags: Sequence[str],
    layer: Layer | None,
) -> Searched:
    return parse(
        Searched,
        queries=[queries] if isinstance(queries, str) else list(queries),
        limit=limit,
        domain=domain,
        tags=list(tags),
        layer=layer,
    )


def _why(error: Unavailable) -> str:
    return str(error.args[0]).rstrip(".")


async def search_now(
    app: App,
    caller: Caller,
    queries: str | Sequence[str],
    *,
    limit: int = 5,
    domain: str | None = None,
    tags: Sequence[str] = (),
    layer: Layer | None = None,
) -> SearchResult:
    """Search what is on the disk at this moment, for who has no watcher that keeps the index up."""
    # What keeps it from indexing, searching finds too: it has another way, and says so.
    with suppress(Unavailable):
        await index_standards(app, caller)
    return await search_standards(
        app, caller, queries, limit=limit, domain=domain, tags=tags, layer=layer
    )


async def _scan(place: Place, asked: Searched, why: str) -> SearchResult:
    note = f"{why}, so the files were searched word by word."
    if not await anyio.to_thread.run_sync(find_files, place):
        note = NO_STANDARDS
    filters = _filters(asked)
    found = await anyio.to_thread.run_sync(scan, place, asked.queries, filters, asked.limit)
    return _result([scanned_hit(one) for one in found], SCAN, note)


@dataclass(frozen=True, slots=True)
class _Remembered:
    """What is remembered of a search, as long as the index does not change."""

    result: SearchResult
    standard_ids: list[int]


@dataclass(frozen=True, slots=True)
class _Ranked:
    passages: list[tuple[int, float]]
    found_by: str
    notes: list[str]


async def _found(
    app: App, caller: Caller, asked: Searched, wanted: semantic.Wanted | None
) -> SearchResult:
    async with app.work(caller) as work:
        project = await find_project(work)
        if project is None or project.indexed_at is None:
            raise NotIndexed("The standards are not indexed yet.")
        return await _indexed(work, project, asked, wanted)


async def _indexed(
    work: Work, project: ProjectRow, asked: Searched, wanted: semantic.Wanted | None
) -> SearchResult:
    memory = work.app.memory
    key = ("search", work.caller.tenant_id, project.id, project.generation, asked.model_dump_json())
    found = memory.get(key)
    if not isinstance(found, _Remembered):
        found = await _search(work, project, asked, wanted)
        # What a model that is away kept from being found may be found the next time.
        if wanted is None or found.result.found_by == BOTH:
            memory[key] = found
    if found.standard_ids:
        await work.session.execute(_COUNT, {"ids": found.standard_ids})
    return found.result


async def _search(
    work: Work, project: ProjectRow, asked: Searched, wanted: semantic.Wanted | None
) -> _Remembered:
    for _ in range(ATTEMPTS):
        ranked = await _ranked(work, project, asked, wanted)
        chosen = ranked.passages[: asked.limit]
        rows = await details(work, asked.queries, [passage_id for passage_id, _ in chosen])
        if len(rows) == len(chosen):
            place = the_place(work.app)
            hits = [indexed_hit(place, row, one[1]) for row, one in zip(rows, chosen, strict=True)]
            note = " ".join(ranked.notes) or None
            standard_ids = sorted({row.standard_id for row in rows})
            return _Remembered(_result(hits, ranked.found_by, note), standard_ids)
    raise index_gone()


async def _ranked(
    work: Work, project: ProjectRow, asked: Searched, wanted: semantic.Wanted | None
) -> _Ranked:
    filters = _filters(asked)
    passages = await by_words(work, project.id, asked.queries, filters, FUSED)
    if not passages and await work.session.scalar(_LOST, {"project_id": project.id}):
        raise index_gone()
    found_by, notes = WORDS, list[str]()
    if wanted is not None:
        meant = await semantic.by_meaning(work, project, wanted, filters, FUSED)
        notes += meant.notes
        if meant.ranked is not None:
            passages, found_by = _fused(passages, meant.ranked), BOTH
    if any(len(query) > LONGEST_QUERY for query in asked.queries):
        notes.append(f"Only the first {LONGEST_QUERY:,} characters of a query count.")
    if not passages:
        notes.append(await _nothing(work, project))
    return _Ranked(passages, found_by, notes)


def _fused(*rankings: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Fuse rankings by reciprocal rank; 1 is what stands first in all of them."""
    scores: defaultdict[int, float] = defaultdict(float)
    for ranking in rankings:
        for rank, (passage_id, _) in enumerate(ranking, start=1):
            scores[passage_id] += (RRF + 1) / (RRF + rank) / len(rankings)
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


async def _nothing(work: Work, project: ProjectRow) -> str:
    domains = list(await work.session.scalars(_DOMAINS, {"project_id": project.id}))
    if not domains:
        return NO_STANDARDS
    return f"Nothing fits. There are standards on {', '.join(domains)}: try other words for it."


def _filters(asked: Searched) -> Filters:
    return Filters(
        domain=folded(asked.domain) if asked.domain else None,
        tags=tuple(asked.tags),
        layer=asked.layer,
    )


def _result(hits: list[Hit], found_by: str, note: str | None) -> SearchResult:
    return SearchResult.model_validate(
        {
            "hits": hits,
            "found_by": found_by,
            "took_ms": 0,
            "tokens": sum(hit.tokens for hit in hits),
            "note": note,
        }
    )


def _timed(result: SearchResult, began: float) -> SearchResult:
    took_ms = round((time.perf_counter() - began) * 1000, 2)
    return result.model_copy(update={"took_ms": took_ms})


# In the order of their ids, so that two searches never wait for each other in a circle. Waiting for
# the disk would take as long as the search, and a count that a crash takes back is no loss.
_COUNT = text("""
INSERT INTO dramatis.standard_uses AS uses (standard_id, query_count)
SELECT id, 1
FROM unnest(CAST(:ids AS integer[])) id, set_config('synchronous_commit', 'off', true)
ORDER BY 1
ON CONFLICT (tenant_id, standard_id)
DO UPDATE SET query_count = uses.query_count + 1, last_queried_at = now()
""")
_LOST = text("""
SELECT EXISTS (SELECT FROM dramatis.standards WHERE project_id = :project_id AND present AND length > 0)
  AND NOT EXISTS (SELECT FROM dramatis.postings WHERE project_id = :project_id)
""")
_DOMAINS = text("""
SELECT DISTINCT domain FROM dramatis.standards WHERE project_id = :project_id AND present ORDER BY 1
""")
