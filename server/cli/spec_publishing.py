"""`dramatis spec publish` and `rollback`: which version runs."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

from server.cli import spec_views
from server.cli.options import NO_COLOR, PERSONA, Command, Given
from server.cli.output import is_terminal, show
from server.cli.sessions import in_work
from server.late import Late

if TYPE_CHECKING:
    from server.specs import publishing
    from server.specs.shapes import Prospect
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
    _note_can_be_had(note)
    asking = not yes and is_terminal(sys.stdin)
    prospect = in_work(
        given,
        lambda work: publishing.foresee_publishing(
            work, persona, version, override_checks=override_checks or asking
        ),
    )
    why = _asked(prospect, note, asking=asking)
    published = in_work(
        given,
        lambda work: publishing.publish_spec(
            work,
            prospect.slug,
            prospect.version,
            note=why,
            override_checks=override_checks or asking,
            agreed=prospect,
        ),
    )
    show(given, published, spec_views.published(published))


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
    _note_can_be_had(note)
    asking = not yes and is_terminal(sys.stdin)
    prospect = in_work(
        given,
        lambda work: publishing.foresee_rollback(
            work, persona, version, override_checks=override_checks or asking
        ),
    )
    why = _asked(prospect, note, asking=asking)
    published = in_work(
        given,
        lambda work: publishing.rollback_spec(
            work,
            prospect.slug,
            prospect.version,
            note=why,
            override_checks=override_checks or asking,
            agreed=prospect,
        ),
    )
    show(given, published, spec_views.published(published))


def _note_can_be_had(note: str | None) -> None:
    if note is None and not is_terminal(sys.stdin):
        raise click.UsageError("Missing option '--note'.")


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
