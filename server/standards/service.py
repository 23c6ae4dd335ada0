"""Propose what should become a standard. Nothing here writes a file or makes a text searchable."""

import hashlib
import json
import os.path
from collections.abc import Sequence
from typing import Any

import anyio.to_thread
from sqlalchemy import insert

from db.tables import ProposalRow, RevisionRow
from server import audit
from server.access import require
from server.errors import Conflict, Invalid, NotFound, parse
from server.personas.queries import the_persona
from server.personas.service import NothingToChange, refuse_archived
from server.standards import folder
from server.standards.catalogue import StandardNotReadable
from server.standards.documents import has_front_matter, read_document
from server.standards.folder import Content, StandardChanged, StandardFile
from server.standards.projects import the_place, the_project
from server.standards.proposals import Evidence, NewProposal, Proposed, ProposedText
from server.standards.queries import (
    file_of,
    newest_revision,
    others_for,
    same_draft,
    the_proposal,
)
from server.standards.secrets import find_secrets
from server.standards.similarity import similar_to
from server.work import Work

LINES_NAMED = 5


class SecretFound(Invalid):
    code = "secret_found"


class StandardExists(Conflict):
    code = "standard_exists"


class StandardGone(NotFound):
    code = "standard_not_found"


class AlreadyProposed(Conflict):
    code = "already_proposed"


class ProposalDecided(Conflict):
    code = "proposal_decided"


async def propose_standard(
    work: Work,
    *,
    domain: str,
    topic: str,
    content: str,
    reason: str,
    evidence: Sequence[Evidence] = (),
    confidence: float = 0.5,
    tags: Sequence[str] = (),
    base_sha256: str | None = None,
    persona: str | None = None,
) -> Proposed:
    """Ask whether a text may become a standard. The answer may take days: nobody waits for it.

    Args:
        base_sha256: of the file as it was read, where the topic exists and is to be changed.
        persona: who proposes; the caller if left out.

    Raises:
        Invalid: a value breaks a rule.
        SecretFound: a text holds a password, a key or the like; the message names the line.
        StandardExists, StandardGone, StandardChanged: the file is not what `base_sha256` says.
        StandardNotReadable: what the file says of itself cannot be kept, since it is broken.
        AlreadyProposed: a draft for the same file says the same.
        PersonaNotFound, AmbiguousPersona, PersonaArchived: `persona` cannot propose.
    """
    require(work.caller, "standards:propose")
    asked = parse(
        NewProposal,
        domain=domain,
        topic=topic,
        content=content,
        reason=reason,
        evidence=[*evidence],
        confidence=confidence,
        tags=[*tags],
        base_sha256=base_sha256,
        persona=persona,
    )
    await check_text(asked)
    persona_id, created_by = await _proposer(work, asked.persona)
    place = the_place(work.app)
    file = await anyio.to_thread.run_sync(folder.named, place, asked.domain, asked.topic)
    await _against(work, file, asked.base_sha256)
    project = await the_project(work)
    await _refuse_again(work, project.id, file, asked.content)
    proposal = await work.session.scalar(
        insert(ProposalRow).returning(ProposalRow),
        {
            "project_id": project.id,
            "domain": file.domain,
            "topic": file.topic,
            "path": file.path,
            "persona_id": persona_id,
            "created_by": created_by,
            "proposer_kind": work.caller.kind,
            "proposer_name": work.caller.name,
        },
    )
    assert proposal is not None
    revision = await store_revision(work, proposal, 1, asked, author=created_by)
    await audit.record(work, "standard.proposed", file.shown, _details(proposal, revision))
    return await _proposed(work, proposal, revision)


