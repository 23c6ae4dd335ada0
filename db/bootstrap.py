"""Make our roles and our database on a new server, as its superuser.

Imported only until that has been done once: psycopg is what makes a start slow.
"""

from pathlib import Path
from typing import Final, LiteralString

import psycopg

# What to make, unless the query finds it.
_WANTED: Final[tuple[tuple[LiteralString, LiteralString], ...]] = (
    (
        "SELECT FROM pg_roles WHERE rolname = 'dramatis_owner'",
        "CREATE ROLE dramatis_owner LOGIN NOSUPERUSER NOBYPASSRLS",
    ),
    (
        "SELECT FROM pg_roles WHERE rolname = 'dramatis_app'",
        "CREATE ROLE dramatis_app LOGIN NOSUPERUSER NOBYPASSRLS NOINHERIT",
    ),
    (
        "SELECT FROM pg_database WHERE datname = 'dramatis'",
        "CREATE DATABASE dramatis OWNER dramatis_owner",
    ),
)


def bootstrap(socket_dir: Path) -> None:
    """Bring roles and database to what we need; a part that is there is left as it is.

    Raises:
        psycopg.Error: the server refused.
    """
    with _connect(socket_dir, "postgres") as server:
        for query, statement in _WANTED:
            if not server.execute(query).fetchall():
                server.execute(statement)
        # Temporary tables included: serving needs none.
        server.execute("REVOKE ALL ON DATABASE dramatis FROM PUBLIC")
        server.execute("GRANT CONNECT ON DATABASE dramatis TO dramatis_app")
    with _connect(socket_dir, "dramatis") as ours:
        ours.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")


def _connect(socket_dir: Path, database: str) -> psycopg.Connection[tuple[object, ...]]:
    # Everything that a PG* variable of the environment could otherwise set.
    return psycopg.connect(
        host=str(socket_dir),
        port=5432,
        user="postgres",
        dbname=database,
        options="",
        autocommit=True,
    )
