"""List and read the standards there are. The text always comes from the file as it is now."""

import difflib
from collections.abc import Sequence

import anyio.to_thread
from sqlalchemy import ColumnElement, Select, Text, cast, func, literal, select

from db.tables import (
    ApprovedFileRow,
    DecisionRow,
    PassageRow,
    ProjectRow,
    StandardRow,
    StandardUseRow,
)
from server.errors import Conflict, Invalid, NotFound, parse
from server.personas.shapes import Shape
from server.standards import folder
from server.standards.documents import read_document
from server.standards.folder import StandardFile
from server.standards.projects import find_project, the_place
from server.standards.queries import waiting
from server.standards.reviewing import review_of
from server.standards.semantic import standing
from server.standards.shapes import (
    DomainName,
    Layer,
    Named,
    StandardListing,
    StandardQuery,
    StandardSummary,
    StandardText,
    Statistics,
    TopicName,
    folded,
)
from server.standards.templates import outline
from server.work import Work

TOP = 5
NEAREST = 3
# Where a topic stands in several layers, the project's own counts.
LAYERS: tuple[Layer, ...] = ("project", "language", "universal")


class Subject(Shape):
    domain: DomainName
    topic: TopicName


class Opened(Shape):
    """A text to write a proposal with; `base_sha256` is `None` where there is no file yet."""

    file: str
    text: str
    base_sha256: str | None


class StandardNotFound(NotFound):
    code = "standard_not_found"


class StandardNotReadable(Conflict):
    code = "standard_not_readable"


