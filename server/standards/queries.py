"""Find proposals, and show one as whoever has to decide on it must see it."""

import shlex

import anyio.to_thread
from sqlalchemy import func, or_, select, text
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import aliased

from db.tables import (
    ApprovedFileRow,
    DecisionRow,
    ProjectRow,
    ProposalRow,
    RevisionRow,
)
from server.errors import NotFound, parse
from server.settings import default_data_root
from server.standards import folder
from server.standards.comparing import diff
from server.standards.documents import read_document
from server.standards.folder import StandardFile
from server.standards.projects import find_project, the_place
from server.standards.proposals import (
    Decision,
    Evidence,
    Numbered,
    ProposalDetail,
    ProposalPage,
    ProposalQuery,
    ProposalSummary,
    RevisionSummary,
)
from server.standards.reviewing import review_of
from server.standards.similarity import similar_to
from server.work import App, Work


class ProposalNotFound(NotFound):
    code = "proposal_not_found"


async def list_proposals(
    work: Work, *, status: str = "draft", limit: int = 20, before: int | None = None
) -> ProposalPage:
    """List the project's proposals, the newest first, a page at a time."""
    asked = parse(ProposalQuery, status=status, limit=limit, before=before)
    project = await find_project(work)
    if project is None:
        return ProposalPage(proposals=[], waiting=0, next_before=None)
    query = _NEWEST_FIRST.where(ProposalRow.project_id == project.id)
    if asked.status != "all":
        query = query.where(ProposalRow.status == asked.status)
    if asked.before is not None:
        query = query.where(ProposalRow.id < asked.before)
    rows = (await work.session.execute(query.limit(asked.limit + 1))).all()
    page = [_summary(work, *row) for row in rows[: asked.limit]]
    return ProposalPage(
        proposals=page,
        waiting=await waiting(work, project),
        next_before=page[-1].id if len(rows) > asked.limit else None,
    )


async def get_proposal(work: Work, proposal_id: int) -> ProposalDetail:
    """Show a proposal: its newest revision, against the file as it is now, and its history.

    Raises:
        ProposalNotFound: the project has none of this number.
    """
    found = await the_proposal(work, proposal_id)
    rows = await work.session.execute(_NEWEST_FIRST.where(ProposalRow.id == found.id))
    row, revision, last, approved = rows.one()
    file = file_of(work, row)
    now = await anyio.to_thread.run_sync(folder.read, file)
    current = now and now.sha256
    stale = None
    if row.status == "draft" and current != revision.base_sha256:
        stale = _stale(file, revision.base_sha256, current)
    document = await anyio.to_thread.run_sync(read_document, now.text if now else "")
    body = document.body if now else ""
    return ProposalDetail(
        **dict(_summary(work, row, revision, last, approved)),
        content=revision.content,
        evidence=[Evidence.model_validate(one) for one in revision.evidence],
        confidence=revision.confidence,
        tags=revision.tags,
        digest=revision.digest,
        base_sha256=revision.base_sha256,
        current_sha256=current,
        base_review=(await review_of(work, now))[0] if now else None,
        kept=dict(document.front.others),
        stale=stale,
        diff=await anyio.to_thread.run_sync(diff, body, revision.content),
        since_answer=await _since(work, revision, last),
        similar=await similar_to(work, row.project_id, revision.content, file),
        other_proposals=await others_for(work, row),
        revisions=await _revisions(work, row),
        decisions=await _decisions(work, row),
        review_command=review_command(work.app, row.id),
    )


async def the_proposal(work: Work, proposal_id: int, *, lock: bool = False) -> ProposalRow:
    """Find a proposal of the project.

    Args:
        lock: keep everybody else from deciding on it until the transaction ends.

    Raises:
        ProposalNotFound: the project has none of this number.
    """
    number = parse(Numbered, proposal=proposal_id).proposal
    project = await find_project(work)
    query = select(ProposalRow).where(ProposalRow.id == number)
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    row = await work.session.scalar(query)
    if row is None or project is None or row.project_id != project.id:
        raise ProposalNotFound(
            f"This project has no proposal {number}.",
            hint="list_standard_proposals has those there are.",
        )
    return row


async def newest_revision(work: Work, proposal_id: int) -> RevisionRow:
    query = select(RevisionRow).where(RevisionRow.proposal_id == proposal_id)
    return (await work.session.scalars(query.order_by(RevisionRow.number.desc()).limit(1))).one()


async def waiting(work: Work, project: ProjectRow) -> int:
    """Count the drafts that wait for a person."""
    query = _WAITING.where(ProposalRow.project_id == project.id)
    return await work.session.scalar(select(func.count()).select_from(query.subquery())) or 0


async def waiting_ids(work: Work) -> list[int]:
    """List the drafts that wait for a person, the oldest first."""
    project = await find_project(work)
    if project is None:
        return []
    query = _WAITING.where(ProposalRow.project_id == project.id).with_only_columns(ProposalRow.id)
    return [*await work.session.scalars(query.order_by(None).order_by(ProposalRow.id))]


async def not_written(work: Work) -> list[ProposalSummary]:
    """List what is approved and still has to be written, the oldest first."""
    project = await find_project(work)
    if project is None:
        return []
    query = _NEWEST_FIRST.where(
        ApprovedFileRow.project_id == project.id,
        ApprovedFileRow.written_at.is_(None),
        ApprovedFileRow.abandoned_at.is_(None),
    )
    rows = await work.session.execute(query.order_by(None).order_by(ProposalRow.id))
    return [_summary(work, *row) for row in rows]


