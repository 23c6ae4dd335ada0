"""Ask the person before a spec is published.

The SDK runs the resolvers below before the tool, for clients of 2026-07-28 once more when the
answer arrives. It takes an answer only to the very question that it is asked again then, so the
text depends on nothing but what is stored. Their names are on the wire.
"""

import unicodedata
from typing import TYPE_CHECKING, Annotated

from mcp.server.mcpserver import (
    AcceptedElicitation,
    CancelledElicitation,
    Elicit,
    ElicitationResult,
    Resolve,
)
from pydantic import BaseModel, Field

from server.errors import Forbidden
from server.late import Late
from server.specs.shapes import Prospect
from server.surfaces.mcp.toolset import Ctx, can_ask, refusals, use_case

if TYPE_CHECKING:
    from server.specs import publishing
else:
    publishing = Late("server.specs.publishing")

FAILING_SHOWN = 5
CHANGES_SHOWN = 8
LINE_SHOWN = 300


class NotConfirmed(Forbidden):
    code = "not_confirmed"


class Answer(BaseModel):
    # Optional, so that accepting means yes without having to tick anything.
    publish: bool = Field(default=True, description="Make it the active version")


async def foresee(ctx: Ctx, persona: str, version: str, override_checks: bool) -> Prospect:
    """Refuse what would be refused anyway before anybody is asked."""
    # An agent's word for a person's yes is enough to publish, and not to override checks.
    override = override_checks and can_ask(ctx)
    with refusals():
        async with use_case(ctx) as work:
            return await publishing.foresee_publishing(
                work, persona, version, override_checks=override
            )


async def ask(
    ctx: Ctx, prospect: Annotated[Prospect, Resolve(foresee)], note: str, confirm: bool
) -> Answer | Elicit[Answer]:
    if prospect.changes_nothing:
        return Answer()
    if can_ask(ctx):
        return Elicit(question(prospect, note), Answer)
    with refusals():
        if not confirm:
            raise NotConfirmed(
                f"{_what(prospect)} was not published: that needs the user's yes, and this client"
                " cannot ask for it.",
                hint="Get the user's explicit yes in the conversation, then call again with"
                " confirm=true.",
            )
    return Answer()


Foreseen = Annotated[Prospect, Resolve(foresee)]
Answered = Annotated[ElicitationResult[Answer], Resolve(ask)]


def agreed(prospect: Prospect, answer: ElicitationResult[Answer]) -> None:
    """Let a yes pass.

    Raises:
        NotConfirmed: for every other answer; the hint says how to go on.
    """
    match answer:
        case AcceptedElicitation(data=Answer(publish=True)):
            return
        case CancelledElicitation():
            raise NotConfirmed(
                f"{_what(prospect)} was not published: the question to the user was left open.",
                hint="Tell the user. They can let you call again, or run `dramatis spec publish"
                f" {prospect.slug} {prospect.version}` themselves.",
            )
        case _:
            raise NotConfirmed(
                f"{_what(prospect)} was not published: the user said no.",
                hint="Ask what should be different, and do not call again until they want it.",
            )


def question(prospect: Prospect, note: str) -> str:
    """Say what a yes does. What agents and documents wrote comes last, each on a line of its own."""
    instead = f"in place of {prospect.active}" if prospect.active else "as its first active spec"
    lines = [
        f"Publish spec {prospect.version} of {prospect.name} ({prospect.slug})?",
        f"From now on the persona runs with {prospect.version}, {instead}.",
    ]
    if changes := prospect.changes:
        more = f" and {len(changes) - CHANGES_SHOWN} more" if len(changes) > CHANGES_SHOWN else ""
        paths = ", ".join(change.path for change in changes[:CHANGES_SHOWN])
        lines.append(f"Changes: {_line(paths)}{more}.")
    if count := len(prospect.failing):
        lines.append(f"{count} {'check fails' if count == 1 else 'checks fail'}; yes overrides:")
        lines += [f"- {_line(failure)}" for failure in prospect.failing[:FAILING_SHOWN]]
        if count > FAILING_SHOWN:
            lines.append(f"- and {count - FAILING_SHOWN} more")
    return "\n".join([*lines, f"Note: {_line(note, None)}"])


def _what(prospect: Prospect) -> str:
    return f"Spec {prospect.version} of {prospect.slug}"


def _line(text: str, limit: int | None = LINE_SHOWN) -> str:
    """Keep a text from looking like a line of ours, and from hiding or turning around any."""
    visible = "".join(char for char in text if unicodedata.category(char) != "Cf")
    line = " ".join(visible.split())
    return line if limit is None or len(line) <= limit else f"{line[: limit - 1]}…"
