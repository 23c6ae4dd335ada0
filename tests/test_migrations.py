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
