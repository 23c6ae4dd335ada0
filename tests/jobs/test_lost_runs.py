"""Runs whose job was cancelled, reset or taken from them are paid for, and change nothing."""

from collections.abc import Awaitable, Callable

import anyio
import pytest
from dirty_equals import IsFloat

from server.jobs.model_choice import ModelConfig
from server.jobs.models import model_runner
from server.jobs.reporting import NotOurs
from server.jobs.running import Outcome, Reporting, RunFailed, RunJob
from server.jobs.service import reset_jobs
from server.work import ModelChoice
from tests.conftest import Databases, but
from tests.jobs.executions import answers, run, spent_today, usage
from tests.jobs.model_server import Says, serving_model
from tests.jobs.workers import Held, Jobs, Outages, eventually, execution_of, given_up, working

pytestmark = pytest.mark.anyio


async def reset(jobs: Jobs, _: str) -> None:
    await jobs.using(lambda work: reset_jobs(work, confirm=True))


async def test_what_is_said_after_a_cancellation_changes_nothing_and_is_paid_for(jobs: Jobs):
    job = await jobs.invoke()

    async def does_not_hear(_: RunJob, reporting: Reporting) -> Outcome:
        await reporting.text("Half")
        await reporting.spent(input_tokens=10, output_tokens=5, usd=0.25)
        await jobs.cancel(job)
        return Outcome("The whole.", 100, 50, 1.5)

    await run(jobs, job, does_not_hear)

    assert await jobs.shown(job) == {
        "status": "cancelled",
        "job_id": job,
        "persona": "architect",
        "partial_result": "Half",
        "elapsed_seconds": IsFloat(ge=0),
    }
    assert await usage(jobs) == [spent_today(runs=1, input_tokens=100, output_tokens=50, usd=1.5)]


async def test_a_run_that_fails_after_a_cancellation_changes_nothing_and_is_paid_for(
    jobs: Jobs, databases: Databases
):
    job = await jobs.invoke()

    async def fails(_: RunJob, reporting: Reporting) -> Outcome:
        async with Outages.of(jobs.app, databases).away():
            await reporting.spent(input_tokens=100, output_tokens=50, usd=1.5)
        await jobs.cancel(job)
        raise RunFailed("Too late.")

    await run(jobs, job, fails)

    assert await jobs.stored(job, "status", "error") == ("cancelled", None)
    assert await usage(jobs) == [spent_today(runs=1, input_tokens=100, output_tokens=50, usd=1.5)]


async def test_what_a_lost_run_spent_is_written_when_the_database_is_there_again(
    jobs: Jobs, databases: Databases, caplog: pytest.LogCaptureFixture
):
    job = await jobs.invoke()
    gone = anyio.Event()

    async def tried() -> bool:
        return "the end of a run is not written yet" in caplog.text

    async def outage() -> None:
        async with Outages.of(jobs.app, databases).away():
            gone.set()
            await eventually(tried)

    async def lost(_: RunJob, reporting: Reporting) -> Outcome:
        await jobs.cancel(job)
        tasks.start_soon(outage)
        await gone.wait()
        await reporting.spent(input_tokens=100, output_tokens=50, usd=1.5)
        raise NotOurs

    async with anyio.create_task_group() as tasks:
        await run(jobs, job, lost)

    assert await usage(jobs) == [spent_today(runs=1, input_tokens=100, output_tokens=50, usd=1.5)]


async def test_what_a_lost_run_spent_without_a_known_price_is_said_to_be_so(jobs: Jobs):
    job = await jobs.invoke()

    async def does_not_hear(_: RunJob, reporting: Reporting) -> Outcome:
        await jobs.cancel(job)
        return Outcome("The whole.", 100, 50, None)

    await run(jobs, job, does_not_hear)

    assert await jobs.stored(job, "input_tokens", "output_tokens", "usd") == (100, 50, None)
    assert await usage(jobs) == [
        spent_today(runs=1, input_tokens=100, output_tokens=50, usd=None, unpriced=True)
    ]


@pytest.mark.parametrize("lose", [Jobs.cancel, reset])
async def test_a_request_under_way_when_its_job_is_lost_is_paid_for(
    jobs: Jobs, lose: Callable[[Jobs, str], Awaitable[None]]
):
    async def paid() -> bool:
        (day,) = await usage(jobs)
        return day.input_tokens > 100 and day.output_tokens == 100

    async with serving_model([Says(["Half" * 100, anyio.Event()])]) as server:
        model = ModelChoice("played", server.url, command=False)
        jobs = Jobs(but(jobs.app, jobs=but(jobs.app.jobs, model=model)))
        job = await jobs.invoke()
        async with working(jobs.app, model_runner(ModelConfig(), lambda _: ())):
            await jobs.until_said(job)
            await lose(jobs, job)

            await eventually(paid)

    if lose is Jobs.cancel:
        stored = await jobs.stored(job, "output_tokens", "spend_estimated", "partial")
        assert stored == (100, True, "Half" * 100)
        assert "model" in [step.kind for step in (await jobs.record(job)).steps]


async def test_what_a_run_spent_that_was_given_up_is_paid_for_beside_the_next_one(jobs: Jobs):
    job = await jobs.invoke()

    async def frozen(_: RunJob, reporting: Reporting) -> Outcome:
        await reporting.spent(input_tokens=10, output_tokens=5, usd=0.25)
        await given_up(jobs, job)
        await run(jobs, job, answers)
        return Outcome("Late.", 30, 8, 0.5)

    await run(jobs, job, frozen)

    assert await usage(jobs) == [spent_today(runs=1, input_tokens=130, output_tokens=58, usd=0.75)]
    assert await jobs.stored(job, "result", "input_tokens") == ("Looks good.", 110)


async def test_a_reset_ends_what_runs(jobs: Jobs):
    job = await jobs.invoke()

    async def is_reset(_: RunJob, reporting: Reporting) -> Outcome:
        await jobs.using(lambda work: reset_jobs(work, confirm=True))
        await reporting.progress("generating", 50, "writing")
        pytest.fail("It went on.")

    await run(jobs, job, is_reset)

    assert await jobs.status(job) == "not_found"
    assert await jobs.rows("SELECT 1 FROM dramatis.persona_jobs") == []
    assert await usage(jobs) == [spent_today(runs=1, input_tokens=0, output_tokens=0, usd=0)]


async def test_a_worker_that_is_given_again_what_it_still_runs_ends_the_earlier_run(jobs: Jobs):
    job = await jobs.invoke()
    stuck, done = Held(), Held()
    done.let_go()
    runners = iter((stuck, done))

    async def each(job: RunJob, reporting: Reporting) -> Outcome:
        return await next(runners)(job, reporting)

    execution = execution_of(jobs.app, each)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, jobs, job, each, execution)
        await stuck.until_begun(1)
        await given_up(jobs, job)
        await run(jobs, job, each, execution)

    assert (stuck.ended, done.ended, execution.running) == (["Look."], ["Look."], {})
    assert await jobs.stored(job, "status", "attempt", "losses") == ("complete", 2, 1)
