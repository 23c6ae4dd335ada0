"""Decide on a proposal. Only a person can, and only on exactly what they were shown."""

from typing import Any

import anyio
import anyio.to_thread
from sqlalchemy import func, insert, select, update
from sqlalchemy.orm.attributes import set_committed_value

from db.tables import ApprovedFileRow, DecisionRow, ProposalRow, RevisionRow
from server import audit
from server.errors import Conflict, Forbidden, parse
from server.personas import assets
from server.standards import folder
from server.standards.folder import Content, StandardChanged, StandardFile
from server.standards.indexer import lock_index, touch
from server.standards.projects import the_place
from server.standards.proposals import Channel, Decided, Edited, Said, Verdict
from server.standards.queries import file_of, newest_revision, the_proposal
from server.standards.service import (
    check_text,
    refuse_decided,
    store_revision,
    text_of,
)
from server.standards.writing import decided, document_of, written
from server.work import App, Caller, Work


class NeedsPerson(Forbidden):
    code = "needs_person"


class ProposalChanged(Conflict):
    code = "proposal_changed"


class StandardPending(Conflict):
    code = "standard_pending"


async def approve_proposal(
    app: App,
    caller: Caller,
    proposal_id: int,
    *,
    digest: str,
    channel: Channel,
    content: str | None = None,
) -> Decided:
    """Make a proposal a standard: commit the approval, then write the file and index it.

    Takes no `Work`, because the approval is to stand whatever the disk does then.

    Args:
        digest: of the revision that the person was shown.
        content: the text as the person edited it, which becomes a revision of theirs.

    Raises:
        NeedsPerson: the caller is none.
        ProposalNotFound, ProposalDecided: there is nothing to decide.
        ProposalChanged: it was revised since; nothing is approved.
        StandardChanged: the file that it would change, or make, is another now.
        StandardPending: another approved text still has to be written there.
        SecretFound, Invalid: the text may not become a file.
        StandardNotWritten: it is approved, and the file is not written; `write_approved` does it.
    """
    require_person(caller)
    async with app.work(caller) as work:
        proposal = await the_proposal(work, proposal_id, lock=True)
        shown = revision = await _shown(work, proposal, digest)
        if content is not None:
            revision = await _edit(work, proposal, shown, content)
        await check_text(text_of(revision))
        own = _is_own(proposal, shown, caller)
        await _approve(work, proposal, revision, channel, self_approved=own)
    return await written(app, caller, proposal.id)


async def request_changes(
    work: Work, proposal_id: int, *, digest: str, feedback: str, channel: Channel
) -> Decided:
    """Ask the persona for another revision; the proposal stays a draft.

    Raises:
        NeedsPerson, ProposalNotFound, ProposalDecided, ProposalChanged: see `approve_proposal`.
    """
    said = parse(Said, feedback=feedback).feedback
    proposal, revision = await _deciding(work, proposal_id, digest)
    await _record(work, proposal, revision, "changes", channel, said)
    return decided(
        work, proposal, revision, "changes", f"Proposal {proposal.id} goes back to its persona."
    )


async def reject_proposal(
    work: Work, proposal_id: int, *, digest: str, feedback: str, channel: Channel
) -> Decided:
    """Refuse a proposal for good, and say why.

    Raises:
        NeedsPerson, ProposalNotFound, ProposalDecided, ProposalChanged: see `approve_proposal`.
    """
    said = parse(Said, feedback=feedback).feedback
    proposal, revision = await _deciding(work, proposal_id, digest)
    await _set_status(work, proposal, "rejected")
    await _record(work, proposal, revision, "rejected", channel, said)
    return decided(
        work, proposal, revision, "rejected", f"Proposal {proposal.id} is rejected, for good."
    )


def require_person(caller: Caller) -> None:
    """Refuse everybody but a person.

    Raises:
        NeedsPerson: the caller is an agent, or a command that nobody was asked by.
    """
    if caller.kind != "human" or "standards:approve" not in caller.scopes:
        raise NeedsPerson(
            "Only a person decides what becomes a standard.",
            hint="They run `dramatis standards review` on a terminal, or answer when"
            " request_standard_approval asks them.",
        )


async def _deciding(work: Work, proposal_id: int, digest: str) -> tuple[ProposalRow, RevisionRow]:
    require_person(work.caller)
    proposal = await the_proposal(work, proposal_id, lock=True)
    return proposal, await _shown(work, proposal, digest)


async def _shown(work: Work, proposal: ProposalRow, digest: str) -> RevisionRow:
    """Return the newest revision, if it is the one that the person was shown."""
    refuse_decided(proposal)
    revision = await newest_revision(work, proposal.id)
    if revision.digest != digest:
        raise ProposalChanged(
            f"Proposal {proposal.id} was revised since it was shown: revision {revision.number} is"
            " the newest. Nothing was decided.",
            hint="Look at it again.",
        )
    return revision


