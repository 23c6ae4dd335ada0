"""`dramatis spec publish` and `rollback`: which version runs."""

import sys
from collections.abc import Awaitable, Callable
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import click

from server.cli import spec_views
from server.cli.options import NO_COLOR, PERSONA, Command, Given
from server.cli.output import is_terminal, show
from server.cli.sessions import in_work
from server.late import Late

if TYPE_CHECKING:
    from server.specs import publishing
    from server.specs.shapes import Prospect, Published
    from server.work import Work
else:
    publishing = Late("server.specs.publishing")

F = TypeVar("F", bound=Callable[..., object])


def _decided(command: F) -> F:
    for option in (
        NO_COLOR,
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option("--override-checks", is_flag=True, help="Publish although checks fail."),
        click.option("--note", help="Why; kept with author and time."),
    ):
        command = option(command)
    return command


@click.command(cls=Command)
@PERSONA
@click.argument("version", default=None, help="The highest if left out.")
@_decided
@click.pass_obj
def publish(
    given: Given,
    persona: str,
    version: str | None,
    note: str | None,
    override_checks: bool,
    yes: bool,
) -> None:
    """Make a version the one that runs.

    The one before becomes archived. On a terminal you see what it replaces and are asked.
    Elsewhere --note is enough.
    """
    foresee = partial(publishing.foresee_publishing, reference=persona, version=version)
    decision = _Decision(note, override_checks=override_checks, yes=yes)
    _make_active(given, foresee, publishing.publish_spec, decision)


@click.command(cls=Command)
@PERSONA
@click.argument("version", default=None, help="The one that was active before if left out.")
@_decided
@click.pass_obj
def rollback(
    given: Given,
    persona: str,
    version: str | None,
    note: str | None,
    override_checks: bool,
    yes: bool,
) -> None:
    """Publish the version from before again."""
    foresee = partial(publishing.foresee_rollback, reference=persona, version=version)
    decision = _Decision(note, override_checks=override_checks, yes=yes)
    _make_active(given, foresee, publishing.rollback_spec, decision)


@dataclass(frozen=True, slots=True)
class _Decision:
    """What was decided on the command line already."""

    note: str | None
    _: KW_ONLY
    override_checks: bool
    yes: bool


class _Act(Protocol):
    """`publish_spec` or `rollback_spec`."""

    def __call__(
        self,
        work: "Work",
        reference: str,
        version: str,
        *,
        note: str,
        override_checks: bool,
        agreed: "Prospect",
    ) -> "Awaitable[Published]": ...


class _Foresee(Protocol):
    """What foresees that, for a persona and a version."""

    def __call__(self, work: "Work", *, override_checks: bool) -> "Awaitable[Prospect]": ...


def _make_active(given: Given, foresee: _Foresee, act: _Act, decision: _Decision) -> None:
    """Show what would be done to whoever is there, and do just that."""
    if decision.note is None and not is_terminal(sys.stdin):
        raise click.UsageError("Missing option '--note'.")
    asking = not decision.yes and is_terminal(sys.stdin)
    override = decision.override_checks or asking
    prospect = in_work(given, lambda work: foresee(work, override_checks=override))
    note = _asked(prospect, decision.note, asking=asking)
    published = in_work(
        given,
        lambda work: act(
            work,
            prospect.slug,
            prospect.version,
            note=note,
            override_checks=override,
            agreed=prospect,
        ),
    )
    show(given, published, spec_views.published(published))


def _asked(prospect: "Prospect", note: str | None, *, asking: bool) -> str:
    """Ask whoever is there whether to publish, and why.

    Returns:
        The note.

    Raises:
        click.exceptions.Exit: the answer was no.
    """
    if prospect.changes_nothing:
        # Nothing will be recorded, so there is nothing to ask for.
        return note or ""
    if asking:
        click.echo(spec_views.preview(prospect), err=True)
        question = "Publish it all the same?" if prospect.failing else "Publish it?"
        if not click.confirm(question, err=True):
            click.echo("Nothing was published.", err=True)
            raise click.exceptions.Exit(1)
    if note is None:
        note = click.prompt("Why? It is kept with your name", err=True, type=str)
    return note
