"""Run by Alembic, either from `db.migrate` or from its own command line in a checkout."""

import os
from typing import Any

from alembic import context
from sqlalchemy import Connection, create_engine, pool, text

from db import roles
from db.base import SCHEMA
from db.migrate import migration_url
from db.tables import metadata


def ours(name: str | None, kind: str, _: Any) -> bool:
    """Leave everybody else's schemas in the database alone."""
    return name == SCHEMA if kind == "schema" else True


def run(connection: Connection) -> None:
    # Two servers may start on one old database: the second waits here and finds nothing to do.
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('dramatis.migrations'))"))
    # Rather fail and be run again than hold everybody up behind somebody's long query.
    connection.execute(text("SET LOCAL lock_timeout = '10s'"))
    # Not IF NOT EXISTS: that wants the right to create one even where it stands already.
    if not connection.scalar(text(f"SELECT to_regnamespace('{SCHEMA}') IS NOT NULL")):
        connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table_schema=SCHEMA,
        include_schemas=True,
        include_name=ours,
        compare_server_default=True,
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.run_migrations()
    if connection.scalar(text(f"SELECT to_regclass('{SCHEMA}.tenants') IS NOT NULL")):
        roles.establish(connection)


url = (
    context.config.attributes.get("url")
    or os.environ.get("DRAMATIS_MIGRATION_URL")
    or os.environ["DRAMATIS_DATABASE_URL"]
)
engine = create_engine(migration_url(url), poolclass=pool.NullPool)
with engine.begin() as connection:
    run(connection)
engine.dispose()
