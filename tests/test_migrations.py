"""The migrations make the schema that the tables describe, and can be walked both ways."""

from collections.abc import Iterator

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
