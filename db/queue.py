"""The schema of procrastinate, which delivers jobs to workers, in a schema of its own."""

from sqlalchemy import Connection, text

QUEUE_SCHEMA = "dramatis_queue"


def install(connection: Connection) -> None:
    """Make the queue's tables and functions, which its release ships as one script.

    The script names its own things without a schema, and is not fit for parameters: `%` in it is
    just that.
    """
    from procrastinate.schema import SchemaManager

    before = connection.scalar(text("SELECT current_setting('search_path')"))
    connection.execute(text(f"CREATE SCHEMA {QUEUE_SCHEMA}"))
    connection.execute(text(f"SET LOCAL search_path TO {QUEUE_SCHEMA}"))
    driver = connection.connection.cursor()
    driver.execute(SchemaManager.get_schema())
    driver.close()
    connection.execute(text("SELECT set_config('search_path', :before, true)"), {"before": before})


def grant(connection: Connection, role: str) -> None:
    """Let a role use the queue, if it is there."""
    if not connection.scalar(text(f"SELECT to_regnamespace('{QUEUE_SCHEMA}') IS NOT NULL")):
        return
    connection.execute(text(f"GRANT USAGE ON SCHEMA {QUEUE_SCHEMA} TO {role}"))
    for rights, things in (
        ("SELECT, INSERT, UPDATE, DELETE", "TABLES"),
        ("USAGE", "SEQUENCES"),
    ):
        connection.execute(
            text(f"GRANT {rights} ON ALL {things} IN SCHEMA {QUEUE_SCHEMA} TO {role}")
        )
