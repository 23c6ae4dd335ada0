"""`dramatis doctor`: what is wrong here, and what to do about it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import anyio
import click

from server.cli import checks
from server.cli.options import Command, Given
from server.cli.output import show, table
from server.late import Late

if TYPE_CHECKING:
    from server.cli import database_checks
else:
    database_checks = Late("server.cli.database_checks")


@click.command(cls=Command)
@click.pass_context
def doctor(ctx: click.Context) -> None:
    """Check everything that can be wrong, and say the remedy for what is."""
    given = ctx.ensure_object(Given)
    settings = given.settings()
    found = [
        *checks.machine(settings),
        *database_checks.programs(settings),
        *anyio.run(database_checks.database, settings),
    ]
    failed = sum(check.state == "failed" for check in found)
    show(given, {"checks": found, "failed": failed}, _said(found))
    if failed:
        ctx.exit(1)


def _said(found: Sequence[checks.Check]) -> str:
    rows = [(check.state, check.name, check.detail) for check in found]
    remedies = [f"{check.name}: {check.remedy}" for check in found if check.remedy]
    listed = table(("STATE", "CHECK", "FINDING"), rows)
    return "\n".join([listed, *(["", *remedies] if remedies else [])])