async def list_standards(
    work: Work,
    *,
    domain: str | None = None,
    tags: Sequence[str] = (),
    layer: Layer | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> StandardListing:
    """List the indexed standards by domain and topic, a page at a time.

    Args:
        cursor: `next_cursor` of the page before.

    Raises:
        Invalid: an argument breaks a rule, or the cursor is not one of this listing's.
    """
    asked = parse(
        StandardQuery, domain=domain, tags=[*tags], layer=layer, limit=limit, cursor=cursor
    )
    project = await find_project(work)
    if project is None:
        return StandardListing(standards=[], total=0, domains=[], next_cursor=None)
    wanted: list[ColumnElement[bool]] = [StandardRow.tags.contains(asked.tags)]
    if asked.domain is not None:
        wanted.append(func.split_part(StandardRow.key, "/", 1) == folded(asked.domain))
    if asked.layer is not None:
        wanted.append(StandardRow.layer == asked.layer)
    query = _standards(project).where(*wanted).order_by(_PLACE)
    if asked.cursor is not None:
        query = query.where(await _place(work, project, asked.cursor) < _PLACE)
    rows = (await work.session.execute(query.limit(asked.limit + 1))).all()
    page = rows[: asked.limit]
    last = page[-1][0] if len(rows) > asked.limit else None
    every = (StandardRow.project_id == project.id, StandardRow.present)
    total = await work.session.scalar(
        select(func.count()).select_from(StandardRow).where(*every, *wanted)
    )
    domains = select(StandardRow.domain).where(*every).distinct().order_by(StandardRow.domain)
    return StandardListing(
        standards=[_summary(work, *row) for row in page],
        total=total or 0,
        domains=[*await work.session.scalars(domains)],
        next_cursor=str(last.id) if last else None,
    )


async def read_standard(work: Work, domain: str, topic: str) -> StandardText:
    """Read a standard as its file is now, and the hash that a change of it has to name.

    The names are compared with those of the files there are, and are never a path.

    Raises:
        StandardNotFound: no file fits; the hint names the closest.
        StandardNotReadable: the file is too large, or no text.
    """
    asked = parse(Named, domain=domain, topic=topic)
    key = f"{folded(asked.domain)}/{folded(asked.topic.removesuffix(folder.SUFFIX))}"
    files = await anyio.to_thread.run_sync(folder.find_files, the_place(work.app))
    fitting = [file for layer in LAYERS for file in files if (file.layer, file.key) == (layer, key)]
    file = fitting[0] if fitting else None
    content = await anyio.to_thread.run_sync(folder.read, file) if file else None
    if file is None or content is None:
        raise _not_found(key, files)
    if content.problem is not None:
        raise StandardNotReadable(content.problem, hint="Mend it in an editor.")
    review, person = await review_of(work, content)
    return StandardText(
        domain=file.domain,
        topic=file.topic,
        layer=file.layer,
        file=file.shown,
        text=content.text,
        sha256=content.sha256,
        review=review,
        approved_by=person,
    )


async def open_standard(work: Work, domain: str, topic: str) -> Opened:
    """Open the text to write a proposal with: of the project's standard, or an outline.

    Raises:
        Invalid: domain or topic cannot be names.
        StandardNotReadable: the file is too large, or no text.
    """
    asked = parse(Subject, domain=domain, topic=topic)
    place = the_place(work.app)
    file = await anyio.to_thread.run_sync(folder.named, place, asked.domain, asked.topic)
    now = await anyio.to_thread.run_sync(folder.read, file)
    if now is None:
        text, base_sha256 = outline(work.app, asked.topic), None
    elif now.problem is None:
        text, base_sha256 = read_document(now.text).body, now.sha256
    else:
        raise StandardNotReadable(now.problem, hint="Mend it in an editor.")
    return Opened(file=file.shown, text=text, base_sha256=base_sha256)


async def standards_starting_with(
    work: Work, typed: str, limit: int, *, domain: str | None = None
) -> list[str]:
    """Complete a domain, or with `domain` the topic in it, that somebody is typing."""
    project = await find_project(work)
    if project is None:
        return []
    column = StandardRow.domain if domain is None else StandardRow.topic
    query = select(column).where(
        StandardRow.project_id == project.id,
        StandardRow.present,
        column.istartswith(typed, autoescape=True),
    )
    if domain is not None:
        query = query.where(StandardRow.domain == domain)
    return [*await work.session.scalars(query.distinct().order_by(column).limit(limit))]


async def statistics(work: Work) -> Statistics:
    """Count what there is, and say what searches return most, never, and what changed last."""
    project = await find_project(work)
    if project is None:
        return _NOTHING
    present = (StandardRow.project_id == project.id, StandardRow.present)
    standards = _standards(project)
    uses = func.coalesce(StandardUseRow.query_count, 0)
    reviewed = func.coalesce(_APPROVER.c.person, StandardRow.claimed_by)
    unreviewed = standards.where(reviewed.is_(None))
    top = (
        standards.where(uses > 0).order_by(uses.desc(), StandardRow.key),
        standards.where(uses == 0).order_by(StandardRow.key),
        standards.order_by(StandardRow.modified_at.desc(), StandardRow.key),
    )
    most, never, recent = [
        [_summary(work, *row) for row in await work.session.execute(query.limit(TOP))]
        for query in top
    ]
    not_written = (
        ApprovedFileRow.project_id == project.id,
        ApprovedFileRow.written_at.is_(None),
        ApprovedFileRow.abandoned_at.is_(None),
    )
    return Statistics(
        standards=await _count(work, select(StandardRow.id).where(*present)),
        passages=await _count(
            work, select(PassageRow.id).where(PassageRow.project_id == project.id)
        ),
        unsearchable=await _count(
            work, select(StandardRow.id).where(*present, StandardRow.passage_count == 0)
        ),
        unreviewed=await _count(work, unreviewed),
        waiting_proposals=await waiting(work, project),
        not_written=await _count(work, select(ApprovedFileRow.id).where(*not_written)),
        indexed_at=project.indexed_at,
        vectors=await standing(work, project),
        most_queried=most,
        never_queried=never,
        recently_changed=recent,
    )


async def _count(work: Work, query: Select[int] | Select[StandardRow, int, str]) -> int:
    return await work.session.scalar(select(func.count()).select_from(query.subquery())) or 0


async def _place(work: Work, project: ProjectRow, cursor: str) -> str:
    """Find where the last one of a page stands; it need not be there any more."""
    place = await work.session.scalar(
        select(_PLACE).where(
            StandardRow.project_id == project.id, cast(StandardRow.id, Text) == cursor
        )
    )
    if place is None:
        raise Invalid(
            "cursor: is not one of this listing's.", hint="Leave it out to start from the top."
        )
    return place


def _not_found(key: str, files: Sequence[StandardFile]) -> StandardNotFound:
    keys = [*dict.fromkeys(file.key for file in files)]
    near = difflib.get_close_matches(key, keys, n=NEAREST, cutoff=0.4)
    near += [one for one in keys if one.split("/")[1] == key.split("/")[1] and one not in near]
    suggestion = f"Did you mean {', '.join(near[:NEAREST])}? " if near else ""
    return StandardNotFound(
        "There is no such standard.", hint=f"{suggestion}list_standards has those there are."
    )


def _standards(project: ProjectRow) -> Select[StandardRow, int, str]:
    """Select standards with how often they were found and who approved exactly this text."""
    return (
        select(StandardRow, func.coalesce(StandardUseRow.query_count, 0), _APPROVER.c.person)
        .outerjoin(StandardUseRow, StandardUseRow.standard_id == StandardRow.id)
        .outerjoin(_APPROVER, literal(True))
        .where(StandardRow.project_id == project.id, StandardRow.present)
    )


def _summary(work: Work, row: StandardRow, query_count: int, person: str | None) -> StandardSummary:
    place = the_place(work.app)
    return StandardSummary.model_validate(
        {
            "domain": row.domain,
            "topic": row.topic,
            "layer": row.layer,
            "file": folder.file_at(place, row.layer, row.path).shown,
            "title": row.title,
            "tags": row.tags,
            "created_by": row.created_by,
            "review": "approved" if person else "claimed" if row.claimed_by else "unreviewed",
            "approved_by": person or row.claimed_by,
            "last_updated": row.modified_at,
            "query_count": query_count,
            "problem": row.problem,
        }
    )


# Two files can have the same key: in two layers, or spelled differently.
_PLACE = func.concat(StandardRow.key, literal(" "), StandardRow.id)
_APPROVER = (
    select(DecisionRow.person.label("person"))
    .join(ApprovedFileRow, ApprovedFileRow.decision_id == DecisionRow.id)
    .where(
        ApprovedFileRow.project_id == StandardRow.project_id,
        ApprovedFileRow.sha256 == StandardRow.sha256,
    )
    .order_by(ApprovedFileRow.id.desc())
    .limit(1)
    .lateral()
)
_NOTHING = Statistics(
    standards=0,
    passages=0,
    unsearchable=0,
    unreviewed=0,
    waiting_proposals=0,
    not_written=0,
    indexed_at=None,
    vectors="nothing is indexed yet",
    most_queried=[],
    never_queried=[],
    recently_changed=[],
)
