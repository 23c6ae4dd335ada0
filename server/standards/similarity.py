"""Know again what a standard says already, whoever proposes it in whatever words."""

from collections import Counter
from collections.abc import Iterable

from sqlalchemy import select

from db.tables import PassageRow, StandardRow
from server.standards import folder
from server.standards.folder import StandardFile
from server.standards.passages import passages, title_of
from server.standards.presence import IndexGone, expecting_index
from server.standards.projects import the_place
from server.standards.proposals import Similar
from server.standards.ranking import Filters, by_words
from server.work import Work

SIMILAR = 3
# Enough to know a text again, and soon done.
COMPARED = 6
# A few words have something in common with anything.
SHORTEST = 60
# A copy has about 0.6. Of 25 standards that were compared with 48 others, the nearest had 0.13.
SIMILAR_FROM = 0.2


async def similar_to(
    work: Work, project_id: int, content: str, file: StandardFile
) -> list[Similar]:
    """Find standards that say something close to a text, other than the one it is for.

    How close is the mean over the passages of the text, each beside the passage of the standard
    that is nearest to it.
    """
    try:
        # Of its own, so that what is missing costs no more than this.
        async with work.session.begin_nested():
            with expecting_index():
                near = await _near(work, project_id, content)
    except IndexGone:
        return []
    rows = await work.session.scalars(select(StandardRow).where(StandardRow.id.in_(near)))
    place = the_place(work.app)
    return [
        Similar(
            domain=row.domain,
            topic=row.topic,
            file=folder.file_at(place, row.layer, row.path).shown,
            relevance=round(near[row.id], 2),
        )
        for row in sorted(rows, key=lambda row: -near[row.id])
        if (row.layer, row.path) != (file.layer, file.path)
    ][:SIMILAR]


async def _near(work: Work, project_id: int, content: str) -> dict[int, float]:
    close: Counter[int] = Counter()
    title = title_of(content) or ""
    parts = [one for one in passages(content, title) if len(one.text) >= SHORTEST][:COMPARED]
    for part in parts:
        query = f"{part.title} {part.section} {part.text}"
        ranked = dict(await by_words(work, project_id, [query], Filters(None, (), None), limit=20))
        best: dict[int, float] = {}
        for passage_id, standard_id in await _standards_of(work, ranked):
            best[standard_id] = max(best.get(standard_id, 0), ranked[passage_id] / len(parts))
        close.update(best)
    return {standard_id: share for standard_id, share in close.items() if share >= SIMILAR_FROM}


async def _standards_of(work: Work, passage_ids: Iterable[int]) -> list[tuple[int, int]]:
    query = select(PassageRow.id, PassageRow.standard_id).where(PassageRow.id.in_(passage_ids))
    return [(row.id, row.standard_id) for row in await work.session.execute(query)]