async def _edit(work: Work, proposal: ProposalRow, shown: RevisionRow, content: str) -> RevisionRow:
    text = parse(Edited, content=content).content
    if text == shown.content:
        return shown
    asked = text_of(shown).model_copy(update={"content": text})
    return await store_revision(work, proposal, shown.number + 1, asked, author=work.caller.name)


def _is_own(proposal: ProposalRow, shown: RevisionRow, person: Caller) -> bool:
    """Tell whether a person is shown what they wrote; what an agent made of it is not theirs."""
    theirs = (shown.author, proposal.proposer_name)
    return shown.author_kind != "agent" and person.name in theirs


async def _approve(
    work: Work,
    proposal: ProposalRow,
    revision: RevisionRow,
    channel: Channel,
    *,
    self_approved: bool,
) -> None:
    # Nobody else approves for the same file, or indexes it, until this is committed.
    await lock_index(work, proposal.project_id)
    file = file_of(work, proposal)
    await anyio.to_thread.run_sync(folder.refuse_outside, file, the_place(work.app))
    now = await anyio.to_thread.run_sync(folder.read, file)
    if (now and now.sha256) != revision.base_sha256:
        raise StandardChanged(
            f"{file.shown} has changed since this was proposed, so nothing was approved.",
            hint=f"Ask for a revision against the file as it is now:"
            f" revise_standard_proposal of {proposal.id} with the new base_sha256.",
        )
    await _supersede(work, proposal, file, now)
    document = await anyio.to_thread.run_sync(document_of, work, proposal, revision, now)
    await _set_status(work, proposal, "approved")
    decision_id = await _record(
        work, proposal, revision, "approved", channel, "", self_approved=self_approved
    )
    await work.session.execute(
        insert(ApprovedFileRow),
        {
            "project_id": proposal.project_id,
            "proposal_id": proposal.id,
            "decision_id": decision_id,
            "path": proposal.path,
            "document": document,
            "sha256": assets.sha256(document),
            "base_sha256": revision.base_sha256,
        },
    )
    # A text that lies there already is approved from now on, and searches have to say so.
    await touch(work, proposal.project_id)


async def _supersede(
    work: Work, proposal: ProposalRow, file: StandardFile, now: Content | None
) -> None:
    """Give up an earlier approval that could not be written, once the file has gone another way.

    Raises:
        StandardPending: it can be written still.
    """
    query = select(ApprovedFileRow).where(
        ApprovedFileRow.project_id == proposal.project_id,
        ApprovedFileRow.path == proposal.path,
        ApprovedFileRow.written_at.is_(None),
        ApprovedFileRow.abandoned_at.is_(None),
    )
    current = now and now.sha256
    for pending in await work.session.scalars(query):
        if current in (pending.base_sha256, pending.sha256):
            raise StandardPending(
                f"Proposal {pending.proposal_id} is approved, and {file.shown} still has to be"
                " written.",
                hint=f"Run `dramatis standards repair {pending.proposal_id}` first.",
            )
        await work.session.execute(
            update(ApprovedFileRow)
            .where(ApprovedFileRow.id == pending.id)
            .values(abandoned_at=func.clock_timestamp())
        )
        details: dict[str, Any] = {"proposal": pending.proposal_id, "for": proposal.id}
        await audit.record(work, "standard.superseded", file.shown, details)


async def _set_status(work: Work, proposal: ProposalRow, status: str) -> None:
    """Change the one column that may change."""
    await work.session.execute(
        update(ProposalRow).where(ProposalRow.id == proposal.id).values(status=status),
        execution_options={"synchronize_session": False},
    )
    set_committed_value(proposal, "status", status)


async def _record(
    work: Work,
    proposal: ProposalRow,
    revision: RevisionRow,
    verdict: Verdict,
    channel: Channel,
    feedback: str,
    *,
    self_approved: bool = False,
) -> int:
    decision_id = await work.session.scalar(
        insert(DecisionRow).returning(DecisionRow.id),
        {
            "proposal_id": proposal.id,
            "number": revision.number,
            "digest": revision.digest,
            "verdict": verdict,
            "feedback": feedback,
            "person": work.caller.name,
            "channel": channel,
            "self_approved": self_approved,
        },
    )
    assert decision_id is not None
    details: dict[str, Any] = {
        "proposal": proposal.id,
        "revision": revision.number,
        "digest": revision.digest,
        "channel": channel,
        "self_approved": self_approved,
    }
    action = {"approved": "approved", "changes": "returned", "rejected": "rejected"}[verdict]
    await audit.record(work, f"standard.{action}", file_of(work, proposal).shown, details)
    return decision_id
