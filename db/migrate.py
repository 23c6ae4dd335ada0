"""Run the shipped migrations from code, with no alembic.ini to find."""

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import URL

from db.session import psycopg_url
from db.shipped import shipped

if TYPE_CHECKING:
    from alembic.config import Config


def revisions() -> tuple[str, ...]:
    """List the revisions this code knows, oldest first.

    Read from the file names: comparing them with the database is part of every start, and
    importing Alembic there would cost more than all the rest of it.
    """
    return tuple(sorted(path.name[:4] for path in _scripts().glob("versions/[0-9]*.py")))


def config(url: str) -> "Config":
    """Make the configuration for Alembic's commands.

    Args:
        url: of the login that owns the schema, or is to own it.
    """
    from alembic.config import Config

    made = Config()
    made.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    made.attributes["url"] = url
    return made


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the schema to `revision`. Waits for another process that is doing the same."""
    from alembic import command

    command.upgrade(config(url), revision)


def migration_url(url: str) -> URL:
    """Drop a `role` from the URL's start-up options: the login itself migrates.

    One URL with `options=-c role=dramatis_app` can then serve and migrate.
    """
    parsed = psycopg_url(url)
    options = parsed.query.get("options")
    if not isinstance(options, str):
        return parsed
    kept = [
        setting
        for setting in options.replace("-c ", "-c").split()
        if not setting.startswith("-crole=")
    ]
    return parsed.update_query_dict({"options": " ".join(kept)})


def _scripts() -> Path:
    return shipped("db", "migrations")
