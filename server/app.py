"""Composition root: settings in, a running `App` out."""

import re
from collections.abc import AsyncGenerator, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from platform import node

import anyio.to_thread
import psycopg.errors
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession

import db.migrate
from db.embedded import EmbeddedPostgres, EmbeddedUnavailable
from db.session import BadDatabaseUrl, Database, connect
from server import access
from server.errors import Forbidden, Unavailable
from server.jobs.starting import Station, start_worker
from server.rendering import environment
from server.settings import Settings, forget_libpq_environment
from server.standards.projects import find_place
from server.work import (
    App,
    DatabaseUnavailable,
    Embedding,
    JobLimits,
    JobSettings,
    ModelChoice,
)

OLDEST_POSTGRES = 16
ATTACH_TIMEOUT_S = 8
URL_HINT = "Write it as postgresql://user:password@host:5432/database."


class DatabaseMisconfigured(Unavailable):
    code = "database_misconfigured"


class EmbeddedDatabaseFailed(Unavailable):
    code = "embedded_database_failed"


class SchemaOutdated(Unavailable):
    code = "schema_outdated"


class SchemaTooNew(Unavailable):
    code = "schema_too_new"


class MigrationRefused(Forbidden):
    code = "migration_refused"


class LoginBypassesIsolation(Forbidden):
    code = "login_bypasses_isolation"


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """What the connected login is and finds."""

    server_major: int
    login: str
    bypasses_isolation: bool
    owns_tables: bool
    revision: str | None
    encoding: str


@dataclass(frozen=True, slots=True)
class Attached:
    """A database at hand, and the URL of the login that may migrate it."""

    database: Database
    owner_url: str
    embedded: bool


@asynccontextmanager
async def open_app(settings: Settings) -> AsyncGenerator[App]:
    """Attach to the database and build the app; the embedded server is started when needed.

    Raises:
        Unavailable: the database cannot be had, or its schema does not fit this code.
        LoginBypassesIsolation: row-level security would not bind this login.
        TenantNotFound: the tenant of the settings does not exist.
    """
    async with attach(settings) as attached:
        await _make_fit(attached)
        with answering():
            async with AsyncSession(attached.database.engine) as session:
                tenant_id = await access.tenant_id(session, settings.tenant)
        yield App(
            database=attached.database,
            templates=environment(settings.templates),
            data_root=settings.data_root,
            prompt_tokens=settings.prompt_tokens,
            skill_template=settings.skill_template,
            tenant_id=tenant_id,
            place=find_place(settings, host="" if attached.embedded else node()),
            embedding=_embedding(settings),
            jobs=jobs_of(settings),
        )


def _embedding(settings: Settings) -> Embedding | None:
    if settings.embedding_model is None:
        return None
    key = settings.embedding_key.get_secret_value() if settings.embedding_key else None
    return Embedding(settings.embedding_model, settings.embedding_url, key)


def jobs_of(settings: Settings) -> JobSettings:
    """Say how personas are invoked with these settings."""
    limits = JobLimits(
        queue_length=settings.queue_length,
        per_minute=settings.jobs_per_minute,
        running=settings.running_jobs,
        running_per_persona=settings.persona_jobs,
        run_s=settings.job_s,
        run_tokens=settings.run_tokens,
        day_tokens=settings.persona_day_tokens,
        run_usd=settings.run_usd,
        day_usd=settings.persona_day_usd,
    )
    model = None
    if settings.model is not None:
        model = ModelChoice(settings.model, settings.model_url, command=False)
    elif settings.runner_command is not None:
        model = ModelChoice("", None, command=True)
    jobs = JobSettings(model, limits, settings.core_personas)
    if not settings.start_worker:
        return jobs
    station = Station.of(settings)
    starting = partial(start_worker, station, settings)
    return replace(jobs, queue=station.queue, start_worker=starting)


@asynccontextmanager
async def attach(settings: Settings) -> AsyncGenerator[Attached]:
    """Hold the database: the external one, or the embedded server for as long as this is open.

    Raises:
        EmbeddedDatabaseFailed: the embedded server does not start here.
        DatabaseMisconfigured: a URL cannot be read.
    """
    if settings.database_url is not None:
        url = settings.database_url.get_secret_value()
        owner_url = settings.migration_url.get_secret_value() if settings.migration_url else url
        embedded = None
    else:
        embedded = embedded_server(settings)
        try:
            at = await anyio.to_thread.run_sync(embedded.acquire)
        except EmbeddedUnavailable as error:
            raise EmbeddedDatabaseFailed(str(error), hint=error.hint) from error
        url, owner_url = at.url(), at.url("dramatis_owner")
    database = _connect(url, settings.pool_size, embedded)
    try:
        yield Attached(database, owner_url, embedded is not None)
    finally:
        with anyio.CancelScope(shield=True):
            await database.engine.dispose()
        if embedded is not None:
            embedded.release()


def embedded_server(settings: Settings) -> EmbeddedPostgres:
    forget_libpq_environment()
    return EmbeddedPostgres(settings.data_root, linger=settings.linger)


async def inspect(attached: Attached) -> DatabaseState:
    """Read what decides whether this login may serve."""
    async with attached.database.engine.connect() as connection:
        row = (await connection.execute(_STATE)).one()
        revision = None
        if row.migrated:
            revision = await connection.scalar(
                text("SELECT version_num FROM dramatis.alembic_version")
            )
    return DatabaseState(row.major, row.login, row.bypasses, row.owns, revision, row.encoding)


