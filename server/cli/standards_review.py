"""`dramatis standards review`, `approve` and `reject`: a person decides, on what they see."""

import sys
import termios
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NoReturn, Protocol

import click

from server.cli import standards_proposal_views as views
from server.cli.editing import edited
from server.cli.failures import exit_code, report
from server.cli.options import NO_COLOR, Given, ProjectCommand
from server.cli.output import show
from server.cli.quoting import columns_of, quoted_diff
from server.cli.sessions import Person, person_at_terminal
from server.errors import DramatisError, Invalid, Unavailable
from server.late import Late

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from server.standards import approving, comparing, queries, service
    from server.standards.proposals import Channel, Decided, ProposalDetail, ProposalSummary
    from server.work import Work
else:
    approving = Late("server.standards.approving")
    comparing = Late("server.standards.comparing")
    queries = Late("server.standards.queries")
    service = Late("server.standards.service")

QUESTION = "[a]pprove [e]dit [c]hanges [r]eject [s]kip [t]ext [d]iff [q]uit [?]"
# Nothing else is an answer: who types "again" does not approve.
WORDS = {
    "approve": "a",
    "edit": "e",
    "changes": "c",
    "reject": "r",
    "skip": "s",
    "text": "t",
    "diff": "d",
    "quit": "q",
}
HELP = """\
  a  approve: the file is written, and agents find it
  e  edit the text, see what you changed, and approve that
  c  ask for changes: the persona revises it, and you see it again
  r  reject it for good
  s  leave it for later
  t  the whole text
  d  what it changes
  q  leave all the others for later
"""
WHAT = "What should change? (Enter alone opens your editor)"
WHY_NOT = "Why not? (Enter alone opens your editor)"


@click.command(cls=ProjectCommand)
@click.argument("proposal", type=int, default=None, help="Only this one.")
@NO_COLOR
@click.pass_obj
def review(given: Given, proposal: int | None) -> None:
    """Decide on the proposals that wait for a person, the oldest first.

    Each is shown with what it changes, and you are asked. Nobody but a person at a terminal can
    answer.
    """
    with person_at_terminal(given) as person:
        walk = _Walk(person, proposal)
        try:
            walk.through()
        except click.Abort:
            # Below the question, behind which the cursor stands.
            _say("")
            raise
        except DramatisError as error:
            # Standard output has the summary, of which there is one in any case.
            report(error, as_json=False)
            raise click.exceptions.Exit(exit_code(error)) from None
        finally:
            walk.sum_up(given)


@click.command(cls=ProjectCommand)
@click.argument("proposal", type=int)
@click.option("--yes", is_flag=True, help="Do not ask.")
@NO_COLOR
@click.pass_obj
def approve(given: Given, proposal: int, yes: bool) -> None:
    """Make a proposal a standard, once you have seen it on a terminal."""
    with person_at_terminal(given) as person:
        detail = _shown(person, proposal)
        if not yes and not _agreed("Approve it?"):
            _leave_undecided()
        decided = _approve(person, detail)
        show(given, decided, views.decided(decided))


