"""`dramatis standards propose` and `revise`: what a person thinks should be a standard."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from server.cli import standards_proposal_views
from server.cli.editing import edited, text_of
from server.cli.options import Given, ProjectCommand
from server.cli.output import is_terminal, show
from server.cli.sessions import in_work
from server.errors import Invalid, parse
from server.late import Late
from server.standards.proposals import Evidence

if TYPE_CHECKING:
    from server.standards import catalogue, folder, queries, service
    from server.standards.proposals import ProposalDetail, Proposed
    from server.work import Work
else:
    catalogue = Late("server.standards.catalogue")
    folder = Late("server.standards.folder")
    queries = Late("server.standards.queries")
    service = Late("server.standards.service")

F = TypeVar("F", bound=Callable[..., object])

NO_FILE = "Give a FILE, or - for the input."


@dataclass(frozen=True, slots=True)
class _Grounds:
    """What speaks for a text, as far as it was given."""

    reason: str | None
    evidence: Sequence[str]
    confidence: float | None
    tags: Sequence[str]

    def given(self) -> dict[str, Any]:
        """Return arguments of the room, without those that were left out."""
        values = {
            "reason": self.reason,
            "evidence": [_evidence(text) for text in self.evidence] or None,
            "confidence": self.confidence,
            "tags": [*self.tags] or None,
        }
        return {name: value for name, value in values.items() if value is not None}


def _grounded(command: F) -> F:
    for option in (
        click.option("--tag", "tags", multiple=True, help="May be repeated."),
        click.option("--confidence", type=float, metavar="0..1", help="How sure you are."),
        click.option(
            "--evidence",
            multiple=True,
            metavar="FILE[:LINES[:NOTE]]",
            help="Where it was seen; may be repeated.",
        ),
        click.option("--reason", help="Why the team should always do this."),
    ):
        command = option(command)
    return command


@click.command(cls=ProjectCommand)
@click.argument("domain")
@click.argument("topic")
@click.argument("file", type=click.File("rb"), default=None)
@_grounded
@click.option("--persona", help="Who proposes it, if not you.")
@click.option("--change", is_flag=True, help="FILE takes the place of the text that is there.")
@click.pass_obj
def propose(
    given: Given,
    domain: str,
    topic: str,
    file: IO[bytes] | None,
    reason: str | None,
    evidence: tuple[str, ...],
    confidence: float | None,
    tags: tuple[str, ...],
    persona: str | None,
    change: bool,
) -> None:
    """Ask whether a text may become a standard.

    FILE is Markdown without front matter; - is input. Without FILE your editor opens, on the text
    that is there or on an outline. Nothing is written or found before a person approves it.
    """
    grounds = _Grounds(reason, evidence, confidence, tags).given()

    def act(content: str, base_sha256: str | None) -> "Proposed":
        return in_work(
            given,
            lambda work: service.propose_standard(
                work,
                domain=domain,
                topic=topic,
                content=content,
                base_sha256=base_sha256,
                persona=persona,
                **grounds,
            ),
        )

    if file is not None:
        _require_reason(grounds)
        base = None
        if change:
            read = in_work(given, lambda work: catalogue.read_standard(work, domain, topic))
            base = read.sha256
        _show(given, act(text_of(file), base))
        return
    if not is_terminal(sys.stdin):
        raise click.UsageError(NO_FILE)
    begun = in_work(given, lambda work: catalogue.open_standard(work, domain, topic))
    _require_reason(grounds)
    _show(
        given,
        edited(topic, ".md", begun.text, lambda after: act(after, begun.base_sha256), Invalid),
    )


@click.command(cls=ProjectCommand)
@click.argument("proposal", type=int)
@click.argument("file", type=click.File("rb"), default=None)
@_grounded
@click.option("--rebase", is_flag=True, help="It is against the file as it is now.")
@click.pass_obj
def revise(
    given: Given,
    proposal: int,
    file: IO[bytes] | None,
    reason: str | None,
    evidence: tuple[str, ...],
    confidence: float | None,
    tags: tuple[str, ...],
    rebase: bool,
) -> None:
    """Store the next revision of a proposal.

    FILE is the whole new text; - is input. Without FILE your editor opens on the newest revision.
    What is left out stays as it was.
    """
    changes = _Grounds(reason, evidence, confidence, tags).given()
    detail = in_work(given, lambda work: _opened(work, proposal, rebase=rebase))
    if rebase:
        changes["base_sha256"] = detail.current_sha256

    def act(content: str | None) -> "Proposed":
        return in_work(
            given,
            lambda work: service.revise_proposal(work, proposal, content=content, **changes),
        )

    revised = None
    if file is not None:
        revised = act(text_of(file))
    elif is_terminal(sys.stdin):
        revised = edited(f"proposal-{proposal}", ".md", f"{detail.content}\n", act, Invalid)
    elif not changes:
        raise click.UsageError(NO_FILE)
    if revised is None and changes:
        revised = act(None)
    _show(given, revised)


async def _opened(work: "Work", proposal: int, *, rebase: bool) -> "ProposalDetail":
    """Refuse what would be refused anyway before a person has written anything."""
    service.refuse_decided(await queries.the_proposal(work, proposal))
    detail = await queries.get_proposal(work, proposal)
    if detail.stale is not None and not rebase:
        raise folder.StandardChanged(
            detail.stale,
            hint="See what it is now with `dramatis standards show`, work that into the text, and"
            " add --rebase.",
        )
    return detail


def _require_reason(grounds: dict[str, Any]) -> None:
    """Ask whoever is there for the reason, which a person decides by."""
    if "reason" in grounds:
        return
    if not is_terminal(sys.stdin):
        raise click.UsageError("Missing option '--reason'.")
    grounds["reason"] = click.prompt("Why should the team always do this?", err=True, type=str)


def _evidence(text: str) -> Evidence:
    file, _, rest = text.partition(":")
    lines, _, note = rest.partition(":")
    return parse(Evidence, file=file, lines=lines or None, note=note or None)


def _show(given: Given, proposed: "Proposed | None") -> None:
    if proposed is None:
        show(given, {"changed": False}, "Nothing was changed, and nothing proposed.")
    else:
        show(given, proposed, standards_proposal_views.proposed(proposed))