async def migrate(attached: Attached) -> None:
    """Bring the schema to this code's revision, as the login that owns it.

    Raises:
        SchemaTooNew: a newer Dramatis has migrated it already.
        MigrationRefused: the login may not do it.
        DatabaseMisconfigured: its URL cannot be read.
    """
    with answering():
        _refuse_newer((await inspect(attached)).revision)
    upgrade = partial(db.migrate.upgrade, attached.owner_url)
    try:
        await anyio.to_thread.run_sync(upgrade)
    except BadDatabaseUrl:
        raise DatabaseMisconfigured(
            "DRAMATIS_MIGRATION_URL is no PostgreSQL URL.",
            hint="Write it as postgresql://user:password@host:5432/database.",
        ) from None
    except ProgrammingError as error:
        if not isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
            raise
        raise MigrationRefused(
            "The login may not create or change the schema.",
            hint="Set DRAMATIS_MIGRATION_URL to a login that may, and run `dramatis migrate`.",
        ) from error


async def migrate_as_asked(settings: Settings) -> tuple[str | None, str]:
    """Migrate the database of the settings, an external one too.

    Returns:
        The revision before, which is `None` on a database without Dramatis, and the one after.

    Raises:
        Unavailable: the database cannot be had, or a newer Dramatis has migrated it already.
        MigrationRefused: the login may not do it.
    """
    # The serving login may not exist yet: the first migration makes it.
    async with attach(settings) as serving, _attach_owner(settings, serving.owner_url) as owner:
        with answering():
            before = (await inspect(owner)).revision
        await migrate(owner)
    return before, db.migrate.revisions()[-1]


def _refuse_newer(revision: str | None) -> None:
    known = db.migrate.revisions()
    if revision is not None and revision not in known:
        raise SchemaTooNew(
            f"The database is at revision {revision}, newer than this Dramatis ({known[-1]}).",
            hint="Update dramatis-mcp on this machine.",
        )


@contextmanager
def answering() -> Generator[None]:
    """Translate a database that does not answer; what it said may name hosts and logins."""
    try:
        with anyio.fail_after(ATTACH_TIMEOUT_S):
            yield
    except (OperationalError, InterfaceError, ProgrammingError, TimeoutError) as error:
        # A server that answers and declines says FATAL; what else it says names logins and hosts.
        if re.search(r"FATAL|invalid (\w+ value|connection option)", str(error)):
            raise DatabaseMisconfigured(
                "The database server refuses the connection.",
                hint="Check login, password and database name in DRAMATIS_DATABASE_URL; a role in"
                " its options has to exist (`dramatis migrate` makes dramatis_app).",
            ) from error
        raise DatabaseUnavailable(
            "The database does not answer.", hint="Is it running? `dramatis doctor` looks."
        ) from error
    except EmbeddedUnavailable as error:
        raise EmbeddedDatabaseFailed(str(error), hint=error.hint) from error


def _attach_owner(settings: Settings, owner_url: str) -> AbstractAsyncContextManager[Attached]:
    try:
        url = db.migrate.migration_url(owner_url)
    except BadDatabaseUrl:
        raise DatabaseMisconfigured(
            "DRAMATIS_MIGRATION_URL is no PostgreSQL URL.", hint=URL_HINT
        ) from None
    login = SecretStr(url.render_as_string(hide_password=False))
    return attach(settings.model_copy(update={"database_url": login}))


async def _make_fit(attached: Attached) -> None:
    """Refuse a database that does not fit; migrate the embedded one, which is ours alone."""
    with answering():
        state = await inspect(attached)
    if state.server_major < OLDEST_POSTGRES:
        raise DatabaseMisconfigured(
            f"This is PostgreSQL {state.server_major}; Dramatis needs {OLDEST_POSTGRES} or newer.",
            hint="Point DRAMATIS_DATABASE_URL at a newer server.",
        )
    if state.encoding != "UTF8":
        raise DatabaseMisconfigured(
            f"The encoding of the database is {state.encoding}; Dramatis needs UTF8.",
            hint="Make one with ENCODING 'UTF8' TEMPLATE template0.",
        )
    if state.bypasses_isolation:
        raise LoginBypassesIsolation(
            "The database login is a superuser or bypasses row-level security, so it cannot serve.",
            hint="Add `options=-c role=dramatis_app` to DRAMATIS_DATABASE_URL after `dramatis"
            " migrate`, or use a login of its own.",
        )
    known = db.migrate.revisions()
    if state.revision == known[-1]:
        return
    _refuse_newer(state.revision)
    if not attached.embedded:
        raise SchemaOutdated(
            f"The database is at revision {state.revision or 'none'}; this Dramatis needs"
            f" {known[-1]}.",
            hint="Run `dramatis migrate`: an external database is never migrated unasked.",
        )
    await migrate(attached)


def _connect(url: str, pool_size: int, embedded: EmbeddedPostgres | None) -> Database:
    before_connect = embedded.ensure_running if embedded is not None else None
    try:
        return connect(url, pool_size=pool_size, before_connect=before_connect)
    except BadDatabaseUrl:
        raise DatabaseMisconfigured(
            "DRAMATIS_DATABASE_URL is no PostgreSQL URL.",
            hint=URL_HINT,
        ) from None


_STATE = text(
    "SELECT current_setting('server_version_num')::int / 10000 AS major, current_user AS login,"
    " current_setting('server_encoding') AS encoding,"
    " r.rolsuper OR r.rolbypassrls AS bypasses,"
    " EXISTS (SELECT FROM pg_tables"
    "  WHERE schemaname = 'dramatis' AND tableowner = current_user) AS owns,"
    " to_regclass('dramatis.alembic_version') IS NOT NULL AS migrated"
    " FROM pg_roles r WHERE r.rolname = current_user"
)