async def revise_proposal(
    work: Work,
    proposal_id: int,
    *,
    content: str | None = None,
    reason: str | None = None,
    evidence: Sequence[Evidence] | None = None,
    confidence: float | None = None,
    tags: Sequence[str] | None = None,
    base_sha256: str | None = None,
) -> Proposed:
    """Store the next revision of a draft; what is left out stays as it was.

    Args:
        base_sha256: of the file as it is now, where that has changed. Where the file has been
            removed, the revision is to make it anew.

    Raises:
        ProposalNotFound: the project has none of this number.
        ProposalDecided: it is approved or rejected, which is final.
        NothingToChange: it says what the revision before says.
        SecretFound, StandardExists, StandardGone, StandardChanged, StandardNotReadable, Invalid:
            see `propose_standard`.
    """
    require(work.caller, "standards:propose")
    proposal = await the_proposal(work, proposal_id, lock=True)
    refuse_decided(proposal)
    before = await newest_revision(work, proposal.id)
    file = file_of(work, proposal)
    kept = text_of(before)
    if not await anyio.to_thread.run_sync(os.path.lexists, file.file):
        kept = kept.model_copy(update={"base_sha256": None})
    given: dict[str, Any] = {
        "content": content,
        "reason": reason,
        "evidence": evidence,
        "confidence": confidence,
        "tags": tags,
        "base_sha256": base_sha256,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    asked = parse(ProposedText, **dict(kept) | changes)
    if asked == text_of(before):
        raise NothingToChange(
            f"Proposal {proposal.id} says that already.", hint="Change its content or its reason."
        )
    await check_text(asked)
    await _against(work, file, asked.base_sha256)
    # An agent speaks for the persona, or for itself, and never for a person.
    for_persona = proposal.persona_id is not None or proposal.proposer_kind == "agent"
    by_agent = work.caller.kind == "agent" and for_persona
    author = proposal.created_by if by_agent else work.caller.name
    revision = await store_revision(work, proposal, before.number + 1, asked, author=author)
    await audit.record(work, "standard.revised", file.shown, _details(proposal, revision))
    return await _proposed(work, proposal, revision)


async def store_revision(
    work: Work, proposal: ProposalRow, number: int, asked: ProposedText, *, author: str
) -> RevisionRow:
    """Store a revision with the digest of all that a person is shown of it."""
    values = asked.model_dump(
        mode="json",
        include={"content", "reason", "evidence", "confidence", "tags", "base_sha256"},
    )
    shown = {"path": proposal.path, "number": number, **values}
    digest = hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()
    row = await work.session.scalar(
        insert(RevisionRow).returning(RevisionRow),
        {
            "proposal_id": proposal.id,
            "number": number,
            **values,
            "digest": digest,
            "author_kind": work.caller.kind,
            "author": author,
        },
    )
    assert row is not None
    return row


async def check_text(text: ProposedText) -> None:
    """Refuse what may not become a file.

    Raises:
        SecretFound: a text holds something that looks like a password, a key or a token.
        Invalid: the content brings front matter of its own, where approval would stand.
    """
    if has_front_matter(text.content):
        raise Invalid(
            "content: must not begin with front matter.",
            hint="Give tags as `tags`; who proposed and who approved is added by itself.",
        )
    await anyio.to_thread.run_sync(_refuse_secrets, text)


def text_of(row: RevisionRow) -> ProposedText:
    return ProposedText.model_validate(
        {
            "content": row.content,
            "reason": row.reason,
            "evidence": row.evidence,
            "confidence": row.confidence,
            "tags": row.tags,
            "base_sha256": row.base_sha256,
        }
    )


def refuse_decided(proposal: ProposalRow) -> None:
    """Refuse to act on what is no draft any more.

    Raises:
        ProposalDecided: it is none.
    """
    if proposal.status != "draft":
        raise ProposalDecided(
            f"Proposal {proposal.id} is {proposal.status} already, and that is final.",
            hint="Propose again, against the standard as it is now.",
        )


async def _proposer(work: Work, reference: str | None) -> tuple[int | None, str]:
    if reference is None:
        return None, work.caller.name
    persona = await the_persona(work, reference)
    refuse_archived(persona)
    return persona.id, persona.slug


async def _against(work: Work, file: StandardFile, base_sha256: str | None) -> None:
    """Refuse a proposal that does not know the file as it is now."""
    await anyio.to_thread.run_sync(folder.refuse_outside, file, the_place(work.app))
    now = await anyio.to_thread.run_sync(folder.read, file)
    if now is None and base_sha256 is not None:
        raise StandardGone(
            f"{file.shown} is not there (any more).",
            hint="Propose it anew without base_sha256 to make it.",
        )
    if now is not None and base_sha256 is None:
        raise StandardExists(
            f"{file.shown} exists already.",
            hint="Read it with read_standard, work the change into its text, and propose that with"
            " its sha256 as base_sha256.",
        )
    if now is not None and now.sha256 != base_sha256:
        raise StandardChanged(
            f"{file.shown} has changed since it was read.",
            hint="Read it again with read_standard and propose the change against it as it is now.",
        )
    if now is not None and (problem := await anyio.to_thread.run_sync(_problem, now)):
        raise StandardNotReadable(
            f"{file.shown} cannot be changed, because a part of it would be lost. {problem}",
            hint="Mend it in an editor, then propose the change against it as it is then.",
        )


def _problem(now: Content) -> str | None:
    return now.problem or read_document(now.text).problem


async def _refuse_again(work: Work, project_id: int, file: StandardFile, content: str) -> None:
    if (same := await same_draft(work, project_id, file.path, content)) is not None:
        raise AlreadyProposed(
            f"Proposal {same} says the same about {file.shown}.",
            hint="Go on with your work: a person will decide on it.",
        )


async def _proposed(work: Work, proposal: ProposalRow, revision: RevisionRow) -> Proposed:
    file = file_of(work, proposal)
    return Proposed.model_validate(
        {
            "id": proposal.id,
            "revision": revision.number,
            "file": file.shown,
            "status": proposal.status,
            "digest": revision.digest,
            "similar": await similar_to(work, proposal.project_id, revision.content, file),
            "other_proposals": await others_for(work, proposal),
            "message": f"Proposal {proposal.id} waits for a person. Go on with your work; nothing"
            " is written or searchable before it is approved.",
        }
    )


def _refuse_secrets(text: ProposedText) -> None:
    fields = {
        "content": text.content,
        "reason": text.reason,
        "tags": "\n".join(text.tags),
        "evidence": "\n".join(
            f"{one.file} {one.lines or ''} {one.note or ''}" for one in text.evidence
        ),
    }
    found = [
        f"{field}, line {secret.line}: {secret.kind}"
        for field, value in fields.items()
        for secret in find_secrets(value)
    ]
    if found:
        more = f" and {len(found) - LINES_NAMED} more" if len(found) > LINES_NAMED else ""
        raise SecretFound(
            f"This looks like a secret, so nothing was stored: {'; '.join(found[:LINES_NAMED])}{more}.",
            hint="Put a placeholder such as $DATABASE_URL in its place, or say where it is kept.",
        )


def _details(proposal: ProposalRow, revision: RevisionRow) -> dict[str, Any]:
    return {
        "proposal": proposal.id,
        "revision": revision.number,
        "digest": revision.digest,
        "created_by": proposal.created_by,
    }
