"""`dramatis usage`."""

from typing import TYPE_CHECKING

import click

from server.cli import job_views
from server.cli.options import Command, Given
from server.cli.output import show
from server.cli.sessions import in_work
from server.late import Late

if TYPE_CHECKING:
    from server.jobs import statistics
else:
    statistics = Late("server.jobs.statistics")


@click.command(cls=Command)
@click.option(
    "--days",
    type=click.IntRange(1, 3650),
    default=7,
    show_default=True,
    help="Today (UTC) and the days before it.",
)
@click.pass_obj
def usage(given: Given, days: int) -> None:
    """Show what invoked personas spent, day by day."""
    spent = in_work(given, lambda work: statistics.persona_usage(work, days=days))
    show(given, {"usage": spent}, job_views.spent(spent))
