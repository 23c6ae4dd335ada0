"""Ask a person whether a proposal becomes a standard. Nothing else that is served here decides.

The SDK runs the resolvers below before the tool, for clients of 2026-07-28 once more when the
answer arrives. It takes an answer only to the very question that it is asked again then, so the
text depends on nothing but what is stored. Their names are on the wire.
"""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Literal

from mcp.server.mcpserver import AcceptedElicitation, Elicit, ElicitationResult, Resolve
from pydantic import BaseModel, ConfigDict, Field

from server.errors import Conflict
from server.late import Late
from server.standards.proposals import (
    ApprovalRequested,
    Decided,
    Outcome,
    ProposalDetail,
    ProposalId,
)
from server.surfaces.mcp.toolset import Ctx, Request, acting, can_ask, refusals, use_case
from server.visible import lines_of, visible

if TYPE_CHECKING:
    from server import access, work
    from server.standards import approving, folder, queries, service, writing
else:
    access = Late("server.access")
    approving = Late("server.standards.approving")
    folder = Late("server.standards.folder")
    queries = Late("server.standards.queries")
    service = Late("server.standards.service")
    work = Late("server.work")
    writing = Late("server.standards.writing")

# A form that has to be scrolled for longer is not read.
QUESTION_LENGTH = 6_000
QUESTION_LINES = 200
LINE_LENGTH = 1_000
MARGIN = "│ "


class AwaitsRevision(Conflict):
    code = "awaits_revision"


class Answer(BaseModel):
    """What a person said. It comes out of an accepted form and is made nowhere else."""

    model_config = ConfigDict(extra="forbid")

    # Clients fill the default in. It is none of ours: one that loses fields would approve.
    decision: Literal["approve", "ask for changes", "reject"] = Field(
        description="What is to become of it", json_schema_extra={"default": "approve"}
    )
    feedback: str = Field(default="", description="Why; needed unless you approve")


class NotAsked(BaseModel):
    why: str


async def foresee(ctx: Ctx, proposal: ProposalId) -> ProposalDetail:
    """Refuse what would be refused anyway before anybody is asked."""
    with refusals():
        async with use_case(ctx) as opened:
            prospect = await queries.get_proposal(opened, proposal)
        if prospect.status != "draft" and not prospect.not_written:
            raise service.ProposalDecided(
                f"Proposal {proposal} is {prospect.status} already, and that is final.",
                hint="Propose again, against the standard as it is now.",
            )
        if prospect.waits_for == "persona":
            raise AwaitsRevision(
                f"A person has asked for changes to revision {prospect.revision} of proposal"
                f" {proposal}: {prospect.feedback}",
                hint="Store another one with revise_standard_proposal before you ask again.",
            )
        if prospect.stale is not None:
            raise folder.StandardChanged(
                f"{prospect.stale} Nothing was decided.",
                hint="Read it with read_standard, work the change into it, and pass content and"
                " base_sha256 to revise_standard_proposal.",
            )
    return prospect


async def ask(
    ctx: Ctx, prospect: Annotated[ProposalDetail, Resolve(foresee)]
) -> NotAsked | Elicit[Answer]:
    if prospect.not_written:
        return NotAsked(why="It is approved already.")
    if not can_ask(ctx):
        return NotAsked(why="This client cannot ask anybody.")
    return form(prospect) or NotAsked(why="It is too long for a form.")


def form(prospect: ProposalDetail) -> Elicit[Answer] | None:
    """Make the form that a person decides with; `None` when it is too long to be read in one."""
    asked = question(prospect)
    return None if _is_too_long(asked) else Elicit(asked, Answer)


Foreseen = Annotated[ProposalDetail, Resolve(foresee)]
Reply = ElicitationResult[Answer | NotAsked]
Answered = Annotated[Reply, Resolve(ask)]


async def carried_out(
    ctx: Ctx | Request, prospect: ProposalDetail, reply: Reply
) -> ApprovalRequested:
    """Do what the person said, on exactly what they were shown.

    Raises:
        DramatisError: it cannot be done any more; nothing is decided, unless the error says so.
    """
    if prospect.not_written:
        return _approved(await writing.write_approved(*await acting(ctx), prospect.id))
    match reply:
        case AcceptedElicitation(data=Answer() as answer):
            return await _decided(ctx, prospect, answer)
        case AcceptedElicitation(data=NotAsked(why=why)):
            return _undecided(
                prospect,
                "cannot_ask",
                f"{why} Tell the user that proposal {prospect.id} waits for them, and which command"
                " shows it. Go on with your work.",
            )
        case _:
            return _undecided(
                prospect,
                "left_open",
                f"The user did not decide on proposal {prospect.id}, so it stays open. Go on with"
                " your work, and do not ask again until they want it.",
            )


