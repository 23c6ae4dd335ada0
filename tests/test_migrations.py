"""The migrations make the schema that the tables describe, and can be walked both ways."""

from collections.abc import Iterator, Sequence
from typing import Any, LiteralString

import psycopg
import pytest
from alembic import command
from alembic.script import ScriptDirectory

from db.migrate import config, migration_url, revisions, upgrade
from tests.conftest import Databases


@pytest.fixture
def empty(databases: Databases) -> Iterator[str]:
    """The URL of a database that somebody else uses already."""
    name = databases.empty()
    with psycopg.connect(plain(databases.url(name, "postgres"))) as connection:
        connection.execute("CREATE SCHEMA shop AUTHORIZATION dramatis_owner")
        connection.execute("CREATE TABLE shop.roles (id int PRIMARY KEY, name text)")
        connection.execute("INSERT INTO shop.roles VALUES (1, 'cashier')")
        connection.execute("ALTER TABLE shop.roles OWNER TO dramatis_owner")
    yield databases.url(name, "dramatis_owner")
    databases.drop(name)


def plain(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://")


def tables(url: str) -> list[str]:
    query = "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname IN (%s, %s)"
    with psycopg.connect(plain(url)) as connection:
        return sorted(row[0] for row in connection.execute(query, ("dramatis", "shop")))


def test_the_first_revision_makes_roles_and_personas_and_takes_them_away_again(empty: str):
    upgrade(empty, "0001")
    made = tables(empty)
    command.downgrade(config(empty), "base")

    assert made == [
        "dramatis.alembic_version",
        "dramatis.personas",
        "dramatis.roles",
        "shop.roles",
    ]
    assert tables(empty) == ["dramatis.alembic_version", "shop.roles"]


def test_migrations_walk_up_down_and_up_beside_other_peoples_tables(empty: str):
    upgrade(empty)
    first = tables(empty)
    command.downgrade(config(empty), "base")
    upgrade(empty)

    assert tables(empty) == first
    with psycopg.connect(plain(empty)) as connection:
        assert connection.execute("SELECT * FROM shop.roles").fetchall() == [(1, "cashier")]


@pytest.mark.parametrize("revision", revisions())
def test_each_revision_can_be_undone_with_rows_in_the_tables(empty: str, revision: str):
    upgrade(empty, revision)
    with psycopg.connect(plain(empty)) as connection:
        connection.execute("SELECT set_config('app.tenant_id', '1', false)")
        connection.execute("INSERT INTO dramatis.roles (name, label) VALUES ('pm', 'PM')")
        connection.execute(
            "INSERT INTO dramatis.personas (slug_stem, name, role_id) VALUES ('pm-con', 'Con', 1)"
        )

    command.downgrade(config(empty), f"{int(revision) - 1:04}" if revision != "0001" else "base")
    upgrade(empty)

    with psycopg.connect(plain(empty)) as connection:
        connection.execute("SELECT set_config('app.tenant_id', '1', false)")
        slugs = connection.execute("SELECT slug FROM dramatis.personas").fetchall()
    assert slugs == ([] if revision == "0001" else [("pm-con-1",)])


SPEC_ROWS = (
    "INSERT INTO dramatis.roles (name, label) VALUES ('pm', 'PM')",
    "INSERT INTO dramatis.personas (slug_stem, name, role_id) VALUES ('pm-con', 'Con', 1)",
    "INSERT INTO dramatis.persona_specs (persona_id, slug, major, minor, patch, document, digest,"
    " author, status) VALUES (1, 'pm-con-1', 1, 0, 0, '{}', '', 'me', 'active')",
    "INSERT INTO dramatis.spec_publications (spec_id, author, confirmed, note)"
    " VALUES (1, 'me', 'operator', 'the first')",
    "INSERT INTO dramatis.persona_checks (persona_id, checks, author) VALUES (1, '', 'me')",
)


def described(url: str, names: list[str]) -> list[tuple[str, ...]]:
    """Say all that tables are made of: columns, constraints, indexes, policies and rights."""
    query = """
        SELECT table_name, column_name, data_type || is_nullable || coalesce(column_default, '')
          FROM information_schema.columns WHERE table_schema = 'dramatis'
        UNION ALL SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
          FROM pg_constraint WHERE connamespace = 'dramatis'::regnamespace
        UNION ALL SELECT tablename, indexname, indexdef FROM pg_indexes
          WHERE schemaname = 'dramatis'
        UNION ALL SELECT tablename, policyname, qual || with_check FROM pg_policies
        UNION ALL SELECT relname, 'rights', relacl::text FROM pg_class
          WHERE relnamespace = 'dramatis'::regnamespace
    """
    with psycopg.connect(plain(url)) as connection:
        found = connection.execute(query).fetchall()
    return sorted(row for row in found if row[0].removeprefix("dramatis.") in names)


def test_specs_can_be_undone_with_rows_and_leave_all_else_as_the_release_before_knows_it(
    empty: str,
):
    upgrade(empty, "0003")
    names = [name.removeprefix("dramatis.") for name in tables(empty)]
    before = described(empty, names)
    upgrade(empty, "0004")
    beside = described(empty, names)
    with psycopg.connect(plain(empty)) as connection:
        connection.execute("SELECT set_config('app.tenant_id', '1', false)")
        for row in SPEC_ROWS:
            connection.execute(row)

    command.downgrade(config(empty), "0003")
    after = described(empty, names)
    left = tables(empty)
    upgrade(empty, "0004")

    assert {row[0].removeprefix("dramatis.") for row in before} >= {"personas", "audit_log"}
    assert beside == before
    assert after == before
    assert left == sorted(["shop.roles", *(f"dramatis.{n}" for n in names if n != "shop.roles")])
    with psycopg.connect(plain(empty)) as connection:
        connection.execute("SELECT set_config('app.tenant_id', '1', false)")
        assert connection.execute("SELECT slug FROM dramatis.personas").fetchall() == [
            ("pm-con-1",)
        ]
        assert connection.execute("SELECT FROM dramatis.persona_specs").fetchall() == []


JOB_ROWS = (
    *SPEC_ROWS[:2],
    "INSERT INTO dramatis.projects (host, root) VALUES ('', '/x')",
    "INSERT INTO dramatis.persona_jobs (id, persona, persona_name, persona_id, project_id, task,"
    " priority, prompt, trace, runner, model, requested_by, queue, spent_on, tokens_limit, seconds_limit) VALUES"
    " (gen_random_uuid(), 'pm-con-1', 'Con', 1, 1, 'x', 'low', '', '{}', 'model', '', 'me', '', now(), 1,"
    " 1)",
    "INSERT INTO dramatis.job_steps (job_id, attempt, number, kind, name, began_at, duration_ms)"
    " SELECT id, 1, 1, 'note', '', now(), 0 FROM dramatis.persona_jobs",
    "INSERT INTO dramatis.persona_spending (persona, day) VALUES ('pm-con-1', '2030-01-01')",
    "INSERT INTO dramatis.job_cleanups DEFAULT VALUES",
)


def test_jobs_can_be_undone_with_rows_and_leave_all_else_as_the_release_before_knows_it(
    empty: str,
):
    upgrade(empty, "0005")
    names = [name.removeprefix("dramatis.") for name in tables(empty)]
    before = described(empty, names)
    upgrade(empty, "0006")
    beside = described(empty, names)
    fill(empty, JOB_ROWS)

    command.downgrade(config(empty), "0005")

    assert beside == before
    assert described(empty, names) == before
    assert [name.removeprefix("dramatis.") for name in tables(empty)] == names


def fill(url: str, rows: Sequence[str]) -> None:
    with psycopg.connect(plain(url)) as connection:
        connection.execute("SELECT set_config('app.tenant_id', '1', false)")
        for row in rows:
            connection.execute(row.encode())


def test_the_release_before_can_delete_a_persona_and_a_project_that_have_jobs(empty: str):
    upgrade(empty, "0006")
    fill(empty, JOB_ROWS)

    fill(empty, ["DELETE FROM dramatis.personas", "DELETE FROM dramatis.projects"])

    with psycopg.connect(plain(empty)) as connection:
        connection.execute("SELECT set_config('app.tenant_id', '1', false)")
        kept = "SELECT tenant_id, persona, persona_id, project_id FROM dramatis.persona_jobs"
        assert connection.execute(kept).fetchall() == [(1, "pm-con-1", None, None)]


def in_queue(url: str, query: LiteralString) -> list[tuple[Any, ...]]:
    """Ask in the schema of the queue, with the search path that its functions need."""
    with psycopg.connect(plain(url), options="-c search_path=dramatis_queue") as connection:
        return connection.execute(query).fetchall()


def test_the_queue_comes_and_goes_with_its_revision(empty: str):
    made = "SELECT count(*) > 0 FROM pg_tables WHERE schemaname = 'dramatis_queue'"
    there: list[object] = []

    for revision in ("0005", "0006"):
        upgrade(empty, revision)
        there += in_queue(empty, made)
    command.downgrade(config(empty), "0005")
    there += in_queue(empty, made)
    upgrade(empty)
    there += in_queue(empty, made)

    assert there == [(False,), (True,), (False,), (True,)]
    with psycopg.connect(plain(empty)) as connection:
        schema = "SELECT FROM pg_namespace WHERE nspname = 'dramatis_queue'"
        assert len(connection.execute(schema).fetchall()) == 1


def test_the_applications_role_uses_the_queue_and_cannot_change_what_it_is(empty: str):
    upgrade(empty)
    app = empty.replace("dramatis_owner", "dramatis_app")

    granted = in_queue(
        app,
        "SELECT DISTINCT string_agg(privilege_type, ', ' ORDER BY privilege_type)"
        " FROM information_schema.role_table_grants"
        " WHERE table_schema = 'dramatis_queue' AND grantee = 'dramatis_app' GROUP BY table_name",
    )
    delivered = in_queue(
        app,
        "SELECT procrastinate_defer_jobs_v1(ARRAY[ROW('jobs', 'run_job', 0, NULL, NULL, '{}', NULL)"
        "::procrastinate_job_to_defer_v1])",
    )

    assert granted == [("DELETE, INSERT, SELECT, UPDATE",)]
    assert delivered == [([1],)]
    for statement in ("CREATE TABLE x ()", "DROP TABLE procrastinate_jobs CASCADE"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            in_queue(app, statement)


def test_the_release_before_can_delete_a_persona_that_has_specs(empty: str):
    upgrade(empty, "0004")
    with psycopg.connect(plain(empty)) as connection:
        connection.execute("SELECT set_config('app.tenant_id', '1', false)")
        for row in SPEC_ROWS:
            connection.execute(row)

        connection.execute("DELETE FROM dramatis.personas")

        kept = "SELECT tenant_id, persona_id, slug, version FROM dramatis.persona_specs"
        assert connection.execute(kept).fetchall() == [(1, None, "pm-con-1", "1.0.0")]
        assert connection.execute("SELECT note FROM dramatis.spec_publications").fetchall() == [
            ("the first",)
        ]
        assert connection.execute("SELECT FROM dramatis.persona_checks").fetchall() == []


def test_rows_of_the_release_before_get_the_default_tenant(empty: str):
    upgrade(empty, "0001")
    with psycopg.connect(plain(empty)) as connection:
        connection.execute("INSERT INTO dramatis.roles (name, label) VALUES ('pm', 'PM')")

    upgrade(empty)

    with psycopg.connect(plain(empty)) as connection:
        connection.execute("SELECT set_config('app.tenant_id', '1', false)")
        rows = connection.execute(
            "SELECT r.name, t.name FROM dramatis.roles r JOIN dramatis.tenants t ON t.id = tenant_id"
        ).fetchall()
    assert rows == [("pm", "default")]


def test_tables_and_migrations_agree(empty: str):
    upgrade(empty)

    command.check(config(empty))


def test_the_revisions_of_the_file_names_are_those_of_the_scripts():
    scripts = ScriptDirectory.from_config(config(""))

    assert [script.revision for script in scripts.walk_revisions()][::-1] == list(revisions())


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ("-c role=dramatis_app", ""),
        ("-crole=dramatis_app -c statement_timeout=5", "-cstatement_timeout=5"),
    ],
)
def test_the_login_itself_migrates_and_not_the_role_it_serves_as(options: str, kept: str):
    url = migration_url(f"postgresql://me@host/db?options={options.replace('=', '%3D')}")

    assert url.query["options"] == kept