@click.command(cls=ProjectCommand)
@click.argument("proposal", type=int)
@click.option("--feedback", metavar="TEXT", help="Why not; kept with your name.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@NO_COLOR
@click.pass_obj
def reject(given: Given, proposal: int, feedback: str | None, yes: bool) -> None:
    """Refuse a proposal for good, once you have seen it on a terminal."""
    with person_at_terminal(given) as person:
        detail = _shown(person, proposal)
        act = partial(_tell, person, detail, approving.reject_proposal)
        if feedback is None:
            decided = _with_feedback(WHY_NOT, detail, act)
        else:
            decided = act(feedback) if yes or _agreed("Reject it for good?") else None
        if decided is None:
            _leave_undecided()
        show(given, decided, views.decided(decided))


class _Verdict(Protocol):
    """`request_changes` or `reject_proposal`."""

    def __call__(
        self, work: "Work", proposal_id: int, *, digest: str, feedback: str, channel: "Channel"
    ) -> "Awaitable[Decided]": ...


class _Walk:
    """Goes through proposals with a person. What came of it is known whenever it ends."""

    def __init__(self, person: Person, proposal: int | None) -> None:
        self._person = person
        self._decisions: list[Decided] = []
        self._not_written: list[ProposalSummary] = []
        if proposal is None:
            self._ids = person.in_work(queries.waiting_ids)
            self._not_written = person.in_work(queries.not_written)
        else:
            self._ids = [person.in_work(lambda work: _known(work, proposal))]
        self._left = [*self._ids]

    def through(self) -> None:
        count = len(self._ids)
        for number, proposal_id in enumerate(self._ids, start=1):
            position = f"{number} of {count}: " if count > 1 else ""
            try:
                if not self._visit(proposal_id, position):
                    return
            except Unavailable:
                raise
            except DramatisError as error:
                # One that cannot be shown must not keep the others from it.
                report(error, as_json=False)

    def sum_up(self, given: Given) -> None:
        not_written = self._not_written
        shape = {
            "decisions": self._decisions,
            "left": self._left,
            "not_written": [one.id for one in not_written],
        }
        show(given, shape, views.reviewed(self._decisions, self._left, not_written))

    def _visit(self, proposal_id: int, position: str) -> bool:
        """Show a proposal, and ask until it is decided or left; tell whether to go on."""
        shown = None
        while True:
            detail = self._person.in_work(lambda work: queries.get_proposal(work, proposal_id))
            if detail.status != "draft":
                self._settle(detail, unseen=shown is None)
                return True
            is_now = detail.digest, detail.current_sha256
            if is_now != shown:
                _say(views.proposal(detail, columns_of(sys.stderr), position))
            shown = is_now
            said = _asked(QUESTION).strip().lower()
            match WORDS.get(said, said):
                case "s":
                    return True
                case "q":
                    return False
                case "t" | "d" as wanted:
                    whole = wanted == "t"
                    _say(views.text(detail, columns_of(sys.stderr), whole=whole) + "\n")
                case "a" | "e" | "c" | "r" as answer:
                    decided = self._answered(answer, detail)
                    if decided is not None:
                        self._decisions.append(decided)
                        self._left.remove(proposal_id)
                        _say(views.decided(decided))
                        return True
                case _:
                    _say(HELP)

    def _settle(self, detail: "ProposalDetail", *, unseen: bool) -> None:
        """Take note of what was decided elsewhere, or whose file the disk has refused."""
        self._left.remove(detail.id)
        if unseen:
            _say(f"Proposal {detail.id} is {detail.status} already.")
        if detail.not_written:
            self._not_written.append(detail)

    def _answered(self, answer: str, detail: "ProposalDetail") -> "Decided | None":
        """Do what the person wants; what keeps it from being done is told, and asked again."""
        try:
            match answer:
                case "a":
                    return _approve(self._person, detail)
                case "e":
                    return _approve_edited(self._person, detail)
                case "c":
                    tell = partial(_tell, self._person, detail, approving.request_changes)
                    return _with_feedback(WHAT, detail, tell)
                case _:
                    tell = partial(_tell, self._person, detail, approving.reject_proposal)
                    return _with_feedback(WHY_NOT, detail, tell)
        except (DramatisError, click.ClickException) as error:
            report(error, as_json=False)
        except click.exceptions.Exit:
            # They would not edit it again; what they wrote is kept.
            pass
        return None


async def _known(work: "Work", proposal: int) -> int:
    """Refuse the number of no proposal before there is anything to sum up."""
    return (await queries.the_proposal(work, proposal)).id


def _shown(person: Person, proposal: int) -> "ProposalDetail":
    """Show a draft; nothing else can be decided on."""

    async def draft(work: "Work") -> "ProposalDetail":
        service.refuse_decided(await queries.the_proposal(work, proposal))
        return await queries.get_proposal(work, proposal)

    detail = person.in_work(draft)
    _say(views.proposal(detail, columns_of(sys.stderr)))
    return detail


def _approve(person: Person, detail: "ProposalDetail", content: str | None = None) -> "Decided":
    return person.in_app(
        lambda app, caller: approving.approve_proposal(
            app, caller, detail.id, digest=detail.digest, channel="terminal", content=content
        )
    )


def _approve_edited(person: Person, detail: "ProposalDetail") -> "Decided | None":
    """Let a person change the text, and approve it once they have seen what they changed."""

    def act(after: str) -> "Decided | None":
        changed = comparing.diff(detail.content, after)
        if not changed:
            return None
        _say("\n".join(["", *quoted_diff(changed, columns_of(sys.stderr)), ""]))
        if not _agreed("Approve it as you edited it?"):
            raise click.exceptions.Exit(1)
        return _approve(person, detail, after)

    return edited(f"proposal-{detail.id}", ".md", f"{detail.content}\n", act, Invalid)


def _tell(person: Person, detail: "ProposalDetail", verdict: _Verdict, feedback: str) -> "Decided":
    return person.in_work(
        lambda work: verdict(
            work, detail.id, digest=detail.digest, feedback=feedback, channel="terminal"
        )
    )


def _with_feedback(
    question: str, detail: "ProposalDetail", act: "Callable[[str], Decided]"
) -> "Decided | None":
    """Ask for a line, or for as many as a person wants to write in their editor."""
    line = _asked(question)
    if line.strip():
        return act(line)
    return edited(f"feedback-{detail.id}", ".md", "", act, Invalid)


def _asked(question: str) -> str:
    """Ask for a line; what was typed before the question was there answers nothing."""
    termios.tcflush(sys.stdin, termios.TCIFLUSH)
    return click.prompt(question, default="", show_default=False, err=True)


def _agreed(question: str) -> bool:
    termios.tcflush(sys.stdin, termios.TCIFLUSH)
    return click.confirm(question, err=True)


def _leave_undecided() -> NoReturn:
    _say("Nothing was decided.")
    raise click.exceptions.Exit(1)


def _say(text: str) -> None:
    click.echo(text, err=True)
