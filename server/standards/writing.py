"""Write what is approved: first the approval is committed, then the file is written, whole."""

from contextlib import suppress
from datetime import UTC, datetime

import anyio
import anyio.to_thread
from sqlalchemy import func, select, update

from db.tables import ApprovedFileRow, DecisionRow, ProposalRow, RevisionRow
from server import audit
from server.access import require
from server.errors import AssetsFailed, Conflict, DramatisError, Unavailable
from server.personas import assets
from server.standards import folder
from server.standards.documents import FrontMatter, body_sha256, read_document, write_document
from server.standards.folder import Content, StandardChanged, StandardFile
from server.standards.indexer import index_standards
from server.standards.projects import the_place
from server.standards.proposals import Decided, Verdict
from server.standards.queries import file_of, the_proposal
from server.work import App, Caller, Work


class NotApproved(Conflict):
    code = "not_approved"


class StandardSuperseded(Conflict):
    code = "standard_superseded"


class StandardNotWritten(AssetsFailed):
    code = "standard_not_written"


async def write_approved(app: App, caller: Caller, proposal_id: int) -> Decided:
    """Write the file of an approved proposal, if it is not there yet. Safe to repeat.

    Raises:
        Forbidden: the caller may not even propose, as one that only reads.
        ProposalNotFound: the project has none of this number.
        NotApproved: nobody has approved it.
        StandardNotWritten: the file still cannot be written.
    """
    require(caller, "standards:propose")
    async with app.work(caller) as work:
        proposal = await the_proposal(work, proposal_id)
        if proposal.status != "approved":
            raise NotApproved(
                f"Proposal {proposal.id} is {'a draft' if proposal.status == 'draft' else 'rejected'}"
                ", so there is nothing to write.",
                hint="A person approves it with `dramatis standards review`.",
            )
    return await written(app, caller, proposal.id)


def document_of(
    work: Work, proposal: ProposalRow, revision: RevisionRow, now: Content | None
) -> str:
    """Make the file: the approved text, and above it who stands behind it."""
    before = read_document(now.text).front if now else FrontMatter()
    at = datetime.now(UTC).replace(microsecond=0)
    front = FrontMatter(
        created_by=before.created_by or proposal.created_by,
        approved_by=work.caller.name,
        approved_sha256=body_sha256(revision.content),
        created_at=before.created_at or at,
        last_updated=at,
        tags=tuple(revision.tags) or before.tags,
        others=before.others,
    )
    return write_document(front, revision.content)


async def written(app: App, caller: Caller, proposal_id: int) -> Decided:
    """Write what is approved and remember that it is written, also when whoever waits has left."""
    answer: Decided | None = None
    with anyio.CancelScope(shield=True):
        answer = await _write(app, caller, proposal_id)
    assert answer is not None
    return answer


async def _write(app: App, caller: Caller, proposal_id: int) -> Decided:
    async with app.work(caller) as work:
        # Two that write at once would be in each other's way.
        proposal = await the_proposal(work, proposal_id, lock=True)
        approved, decision, revision = await _approval(work, proposal_id)
        file = file_of(work, proposal)
        if approved.abandoned_at is not None:
            raise StandardSuperseded(
                f"Another text was approved for {file.shown} since, so this one is not written.",
                hint="Propose it again, against the standard as it is now.",
            )
        is_written = approved.written_at is not None
        if not is_written:
            try:
                await anyio.to_thread.run_sync(
                    folder.write, file, the_place(app), approved.document, approved.base_sha256
                )
            except (OSError, DramatisError) as error:
                raise _not_written(approved, file, error) from error
            await _remember_written(work, approved, file)
        change = "updated" if approved.base_sha256 else "created"
        answer = decided(work, proposal, revision, "approved", f"Standard {change} at {file.shown}")
    if not is_written:
        # What keeps the index from it now, whoever watches the folder does later.
        with suppress(Unavailable):
            await index_standards(app, caller)
    return answer.model_copy(
        update={
            "path": str(file.file),
            "created": change == "created",
            "self_approved": decision.self_approved,
        }
    )


async def _approval(
    work: Work, proposal_id: int
) -> tuple[ApprovedFileRow, DecisionRow, RevisionRow]:
    query = (
        select(ApprovedFileRow, DecisionRow, RevisionRow)
        .join(DecisionRow, DecisionRow.id == ApprovedFileRow.decision_id)
        .join(
            RevisionRow,
            (RevisionRow.proposal_id == DecisionRow.proposal_id)
            & (RevisionRow.number == DecisionRow.number),
        )
        .where(ApprovedFileRow.proposal_id == proposal_id)
    )
    approved, decision, revision = (await work.session.execute(query)).one()
    return approved, decision, revision


async def _remember_written(work: Work, approved: ApprovedFileRow, file: StandardFile) -> None:
    await work.session.execute(
        update(ApprovedFileRow)
        .where(ApprovedFileRow.id == approved.id)
        .values(written_at=func.clock_timestamp())
    )
    details = {"proposal": approved.proposal_id, "sha256": approved.sha256}
    await audit.record(work, "standard.written", file.shown, details)


def _not_written(
    approved: ApprovedFileRow, file: StandardFile, error: OSError | DramatisError
) -> StandardNotWritten:
    if isinstance(error, OSError):
        why = assets.reason(error)
        remedy = f"See to it that {file.shown} can be written"
    else:
        why = str(error.args[0]).rstrip(".")
        remedy = _remedy(approved, file, error)
    number = approved.proposal_id
    hint = f"{remedy}, then run `dramatis standards repair {number}`."
    if isinstance(error, StandardChanged):
        hint += " Or propose it again: the approval of that takes the place of this one."
    return StandardNotWritten(
        f"Proposal {number} is approved, but {file.shown} could not be written: {why}.", hint=hint
    )


def _remedy(approved: ApprovedFileRow, file: StandardFile, error: DramatisError) -> str:
    if not isinstance(error, StandardChanged):
        return (error.hint or "Look at it").rstrip(".")
    if approved.base_sha256 is None:
        return f"Move {file.shown} away"
    return f"Bring back the text that {file.shown} had"


def decided(
    work: Work, proposal: ProposalRow, revision: RevisionRow, verdict: Verdict, message: str
) -> Decided:
    """Tell what a person's answer came to, as far as it is known before a file is written."""
    return Decided.model_validate(
        {
            "id": proposal.id,
            "status": proposal.status,
            "verdict": verdict,
            "revision": revision.number,
            "digest": revision.digest,
            "file": file_of(work, proposal).shown,
            "path": None,
            "created": None,
            "self_approved": False,
            "message": message,
        }
    )
