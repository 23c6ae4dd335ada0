"""`dramatis persona import` and `repair`: many personas at once."""

import sys
from typing import IO, TYPE_CHECKING

import click

from server.cli import views
from server.cli.failures import exit_code
from server.cli.options import Command, Given
from server.cli.output import is_terminal, show
from server.cli.sessions import in_app, in_work
from server.errors import AssetsFailed
from server.late import Late

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

    from server.personas import importing, service
    from server.personas.lines import Line
    from server.personas.shapes import Outcome, Repaired
    from server.work import App, Caller
else:
    importing = Late("server.personas.importing")
    service = Late("server.personas.service")

# One byte more than is allowed, to see that there is more.
LARGEST_READ = 1_000_001


@click.command("import", cls=Command)
@click.argument("file", type=click.File("rb"))
@click.option("--dry-run", is_flag=True, help="Check the file and register nothing.")
@click.pass_context
def import_(ctx: click.Context, file: IO[bytes], dry_run: bool) -> None:
    """Register the personas of a YAML or JSON FILE; - is input.

    The file is a list of name, role and description. A line that is refused leaves the others
    alone, and the command fails in the end.
    """
    given = ctx.ensure_object(Given)
    lines = importing.read_import(file.read(LARGEST_READ))
    if dry_run:
        outcomes = importing.check_import(lines)
    else:
        outcomes = in_app(given, lambda app, caller: _import(app, caller, lines))
    failed = sum(outcome.error is not None for outcome in outcomes)
    shape = {"outcomes": outcomes, "failed": failed}
    show(given, shape, views.outcomes(outcomes))
    if failed:
        ctx.exit(1)


@click.command(cls=Command)
@click.argument("persona", default=None)
@click.option("--all", "every", is_flag=True, help="Every active persona that lacks a file.")
@click.pass_obj
def repair(given: Given, persona: str | None, every: bool) -> None:
    """Write whichever of a persona's files are missing. Overwrites nothing."""
    if persona is not None and not every:
        repaired = in_work(given, lambda work: service.repair_assets(work, persona))
        show(given, repaired, views.repaired(repaired))
        return
    if persona is not None or not every:
        raise click.UsageError("Give either a persona or --all.")
    done, failures = in_app(given, _repair_all)
    failed = [str(failure) for failure in failures]
    show(given, {"repaired": done, "failed": failed}, views.all_repaired(done, failed))
    if failures:
        raise click.exceptions.Exit(exit_code(failures[0]))


async def _import(app: "App", caller: "Caller", lines: "list[Line]") -> "list[Outcome]":
    outcomes: list[Outcome] = []
    try:
        with _bar(len(lines), "Registering") as bar:
            async for outcome in importing.import_personas(app, caller, lines):
                outcomes.append(outcome)
                bar.update(1)
    except BaseException:
        made = sum(outcome.slug is not None for outcome in outcomes)
        click.echo(
            f"Stopped after {len(outcomes)} of {len(lines)} entries: {made} personas are registered"
            " and stay. Take those entries out before you import the file again.",
            err=True,
        )
        raise
    return outcomes


async def _repair_all(app: "App", caller: "Caller") -> "tuple[list[Repaired], list[AssetsFailed]]":
    """Repair one persona after the other; what fails does not keep the others waiting."""
    async with app.work(caller) as work:
        slugs = await service.broken_personas(work)
    done: list[Repaired] = []
    failures: list[AssetsFailed] = []
    with _bar(len(slugs), "Repairing") as bar:
        for slug in slugs:
            try:
                async with app.work(caller) as work:
                    done.append(await service.repair_assets(work, slug))
            except AssetsFailed as error:
                failures.append(error)
            bar.update(1)
    return done, failures


def _bar(length: int, label: str) -> "ProgressBar[int]":
    hidden = not is_terminal(sys.stderr)
    return click.progressbar(length=length, label=label, file=sys.stderr, hidden=hidden)
