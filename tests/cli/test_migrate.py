import psycopg
from inline_snapshot import snapshot

from db.migrate import revisions
from tests.cli.conftest import Cli
from tests.conftest import Databases


def as_owner(databases: Databases, name: str) -> dict[str, str]:
    return {"DRAMATIS_DATABASE_URL": databases.url(name, "dramatis_owner")}


def test_an_empty_database_is_migrated_once(cli: Cli, databases: Databases):
    name = databases.empty()
    env = as_owner(databases, name)

    first = cli.said("migrate", env=env)
    second = cli.said("migrate", env=env)
    third = cli.answer("migrate", env=env)

    head = revisions()[-1]
    assert first == f"Migrated the database from revision none to {head}.\n"
    assert second == f"The database is at revision {head} already.\n"
    assert third == {"before": head, "after": head}
    databases.drop(name)


def test_the_login_that_serves_need_not_exist_before_the_first_migration(
    cli: Cli, databases: Databases
):
    name = databases.empty()
    url = databases.url(name, "dramatis_owner")
    both = {"DRAMATIS_DATABASE_URL": f"{url}&options=-c%20role=not_made_yet"}

    assert cli.run("migrate", env=both).exit_code == 0
    databases.drop(name)


def test_a_login_of_its_own_migrates_for_one_that_may_not(cli: Cli, databases: Databases):
    name = databases.empty()
    serving = {"DRAMATIS_DATABASE_URL": databases.url(name)}
    owner = {"DRAMATIS_MIGRATION_URL": databases.url(name, "dramatis_owner")}

    assert cli.refusal("migrate", env=serving) == snapshot(
        (5, "migration_refused", "The login may not create or change the schema.")
    )
    assert cli.said("persona", "list", env=_migrated(cli, serving | owner)) != ""
    databases.drop(name)


def _migrated(cli: Cli, env: dict[str, str]) -> dict[str, str]:
    cli.said("migrate", env=env)
    return env


def test_a_database_of_a_newer_dramatis_is_left_alone(
    cli: Cli, databases: Databases, admin: psycopg.Connection
):
    name = databases.migrated()
    with psycopg.connect(host=admin.info.host, user="postgres", dbname=name) as newer:
        newer.execute("UPDATE dramatis.alembic_version SET version_num = '9999'")

    assert cli.refusal("migrate", env=as_owner(databases, name))[:2] == (6, "schema_too_new")
    databases.drop(name)


def test_urls_that_are_none_are_told_apart_and_not_repeated(cli: Cli):
    serving = cli.refusal("migrate", env={"DRAMATIS_DATABASE_URL": "mysql://secret@x/y"})
    migrating = cli.refusal("migrate", env={"DRAMATIS_MIGRATION_URL": "secret"})

    assert (serving, migrating) == snapshot(
        (
            (6, "database_misconfigured", "DRAMATIS_DATABASE_URL is no PostgreSQL URL."),
            (6, "database_misconfigured", "DRAMATIS_MIGRATION_URL is no PostgreSQL URL."),
        )
    )


def test_a_database_that_is_away_is_exit_code_6(offline: Cli):
    assert offline.refusal("migrate")[:2] == (6, "database_unavailable")
