"""`dramatis db`: run, save and restore the embedded database."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from server.cli import views
from server.cli.embedded import embedded
from server.cli.options import Given, Group
from server.cli.output import progress, show
from server.late import Late

if TYPE_CHECKING:
    import db.backup as backups
    import db.superuser as superusers
    from db.embedded import EmbeddedPostgres
else:
    backups = Late("db.backup")
    superusers = Late("db.superuser")


@click.group(cls=Group)
def db() -> None:
    """Run, save and restore the embedded database."""


@db.command()
@click.pass_obj
def start(given: Given) -> None:
    """Start the database, and keep it up until `dramatis db stop`."""
    with embedded(given) as server:
        server.acquire()
        server.pin()
        server.release()
    show(given, {"running": True, "pinned": True}, "The embedded database is up, and stays up.")


@db.command()
@click.option("--force", is_flag=True, help="Stop it under those who use it, too.")
@click.pass_obj
def stop(given: Given, force: bool) -> None:
    """Stop the database, unless somebody uses it."""
    with embedded(given) as server:
        stopped = server.stop() if force else _stop_unused(server)
        server.unpin()
    text = "Stopped the embedded database." if stopped else "The embedded database was not running."
    show(given, {"stopped": stopped}, text)


@db.command()
@click.pass_obj
def status(given: Given) -> None:
    """Show whether the database runs, and what it is. Starts nothing."""
    with embedded(given) as server:
        state = superusers.status(server)
    show(given, state, views.status(state))


@db.command()
@click.argument("file", type=click.Path(path_type=Path), default=None)
@click.pass_obj
def backup(given: Given, file: Path | None) -> None:
    """Save the whole database, all tenants, to FILE.

    The personas' files are not in it: copy the folder `personas` of the data root along.
    """
    named = file or Path(f"dramatis-{datetime.now(UTC):%Y%m%d-%H%M%S}.dump")
    with embedded(given) as server:
        progress("Saving the database ...")
        made = backups.backup(server, named.absolute())
    show(given, made, views.backed_up(made))


@db.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.pass_obj
def restore(given: Given, file: Path) -> None:
    """Put the database of a backup in the place of the one there is.

    The one there is stays in the server under a dated name. Personas' files are left alone.
    """
    with embedded(given) as server, file.open("rb") as source:
        restored = backups.restore(server, source, progress)
    show(given, restored, views.restored(restored))


@db.command()
@click.pass_obj
def upgrade(given: Given) -> None:
    """Move the database that an older Postgres made to this one. The old folder stays."""
    with embedded(given) as server:
        old = backups.older_cluster(server)
        if old is None:
            show(given, {"upgraded": False}, "There is nothing to upgrade.")
            return
        done = backups.upgrade_cluster(old, server, progress)
    show(given, {"upgraded": True, **asdict(done)}, views.upgraded(done))


def _stop_unused(server: "EmbeddedPostgres") -> bool:
    if not server.is_running():
        return False
    with server.exclusive():
        return server.stop()
