"""What a database has to be before Dramatis serves from it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from db.migrate import upgrade
from server.access import TenantNotFound
from server.app import (
    DatabaseMisconfigured,
    EmbeddedDatabaseFailed,
    LoginBypassesIsolation,
    MigrationRefused,
    SchemaOutdated,
    SchemaTooNew,
    attach,
    migrate,
    open_app,
)
from server.jobs.starting import Station
from server.settings import Settings
from server.work import DatabaseUnavailable, JobLimits, JobSettings, ModelChoice
from tests.conftest import Databases, but, external
from tests.test_migrations import plain

pytestmark = pytest.mark.anyio

SECRET = "s3cret"


@pytest.fixture
def database(databases: Databases) -> Iterator[str]:
    name = databases.migrated()
    yield name
    databases.drop(name)


@pytest.fixture
def empty(databases: Databases) -> Iterator[str]:
    name = databases.empty()
    yield name
    databases.drop(name)


async def open_and_close(settings: Settings) -> None:
    async with open_app(settings):
        pass


async def test_an_unmigrated_external_database_is_refused_with_the_command(
    databases: Databases, empty: str, tmp_path: Path
):
    with pytest.raises(SchemaOutdated, match=r"at revision none.*`dramatis migrate`"):
        await open_and_close(external(databases.url(empty, "dramatis_owner"), tmp_path))


async def test_an_older_schema_is_refused_with_the_command(
    databases: Databases, empty: str, tmp_path: Path
):
    upgrade(databases.url(empty, "dramatis_owner"), "0002")

    with pytest.raises(SchemaOutdated, match="at revision 0002"):
        await open_and_close(external(databases.url(empty), tmp_path))


async def test_a_newer_schema_is_refused_with_the_reason(
    databases: Databases, database: str, tmp_path: Path
):
    with psycopg.connect(plain(databases.url(database, "dramatis_owner"))) as connection:
        connection.execute("UPDATE dramatis.alembic_version SET version_num = '9999'")

    with pytest.raises(SchemaTooNew, match="revision 9999, newer than this Dramatis"):
        await open_and_close(external(databases.url(database), tmp_path))


async def test_a_superuser_may_not_serve(databases: Databases, database: str, tmp_path: Path):
    with pytest.raises(LoginBypassesIsolation, match="role=dramatis_app"):
        await open_and_close(external(databases.url(database, "postgres"), tmp_path))


async def test_one_login_migrates_as_itself_and_serves_as_the_applications_role(
    databases: Databases, empty: str, admin: psycopg.Connection, tmp_path: Path
):
    url = f"{databases.url(empty, 'postgres')}&options=-c%20role%3Ddramatis_app"
    settings = external(url, tmp_path)

    async with attach(settings) as attached:
        await migrate(attached)

    await open_and_close(settings)


async def test_an_owner_serves_where_no_other_role_can_be_made(
    databases: Databases, database: str, tmp_path: Path
):
    await open_and_close(external(databases.url(database, "dramatis_owner"), tmp_path))


async def test_a_login_that_may_not_migrate_is_told_which_setting_to_use(
    databases: Databases, empty: str, tmp_path: Path
):
    with pytest.raises(MigrationRefused, match="DRAMATIS_MIGRATION_URL"):
        async with attach(external(databases.url(empty), tmp_path)) as attached:
            await migrate(attached)


async def test_the_login_of_the_migration_url_migrates(
    databases: Databases, empty: str, tmp_path: Path
):
    settings = Settings(
        database_url=SecretStr(databases.url(empty)),
        migration_url=SecretStr(databases.url(empty, "dramatis_owner")),
        data_root=tmp_path,
    )

    async with attach(settings) as attached:
        await migrate(attached)

    await open_and_close(settings)


async def test_an_unknown_tenant_is_refused(databases: Databases, database: str, tmp_path: Path):
    settings = external(databases.url(database), tmp_path).model_copy(update={"tenant": "acme"})

    with pytest.raises(TenantNotFound, match="`dramatis tenant add`"):
        await open_and_close(settings)


async def test_what_is_set_about_jobs_reaches_the_app(
    databases: Databases, database: str, tmp_path: Path
):
    settings = external(databases.url(database), tmp_path).model_copy(
        update={
            "model": "played",
            "model_url": "http://localhost/v1",
            "core_personas": tmp_path,
            "start_worker": False,
            "queue_length": 1,
            "jobs_per_minute": 2,
            "running_jobs": 3,
            "persona_jobs": 4,
            "job_s": 5,
            "run_tokens": 6000,
            "persona_day_tokens": 7000,
            "run_usd": 8,
            "persona_day_usd": 9,
        }
    )

    async with open_app(settings) as app:
        assert app.jobs == JobSettings(
            model=ModelChoice("played", "http://localhost/v1", command=False),
            limits=JobLimits(
                queue_length=1,
                per_minute=2,
                running=3,
                running_per_persona=4,
                run_s=5,
                run_tokens=6000,
                day_tokens=7000,
                run_usd=8,
                day_usd=9,
            ),
            personas=tmp_path,
            start_worker=None,
        )


async def test_without_a_word_about_jobs_the_limits_are_the_usual_ones(
    databases: Databases, database: str, tmp_path: Path
):
    settings = Settings(database_url=SecretStr(databases.url(database)), data_root=tmp_path)

    async with open_app(settings) as app:
        assert but(app.jobs, start_worker=None) == JobSettings(queue=Station.of(settings).queue)
        assert callable(app.jobs.start_worker)


@pytest.mark.parametrize(
    ("settings", "choice"),
    [
        ({"runner_command": ("claude", "-p")}, ModelChoice("", None, command=True)),
        (
            {"runner_command": ("claude", "-p"), "model": "openai:gpt-5"},
            ModelChoice("openai:gpt-5", None, command=False),
        ),
    ],
)
async def test_a_command_runs_personas_where_there_is_no_model(
    databases: Databases,
    database: str,
    tmp_path: Path,
    settings: dict[str, Any],
    choice: ModelChoice,
):
    chosen = external(databases.url(database), tmp_path).model_copy(update=settings)

    async with open_app(chosen) as app:
        assert app.jobs.model == choice


@pytest.mark.parametrize(
    ("url", "error"),
    [
        (f"mysql://me:{SECRET}@localhost/db", DatabaseMisconfigured),
        (f"not a url {SECRET}", DatabaseMisconfigured),
        (f"postgresql://me:{SECRET}@localhost:1/db", DatabaseUnavailable),
        (f"postgresql://me:{SECRET}@no.such.host.invalid/db", DatabaseUnavailable),
    ],
)
async def test_a_database_out_of_reach_is_an_error_without_the_url(
    url: str, error: type[Exception], tmp_path: Path
):
    with pytest.raises(error) as refused:
        await open_and_close(external(url, tmp_path))

    assert SECRET not in str(refused.value)
    assert "localhost" not in str(refused.value)
    assert "invalid" not in str(refused.value)


async def test_a_server_that_declines_the_login_is_told_apart_from_one_that_is_away(
    databases: Databases, tmp_path: Path
):
    with pytest.raises(DatabaseMisconfigured, match="refuses the connection"):
        await open_and_close(external(databases.url("nowhere"), tmp_path))


async def test_a_server_without_the_applications_role_is_served_by_the_owner(
    databases: Databases, empty: str, admin: psycopg.Connection
):
    """The login of a managed database often may not create roles."""
    admin.execute("CREATE ROLE tenant_of_a_host LOGIN")
    try:
        admin.execute(
            sql.SQL("ALTER DATABASE {} OWNER TO tenant_of_a_host").format(sql.Identifier(empty))
        )

        upgrade(databases.url(empty, "tenant_of_a_host"))

        with psycopg.connect(plain(databases.url(empty, "tenant_of_a_host"))) as connection:
            rows = connection.execute("SELECT count(*) FROM dramatis.roles").fetchone()
        assert rows == (0,)
    finally:
        admin.execute(
            sql.SQL("ALTER DATABASE {} OWNER TO dramatis_owner").format(sql.Identifier(empty))
        )
        with psycopg.connect(plain(databases.url(empty, "postgres"))) as connection:
            connection.execute("DROP OWNED BY tenant_of_a_host CASCADE")
        admin.execute("DROP ROLE tenant_of_a_host")


async def test_a_data_root_that_is_a_file_is_refused_in_a_sentence(tmp_path: Path):
    root = tmp_path / "file"
    root.write_text("x")

    with pytest.raises(EmbeddedDatabaseFailed) as refused:
        await open_and_close(Settings(data_root=root))

    assert str(tmp_path) not in str(refused.value)
