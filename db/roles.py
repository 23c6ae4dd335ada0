"""The database roles: one login owns and migrates, `dramatis_app` serves and owns nothing."""

from psycopg import errors
from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError

from db import queue
from db.base import SCHEMA
from db.tables import metadata

APP = "dramatis_app"


def establish(connection: Connection) -> bool:
    """Make the application's role if that is allowed, and grant it exactly what it may do.

    Runs after every migration, so that a role which a database administrator made later gets
    its rights from the next `dramatis migrate`.

    Returns:
        False when there is no such role and the login may not create one: then the owner serves
        under forced row-level security, and `dramatis doctor` says so.
    """
    if not _exists(connection) and not _create(connection):
        return False
    # A migrating login that is to serve as this role needs to be allowed to become it.
    _try(connection, f"GRANT {APP} TO CURRENT_USER WITH INHERIT FALSE, SET TRUE")
    connection.execute(text(f"GRANT USAGE ON SCHEMA {SCHEMA} TO {APP}"))
    connection.execute(text(f"REVOKE ALL ON ALL TABLES IN SCHEMA {SCHEMA} FROM {APP}"))
    connection.execute(text(f"GRANT SELECT ON {SCHEMA}.alembic_version TO {APP}"))
    present = set(
        connection.scalars(
            text("SELECT tablename FROM pg_tables WHERE schemaname = :schema"), {"schema": SCHEMA}
        )
    )
    for table in metadata.sorted_tables:
        if table.name in present:
            rights = table.info.get("app_may", "SELECT, INSERT, UPDATE, DELETE")
            connection.execute(text(f"GRANT {rights} ON {table.fullname} TO {APP}"))
    queue.grant(connection, APP)
    return True


def _exists(connection: Connection) -> bool:
    query = text("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = :role)")
    return bool(connection.scalar(query, {"role": APP}))


def _create(connection: Connection) -> bool:
    return _try(connection, f"CREATE ROLE {APP} LOGIN NOSUPERUSER NOBYPASSRLS NOINHERIT")


def _try(connection: Connection, statement: str) -> bool:
    """Run what the login may lack the right for. A role made meanwhile counts as made."""
    try:
        with connection.begin_nested():
            connection.execute(text(statement))
    except ProgrammingError as error:
        if isinstance(error.orig, errors.DuplicateObject):
            return True
        if isinstance(error.orig, errors.InsufficientPrivilege):
            return False
        raise
    return True
