"""What `doctor` looks at in the database. One that is down is a finding, not an end."""

from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession

from db.embedded import EmbeddedUnavailable
from db.migrate import revisions
from server import access
from server.app import (
    OLDEST_POSTGRES,
    Attached,
    DatabaseState,
    answering,
    attach,
    embedded_server,
    inspect,
)
from server.cli.checks import Check
from server.cli.sessions import opened
from server.cli.standards_views import waiting
from server.errors import DramatisError
from server.jobs.starting import Station
from server.jobs.statistics import job_statistics
from server.personas.service import broken_personas
from server.settings import Settings
from server.standards import queries
from server.standards.catalogue import statistics
from server.work import DatabaseUnavailable

NAMED = 10
CHECKS = (
    "database",
    "PostgreSQL",
    "revision",
    "login",
    "row security",
    "tenant",
    "persona files",
    "standards",
    "worker",
)


def programs(settings: Settings) -> list[Check]:
    """Look for the embedded server's programs, unless another database is used."""
    if settings.database_url is not None:
        return []
    try:
        embedded_server(settings).program("postgres")
    except EmbeddedUnavailable as error:
        return [Check("embedded Postgres", "failed", str(error), error.hint)]
    return [Check("embedded Postgres", "ok", "installed")]


async def database(settings: Settings) -> list[Check]:
    """Make the checks in their order; when one cannot be made, those after it are skipped."""
    done: list[Check] = []
    try:
        async with attach(settings) as attached:
            with answering():
                state = await inspect(attached)
            kind = "embedded" if attached.embedded else "external"
            done.append(Check("database", "ok", f"{kind}, answers"))
            done += [version(state), revision(state, attached), login(state)]
            if state.revision == revisions()[-1]:
                done.append(await _isolation(attached))
                done.append(await _tenant(attached, settings))
                if not state.bypasses_isolation:
                    done.append(await _persona_files(settings))
                    done.append(await _standards(settings))
                    done.append(await _worker(settings))
    except DatabaseUnavailable as error:
        remedy = "See that the server of DRAMATIS_DATABASE_URL runs and lets you in."
        done.append(Check(CHECKS[len(done)], "failed", str(error.args[0]), remedy))
    except DramatisError as error:
        done.append(Check(CHECKS[len(done)], "failed", str(error.args[0]), error.hint))
    except ProgrammingError:
        remedy = "Run `dramatis migrate` as the owner: it grants what is missing."
        done.append(Check(CHECKS[len(done)], "failed", "the login may not look at it", remedy))
    return done + [Check(name, "skipped", "not checked") for name in CHECKS[len(done) :]]


def version(state: DatabaseState) -> Check:
    if state.server_major < OLDEST_POSTGRES:
        remedy = f"Upgrade the server to PostgreSQL {OLDEST_POSTGRES} or newer."
        return Check("PostgreSQL", "failed", f"{state.server_major} is too old", remedy)
    if state.encoding != "UTF8":
        remedy = "Make a database with ENCODING 'UTF8' TEMPLATE template0, and use that."
        return Check("PostgreSQL", "failed", f"its encoding is {state.encoding}", remedy)
    return Check("PostgreSQL", "ok", str(state.server_major))


def revision(state: DatabaseState, attached: Attached) -> Check:
    known = revisions()
    found = state.revision or "none"
    if state.revision == known[-1]:
        return Check("revision", "ok", found)
    if state.revision is not None and state.revision not in known:
        remedy = "Update dramatis-mcp on this machine."
        return Check("revision", "failed", f"{found} is newer than {known[-1]}", remedy)
    behind = f"{found}; this version needs {known[-1]}"
    if attached.embedded:
        return Check("revision", "warning", behind, "Nothing: the next use migrates it.")
    return Check("revision", "failed", behind, "Run `dramatis migrate`.")


def login(state: DatabaseState) -> Check:
    remedy = "Run `dramatis migrate`, and add `options=-c role=dramatis_app` to the URL."
    if state.bypasses_isolation:
        what = "a superuser, or bypasses row security: it may not serve"
        return Check("login", "failed", what, remedy)
    if state.owns_tables:
        what = "owns the tables; only forced row security keeps tenants apart"
        return Check("login", "warning", what, remedy)
    return Check("login", "ok", "owns nothing, bypasses nothing")


async def _isolation(attached: Attached) -> Check:
    async with attached.database.engine.connect() as connection:
        tables = (await connection.execute(_TABLES)).all()
    open_ones = [table.name for table in tables if not table.isolated]
    if not open_ones:
        return Check("row security", "ok", f"forced on {len(tables)} tables")
    return Check(
        "row security",
        "failed",
        f"off, not forced or without a policy: {', '.join(open_ones)}",
        "Somebody changed the tables. Restore a backup, or do again what the migrations do.",
    )


async def _tenant(attached: Attached, settings: Settings) -> Check:
    async with AsyncSession(attached.database.engine) as session:
        await access.tenant_id(session, settings.tenant)
    return Check("tenant", "ok", settings.tenant)


async def _persona_files(settings: Settings) -> Check:
    async with opened(settings) as (app, caller), app.work(caller) as work:
        slugs = await broken_personas(work)
    if not slugs:
        return Check("persona files", "ok", "complete")
    more = f" and {len(slugs) - NAMED} more" if len(slugs) > NAMED else ""
    return Check(
        "persona files",
        "failed",
        f"missing some: {', '.join(slugs[:NAMED])}{more}",
        "Run `dramatis persona repair --all`.",
    )


async def _standards(settings: Settings) -> Check:
    async with opened(settings) as (app, caller):
        if app.place is None:
            return Check("standards", "ok", "no project here")
        async with app.work(caller) as work:
            counts = await statistics(work)
            not_written = [one.id for one in await queries.not_written(work)]
    found = (
        f"{app.place.standards}: {counts.standards:,} indexed; proposals:"
        f" {waiting(counts.waiting_proposals)}; vectors: {counts.vectors}"
    )
    if not_written:
        repairs = ", ".join(f"`dramatis standards repair {one}`" for one in not_written[:NAMED])
        return Check("standards", "warning", f"{found}; approved ones are not written", repairs)
    if counts.vectors.startswith("unavailable"):
        remedy = "See DRAMATIS_EMBEDDING_MODEL and DRAMATIS_EMBEDDING_URL; words are found anyway."
        return Check("standards", "warning", found, remedy)
    return Check("standards", "ok", found)


async def _worker(settings: Settings) -> Check:
    async with opened(settings) as (app, caller), app.work(caller) as work:
        counts = (await job_statistics(work)).jobs_by_status
    waiting_jobs = counts.get("pending", 0)
    here = Station.of(settings).is_staffed()
    found = (
        f"{'here' if here else 'none on this machine'}; jobs: {waiting_jobs:,} waiting,"
        f" {counts.get('running', 0):,} running"
    )
    if here or not waiting_jobs:
        return Check("worker", "ok", found)
    remedy = "Nothing, if one runs on another machine; else start one: `dramatis worker`."
    return Check("worker", "warning", found, remedy)


_TABLES = text(
    "SELECT c.relname AS name, c.relrowsecurity AND c.relforcerowsecurity"
    "  AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid) AS isolated"
    " FROM pg_class c"
    " WHERE c.relnamespace = to_regnamespace('dramatis') AND c.relkind IN ('r', 'p')"
    "  AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid"
    "   AND a.attname = 'tenant_id' AND NOT a.attisdropped)"
    " ORDER BY c.relname"
)
