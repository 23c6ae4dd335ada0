"""`dramatis spec publish` and `rollback`: which version runs."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

from server.cli import spec_views
from server.cli.options import NO_COLOR, PERSONA, Command, Given
from server.cli.output import is_terminal, show
from server.cli.sessions import in_work
from server.cli.spec_views import Preview
from server.errors import Conflict
from server.late import Late

if TYPE_CHECKING:
    from server.specs import gate, queries, service
    from server.specs.shapes import SpecSummary
    from server.work import Work
else:
    gate = Late("server.specs.gate")
    queries = Late("server.specs.queries")
    service = Late("server.specs.service")

F = TypeVar("F", bound=Callable[..., object])

OPERATOR = "the operator"
VERSIONS_READ = 100
# Publishing what is active already records nothing, so there is nothing to ask for.
UNRECORDED = "It is active already."


class NothingToPublish(Conflict):
    code = "nothing_to_publish"


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

    The one before becomes archived. On a terminal you see what it replaces and are asked. Elsewhere --note is enough.
    """
    _note_can_be_had(note)
    preview = in_work(given, lambda work: _to_publish(work, persona, version))
    why, override = _asked(preview, note, override_checks=override_checks, yes=yes)
    published = in_work(
        given,
        lambda work: service.publish_spec(
            work,
            preview.slug,
            preview.version,
            note=why,
            confirmed=OPERATOR,
            override_checks=override,
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
    preview = in_work(given, lambda work: _to_go_back_to(work, persona, version))
    why, override = _asked(preview, note, override_checks=override_checks, yes=yes)
    published = in_work(
        given,
        lambda work: service.rollback_spec(
            work,
            preview.slug,
            preview.version,
            note=why,
            confirmed=OPERATOR,
            override_checks=override,
        ),
    )
    show(given, published, spec_views.published(published))


def _note_can_be_had(note: str | None) -> None:
    if note is None and not is_terminal(sys.stdin):
        raise click.UsageError("Missing option '--note'.")


def _asked(
    preview: Preview, note: str | None, *, override_checks: bool, yes: bool
) -> tuple[str, bool]:
    """Ask whoever is there whether to publish, and why.

    Returns:
        The note, and whether to override checks.

    Raises:
        click.exceptions.Exit: the answer was no.
    """
    if preview.changes_nothing:
        return note or UNRECORDED, override_checks
    if is_terminal(sys.stdin) and not yes:
        click.echo(spec_views.preview(preview), err=True)
        fails = bool(preview.failures) and not override_checks
        if not click.confirm("Publish it all the same?" if fails else "Publish it?", err=True):
            click.echo("Nothing was published.", err=True)
            raise click.exceptions.Exit(1)
        override_checks = override_checks or fails
    if note is None:
        note = click.prompt("Why? It is kept with your name", err=True, type=str)
    return note, override_checks


async def _to_publish(work: "Work", persona: str, version: str | None) -> Preview:
    if version is None:
        listing = await queries.list_specs(work, persona, limit=1)
        if not listing.versions:
            # Says that there is none, and how to begin.
            await queries.get_spec(work, persona)
        highest = listing.versions[0]
        if highest.status == "archived":
            raise NothingToPublish(
                f"The highest version, {highest.version}, was active before and is no draft.",
                hint="Name the version to publish, or make a new one with `dramatis spec edit`.",
            )
        version = highest.version
    return await _preview(work, persona, version)


async def _to_go_back_to(work: "Work", persona: str, version: str | None) -> Preview:
    active, versions = await _standing(work, persona)
    if version is None:
        publication = active.last_published if active else None
        version = publication.replaced if publication else None
    status = {one.version: one.status for one in versions}.get(version or "")
    if version is None or status == "draft":
        # Refuses, with the reason, before anybody is asked anything.
        await service.rollback_spec(work, persona, version, note="")
    return await _preview(work, persona, str(version))


async def _preview(work: "Work", persona: str, version: str) -> Preview:
    report = await gate.check_spec(work, persona, version)
    active, _ = await _standing(work, report.slug)
    try:
        diff = await service.diff_specs(work, report.slug, None, report.version)
    except (queries.NoActiveSpec, queries.SpecCorrupted):
        # There is none, or it was changed by hand, which is a good reason to publish another.
        diff = None
    failures = [f"{one.name}: {'; '.join(one.failures)}" for one in report.outcomes if one.failures]
    return Preview(report.slug, report.version, active, diff, failures)


async def _standing(work: "Work", persona: str) -> "tuple[SpecSummary | None, list[SpecSummary]]":
    """Return the active version, and the highest ones. Their documents are not read."""
    versions = (await queries.list_specs(work, persona, limit=VERSIONS_READ)).versions
    return next((one for one in versions if one.status == "active"), None), versions