async def same_draft(work: Work, project_id: int, path: str, content: str) -> int | None:
    """Find a draft for the file whose newest revision is this text, and keep out another one."""
    await work.session.execute(_LOCK, {"project_id": project_id})
    query = select(ProposalRow.id).join(_Revision, _Revision.proposal_id == ProposalRow.id)
    return await work.session.scalar(
        query.where(
            ProposalRow.project_id == project_id,
            ProposalRow.path == path,
            ProposalRow.status == "draft",
            _Revision.content == content,
        ).limit(1)
    )


async def others_for(work: Work, proposal: ProposalRow) -> list[int]:
    """List the other drafts for the same file."""
    query = select(ProposalRow.id).where(
        ProposalRow.project_id == proposal.project_id,
        ProposalRow.path == proposal.path,
        ProposalRow.status == "draft",
        ProposalRow.id != proposal.id,
    )
    return [*await work.session.scalars(query.order_by(ProposalRow.id))]


def file_of(work: Work, proposal: ProposalRow) -> StandardFile:
    return folder.file_at(the_place(work.app), "project", proposal.path)


def review_command(app: App, proposal_id: int) -> str:
    """Say what a person types to decide on a proposal, in whatever folder they are."""
    place = the_place(app)
    command = f"dramatis standards review {proposal_id} --project {shlex.quote(str(place.root))}"
    if app.data_root != default_data_root():
        command += f" --data-root {shlex.quote(str(app.data_root))}"
    return command


async def _since(work: Work, newest: RevisionRow, last: DecisionRow | None) -> list[str]:
    """Compare with what a person answered, so that they need not read it all once more."""
    if last is None or last.number >= newest.number:
        return []
    answered = await work.session.scalar(
        select(RevisionRow.content).where(
            RevisionRow.proposal_id == newest.proposal_id, RevisionRow.number == last.number
        )
    )
    return await anyio.to_thread.run_sync(diff, answered or "", newest.content)


async def _revisions(work: Work, row: ProposalRow) -> list[RevisionSummary]:
    query = select(RevisionRow).where(RevisionRow.proposal_id == row.id)
    return [
        RevisionSummary(
            number=one.number, author=one.author, created_at=one.created_at, digest=one.digest
        )
        for one in await work.session.scalars(query.order_by(RevisionRow.number))
    ]


async def _decisions(work: Work, row: ProposalRow) -> list[Decision]:
    query = select(DecisionRow).where(DecisionRow.proposal_id == row.id)
    return [
        Decision.model_validate(
            {
                "revision": one.number,
                "verdict": one.verdict,
                "feedback": one.feedback or None,
                "person": one.person,
                "channel": one.channel,
                "self_approved": one.self_approved,
                "decided_at": one.decided_at,
            }
        )
        for one in await work.session.scalars(query.order_by(DecisionRow.id))
    ]


def _summary(
    work: Work,
    row: ProposalRow,
    revision: RevisionRow,
    last: DecisionRow | None,
    file: ApprovedFileRow | None,
) -> ProposalSummary:
    answered = last is not None and last.number == revision.number
    whose_turn = "persona" if answered else "person"
    return ProposalSummary.model_validate(
        {
            "id": row.id,
            "domain": row.domain,
            "topic": row.topic,
            "file": file_of(work, row).shown,
            "status": row.status,
            "waits_for": whose_turn if row.status == "draft" else "nobody",
            "changes_existing": revision.base_sha256 is not None,
            "revision": revision.number,
            "reason": revision.reason,
            "created_by": row.created_by,
            "created_at": row.created_at,
            "feedback": (last and last.feedback) or None,
            "not_written": file is not None and not (file.written_at or file.abandoned_at),
        }
    )


def _stale(file: StandardFile, base: str | None, current: str | None) -> str:
    if base is None:
        return f"{file.shown} has been made since this was proposed."
    if current is None:
        return f"{file.shown} has been removed since this was proposed."
    return f"{file.shown} has changed since this was proposed."


# Two that propose the same at once come one after the other.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('dramatis.proposals'), :project_id)")
# The newest revision of each proposal and the last decision on it, in one statement.
_Revision = aliased(
    RevisionRow,
    select(RevisionRow)
    .ext(distinct_on(RevisionRow.proposal_id))
    .order_by(RevisionRow.proposal_id, RevisionRow.number.desc())
    .subquery(),
)
_Decision = aliased(
    DecisionRow,
    select(DecisionRow)
    .ext(distinct_on(DecisionRow.proposal_id))
    .order_by(DecisionRow.proposal_id, DecisionRow.id.desc())
    .subquery(),
)
_NEWEST_FIRST = (
    select(ProposalRow, _Revision, _Decision, ApprovedFileRow)
    .join(_Revision, _Revision.proposal_id == ProposalRow.id)
    .outerjoin(_Decision, _Decision.proposal_id == ProposalRow.id)
    .outerjoin(ApprovedFileRow, ApprovedFileRow.proposal_id == ProposalRow.id)
    .order_by(ProposalRow.id.desc())
)
_WAITING = _NEWEST_FIRST.where(
    ProposalRow.status == "draft",
    or_(_Decision.number.is_(None), _Decision.number < _Revision.number),
)