async def _decided(
    ctx: Ctx | Request, prospect: ProposalDetail, answer: Answer
) -> ApprovalRequested:
    app, agent = await acting(ctx)
    # The form was in front of whoever runs the client, and nobody else could have accepted it.
    person = work.Caller("human", access.login_name(), agent.tenant_id, work.PERSON_SCOPES)
    feedback = answer.feedback.strip()
    if answer.decision == "approve" and not feedback:
        return _approved(
            await approving.approve_proposal(
                app, person, prospect.id, digest=prospect.digest, channel="elicitation"
            )
        )
    if answer.decision == "approve" or not feedback:
        # Whoever writes feedback may have overlooked that the form says to approve.
        unclear = "approved and gave feedback" if feedback else f"would {answer.decision}, not why"
        return _undecided(
            prospect,
            "left_open",
            f"Nothing was decided: the user {unclear}. Ask them, and request it again if they want.",
            feedback=feedback or None,
        )
    asks = answer.decision == "ask for changes"
    decide = approving.request_changes if asks else approving.reject_proposal
    async with app.work(person) as opened:
        decided = await decide(
            opened,
            prospect.id,
            digest=prospect.digest,
            feedback=feedback,
            channel="elicitation",
        )
    next_step = " Revise it with revise_standard_proposal." if asks else ""
    return _requested(
        decided,
        "changes_requested" if asks else "rejected",
        f"{decided.message}{next_step}",
        feedback=feedback,
    )


def _approved(decided: Decided) -> ApprovalRequested:
    return _requested(decided, "approved", f"{decided.message}.")


def _requested(
    decided: Decided, status: Outcome, message: str, *, feedback: str | None = None
) -> ApprovalRequested:
    return ApprovalRequested(
        status=status,
        proposal=decided.id,
        revision=decided.revision,
        file=decided.file,
        path=decided.path,
        feedback=feedback,
        command=None,
        message=message,
    )


def _undecided(
    prospect: ProposalDetail, status: Outcome, message: str, *, feedback: str | None = None
) -> ApprovalRequested:
    return ApprovalRequested(
        status=status,
        proposal=prospect.id,
        revision=prospect.revision,
        file=prospect.file,
        path=None,
        feedback=feedback,
        command=prospect.review_command,
        message=message,
    )


def question(prospect: ProposalDetail) -> str:
    """Show all that a yes is a yes to. No line begins with what others wrote."""
    changes = prospect.shows_change
    made = "gets" if prospect.changes_existing else "is created with"
    happens = "changes as shown below" if changes else f"{made} exactly the text below"
    lines = [
        "Make this a standard for everybody who works on this project?",
        f'If you accept with "approve", {prospect.file} {happens}, and every agent finds it. To ask'
        " for changes or to reject, say why.",
        f"Proposal {prospect.id}, revision {prospect.revision}, by {_line(prospect.created_by)},"
        f" {prospect.confidence:.0%} sure. Why:",
        *_quoted(lines_of(prospect.reason)),
        *_evidence(prospect),
        *_history(prospect),
        *_surroundings(prospect),
    ]
    if not changes:
        lines += ["The text:", *_quoted(lines_of(prospect.content))]
    elif prospect.diff:
        lines += ["The change:", *_quoted(_without_names(prospect.diff))]
    else:
        lines.append("Its text stays as it is.")
    return "\n".join(lines)


def _evidence(prospect: ProposalDetail) -> list[str]:
    if not prospect.evidence:
        return []
    places = [(one.file, one.lines, one.note) for one in prospect.evidence]
    shown = [" ".join(" ".join(filter(None, place)).split()) for place in places]
    return ["Seen in:", *_quoted(shown)]


def _history(prospect: ProposalDetail) -> list[str]:
    lines: list[str] = []
    if prospect.feedback:
        lines += ["Asked for before:", *_quoted(lines_of(prospect.feedback))]
    if prospect.since_answer:
        lines += ["Changed since then:", *_quoted(_without_names(prospect.since_answer))]
    return lines


def _surroundings(prospect: ProposalDetail) -> list[str]:
    lines: list[str] = []
    if prospect.similar:
        close = ", ".join(one.file for one in prospect.similar)
        lines.append(f"Close to it: {_line(close)}")
    if prospect.other_proposals:
        others = ", ".join(map(str, prospect.other_proposals))
        lines.append(f"Other proposals for the same file: {others}")
    if prospect.base_review in ("claimed", "unreviewed"):
        lines.append("The file as it is was never approved here: a yes approves all of the text.")
    if prospect.kept:
        lines.append(f"Front matter that stays: {_line(json.dumps(prospect.kept))}")
    if prospect.tags:
        lines.append(f"Tags: {_line(', '.join(prospect.tags))}")
    return lines


def _is_too_long(asked: str) -> bool:
    """Tell whether something in a question could be out of sight."""
    lines = asked.split("\n")
    return (
        len(asked) > QUESTION_LENGTH
        or len(lines) > QUESTION_LINES
        or any(len(line) > LINE_LENGTH for line in lines)
    )


def _without_names(diff: list[str]) -> list[str]:
    """Leave out what a unified diff calls its two sides."""
    return diff[2:]


def _quoted(lines: Iterable[str]) -> list[str]:
    return [f"{MARGIN}{visible(line)}".rstrip() for line in lines]


def _line(text: str) -> str:
    return " ".join(visible(text).split())
