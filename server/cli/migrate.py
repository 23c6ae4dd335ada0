"""`dramatis migrate`."""

from typing import TYPE_CHECKING

import anyio
import click

from server.cli.options import Command, Given
from server.cli.output import show
from server.cli.sessions import log_to_stderr
from server.late import Late

if TYPE_CHECKING:
    from server import app
else:
    app = Late("server.app")


@click.command(cls=Command)
@click.pass_obj
def migrate(given: Given) -> None:
    """Bring the database to the revision that this version needs.

    The embedded database is migrated by itself; one of your own only by this command, as the
    login of DRAMATIS_MIGRATION_URL where that is set.
    """
    settings = given.settings()
    log_to_stderr(settings)
    before, after = anyio.run(app.migrate_as_asked, settings)
    done = f"Migrated the database from revision {before or 'none'} to {after}."
    if before == after:
        done = f"The database is at revision {after} already."
    show(given, {"before": before, "after": after}, done)
