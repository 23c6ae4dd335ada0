"""An app with a model, and jobs in every state, brought there by what brings them there in use."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import text

from db.embedded import Connection
from server.jobs.delivering import withdraw
from server.jobs.ending import finish_job
from server.jobs.leases import claim
from server.jobs.queries import check_job, the_job
from server.jobs.reporting import JobReporting
from server.jobs.service import invoke_persona
from server.jobs.shapes import JobStatus, State, Step
from server.work import App, Caller, JobLimits, JobSettings, ModelChoice
from tests.conftest import Databases, but
from tests.jobs import workers
from tests.standards.conftest import using

MODEL = ModelChoice("test", None, command=False)
TASK = "Review the queue."
BEGAN = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
async def app(app: App) -> App:
    return configured(but(app, place=None))


@pytest.fixture
async def own_app(own_app: App) -> App:
    return configured(but(own_app, place=None))


@pytest.fixture
def owner(own_app: App, postgres: Connection) -> Iterator[psycopg.Connection]:
    """The login that may change tables."""
    with psycopg.connect(
        host=postgres.host,
        user="dramatis_owner",
        dbname=own_app.database.engine.url.database,
        autocommit=True,
    ) as connection:
        yield connection


@pytest.fixture
def jobs(own_app: App) -> workers.Jobs:
    return workers.Jobs(workers.configured(own_app))


@pytest.fixture
def outages(own_app: App, databases: Databases) -> workers.Outages:
    return workers.Outages.of(own_app, databases)


def configured(app: App, **limits: Any) -> App:
    """Give an app a model, and limits that differ from the usual ones."""
    return but(app, jobs=JobSettings(model=MODEL, limits=JobLimits(**limits)))


async def invoked(app: App, caller: Caller, persona: str = "architect", **values: Any) -> UUID:
    """Invoke a persona, and return its job, which waits."""
    whole: dict[str, Any] = {"task": TASK, **values}
    return (await invoke_persona(app, caller, persona, **whole)).job_id


async def begun(
    app: App, caller: Caller, persona: str = "architect", **values: Any
) -> JobReporting:
    """Invoke a persona and begin its run."""
    return await taken(app, caller, await invoked(app, caller, persona, **values))


async def taken(app: App, caller: Caller, job_id: UUID) -> JobReporting:
    """Begin the run of a job that waits, and return what writes down what it tells."""
    async with app.work(caller) as work:
        delivery_id = (await the_job(work, job_id)).delivery_id
        assert delivery_id is not None
        # In a queue of its own, so that no other has its turn before.
        await work.session.execute(_APART, {"id": job_id})
        job = await claim(work, delivery_id, "worker")
        assert job is not None
        # Whoever fetches it has taken it out of the queue.
        await withdraw(work, [delivery_id])
    return JobReporting(app, caller, job_id, job.attempt, job.spent)


_APART = text("UPDATE dramatis.persona_jobs SET queue = id WHERE id = :id")


async def ended(run: JobReporting, status: State, **values: Any) -> bool:
    """End a run as its worker; false when the job is not its any more."""
    async with run.app.work(run.caller) as work:
        return await finish_job(work, run.job_id, run.attempt, status, **values)


async def completed(app: App, caller: Caller, persona: str = "architect", **values: Any) -> UUID:
    run = await begun(app, caller, persona, **values)
    assert await ended(run, "complete", result="Fine.")
    return run.job_id


async def failed(app: App, caller: Caller, persona: str = "architect", **values: Any) -> UUID:
    run = await begun(app, caller, persona, **values)
    assert await ended(run, "failed", error="No.", error_code="run_failed")
    return run.job_id


def tool(name: str, **details: Any) -> Step:
    """Make the record of a call of a tool."""
    return Step(attempt=1, kind="tool", name=name, began_at=BEGAN, duration_ms=1.5, details=details)


async def status_of(app: App, caller: Caller, job_id: UUID | str) -> JobStatus:
    return await using(app, caller, lambda work: check_job(work, str(job_id)))


async def aged(app: App, caller: Caller, job_id: UUID, seconds: float) -> None:
    """Move all that happened to a job into the past."""
    times = ("created_at", "started_at", "finished_at")
    moved = ", ".join(f"{time} = {time} - make_interval(secs => :seconds)" for time in times)
    statement = text(f"UPDATE dramatis.persona_jobs SET {moved} WHERE id = :id")
    async with app.work(caller) as work:
        await work.session.execute(statement, {"id": job_id, "seconds": seconds})


async def lasted(app: App, caller: Caller, job_id: UUID, seconds: float) -> None:
    """Let a run that is over have taken so long."""
    statement = text(
        "UPDATE dramatis.persona_jobs SET"
        " started_at = finished_at - make_interval(secs => :seconds) WHERE id = :id"
    )
    async with app.work(caller) as work:
        await work.session.execute(statement, {"id": job_id, "seconds": seconds})


async def left_behind(app: App, caller: Caller) -> dict[str, int]:
    """Count what an invocation leaves, in each place where it may leave something."""
    places = {
        "jobs": "dramatis.persona_jobs",
        "deliveries": "procrastinate_jobs",
        "acts": "dramatis.audit_log WHERE action LIKE 'job%'",
        "set aside": "dramatis.persona_spending WHERE reserved_tokens > 0",
    }
    async with app.work(caller) as work:
        return {
            place: await work.session.scalar(text(f"SELECT count(*) FROM {rows}")) or 0
            for place, rows in places.items()
        }


NOTHING = {"jobs": 0, "deliveries": 0, "acts": 0, "set aside": 0}
