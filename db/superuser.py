"""The embedded server as its superuser sees it: its state, and whole databases.

Forced row-level security hides every row from the owner; only the superuser sees all of them.
"""

from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from db.embedded import EmbeddedPostgres

DATABASE = "dramatis"

Superuser = psycopg.Connection[tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class Status:
    """The state of the server; what only a running one knows is `None` otherwise."""

    running: bool
    pinned: bool
    folder: Path
    version: str | None
    revision: str | None
    size_bytes: int


def status(server: EmbeddedPostgres) -> Status:
    """Look at the server without starting it."""
    version, revision = None, None
    if exists(server):
        version = (server.data / "PG_VERSION").read_text().strip()
    if server.is_running():
        try:
            with superuser(server, DATABASE) as database:
                version = database.info.parameter_status("server_version") or version
                revision = schema_revision(database)
        except psycopg.OperationalError:
            # It is being stopped, or has not been set up.
            revision = None
    return Status(
        running=server.is_running(),
        pinned=server.pinned,
        folder=server.base,
        version=version,
        revision=revision,
        size_bytes=_size_of(server.data),
    )


@contextmanager
def superuser(server: EmbeddedPostgres, database: str) -> Generator[Superuser]:
    # Everything that a PG* variable of the environment could otherwise set.
    with psycopg.connect(
        host=str(server.socket_dir),
        port=5432,
        user="postgres",
        dbname=database,
        options="",
        autocommit=True,
    ) as connection:
        yield connection


def schema_revision(database: Superuser) -> str | None:
    """Read the revision of the schema; `None` where there is no schema of ours."""
    try:
        row = database.execute("SELECT version_num FROM dramatis.alembic_version").fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return None
    return str(row[0]) if row else None


def make_database(admin: Superuser, name: str) -> None:
    """Make a database with the rights that the first start gives to ours."""
    database = sql.Identifier(name)
    for statement in (
        "CREATE DATABASE {} OWNER dramatis_owner",
        "REVOKE ALL ON DATABASE {} FROM PUBLIC",
        "GRANT CONNECT ON DATABASE {} TO dramatis_app",
    ):
        admin.execute(sql.SQL(statement).format(database))


def drop_database(admin: Superuser, name: str) -> None:
    admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def exists(server: EmbeddedPostgres) -> bool:
    return (server.data / "PG_VERSION").exists()


def _size_of(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        # A running server removes files all the time.
        with suppress(FileNotFoundError):
            size += path.lstat().st_size
    return size
