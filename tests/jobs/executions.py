"""Runs a job as a worker does, with a runner of the test's own, and tells what was spent."""

from datetime import UTC, datetime

import anyio

from server.jobs.delivering import withdraw
from server.jobs.execution import Execution
from server.jobs.running import Outcome, Reporting, RunJob, Runner
from server.jobs.shapes import PersonaUsage, Step
from server.jobs.statistics import persona_usage
from tests.jobs.workers import DEADLINE_S, Jobs, execution_of

LOOKED = Step(
    attempt=1,
    kind="tool",
    name="search_standards",
    began_at=datetime(2026, 1, 2, tzinfo=UTC),
    duration_ms=3.5,
    details={"queries": ["retries"]},
)


async def run(jobs: Jobs, job: str, runner: Runner, execution: Execution | None = None) -> None:
    """Run a job as the worker that its delivery comes to, when it is time."""
    await jobs.execute("UPDATE dramatis.persona_jobs SET run_after = NULL")
    (delivery,) = await jobs.stored(job, "delivery_id")
    await jobs.using(lambda work: withdraw(work, [delivery]))
    execution = execution or execution_of(jobs.app, runner)
    with anyio.fail_after(DEADLINE_S):
        await execution.run(jobs.app.tenant_id, delivery)


async def usage(jobs: Jobs) -> list[PersonaUsage]:
    return await jobs.using(persona_usage)


def spent_today(**values: object) -> PersonaUsage:
    return PersonaUsage.model_validate(
        {
            "persona": "architect",
            "day": f"{datetime.now(UTC):%Y-%m-%d}",
            "unpriced": False,
            "reserved_tokens": 0,
            "reserved_usd": 0,
            "tokens_limit": None,
            "usd_limit": None,
            **values,
        }
    )


async def answers(job: RunJob, reporting: Reporting) -> Outcome:
    await reporting.progress("searching", 20, "looking")
    await reporting.step(LOOKED)
    await reporting.text("Looks ")
    return Outcome("Looks good.", 100, 50, 0.25)
