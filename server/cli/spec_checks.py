"""`dramatis spec check`: what a persona's versions have to pass before they are published."""

from typing import IO, TYPE_CHECKING

import click

from server.cli import spec_views
from server.cli.editing import text_of
from server.cli.failures import EXIT_CODES
from server.cli.options import PERSONA, Command, Given
from server.cli.output import show, show_exactly
from server.cli.sessions import in_work
from server.errors import Conflict
from server.late import Late

if TYPE_CHECKING:
    from server.specs import gate
else:
    gate = Late("server.specs.gate")

NO_CHECKS = "[]"


@click.command(cls=Command)
@PERSONA
@click.argument("version", default=None, help="The highest if left out.")
@click.option("--set", "source", type=click.File("rb"), help="Replace the checks; - is input.")
@click.option("--clear", is_flag=True, help="Remove the checks.")
@click.option("--show", "only_show", is_flag=True, help="Print the checks.")
@click.pass_context
def check(
    ctx: click.Context,
    persona: str,
    version: str | None,
    source: IO[bytes] | None,
    clear: bool,
    only_show: bool,
) -> None:
    """Run, set or show a persona's checks.

    They run against a version, and exit code 4 says that it fails. They come as YAML or JSON:
    what the prompt must contain, its sections, its size.
    """
    acts = sum((source is not None, clear, only_show))
    if acts > 1 or (acts and version is not None):
        raise click.UsageError("VERSION, --set, --clear and --show exclude each other.")
    given = ctx.ensure_object(Given)
    if only_show:
        _show(given, persona)
    elif source is not None or clear:
        text = NO_CHECKS if source is None else text_of(source)
        checks = in_work(given, lambda work: gate.set_checks(work, persona, text))
        show(given, {"checks": checks}, spec_views.checks_set(checks))
    else:
        report = in_work(given, lambda work: gate.check_spec(work, persona, version))
        show(given, report, spec_views.report(report))
        if not report.passed:
            ctx.exit(EXIT_CODES[Conflict])


def _show(given: Given, persona: str) -> None:
    """Print the checks as --set reads them; that there are none goes where errors go."""
    checks = in_work(given, lambda work: gate.get_checks(work, persona))
    if not checks and not given.as_json:
        remedy = f"`dramatis spec check {persona} --set FILE` gives some."
        click.echo(f"There are no checks. {remedy}", err=True)
        return
    show_exactly(given, {"checks": checks}, spec_views.checks_as_yaml(checks))
