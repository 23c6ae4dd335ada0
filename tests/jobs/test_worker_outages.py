"""Workers whose database goes away, or whose fetcher dies."""

from datetime import timedelta
from time import monotonic
from uuid import UUID

import anyio
import psycopg
import pytest

from server.jobs.running import Outcome, Reporting, RunJob
from tests.conftest import but
from tests.jobs.workers import (
    QUICK,
    SHORT,
    Held,
    Jobs,
    Outages,
    at_once,
    eventually,
    many,
    until_past,
    working,
)

pytestmark = pytest.mark.anyio

FAILED = "SELECT FROM dramatis_queue.procrastinate_jobs WHERE status = 'failed'"


async def test_a_run_goes_on_while_the_database_is_away(jobs: Jobs, outages: Outages):
    gone, said, back = anyio.Event(), anyio.Event(), anyio.Event()

    async def talks(job: RunJob, reporting: Reporting) -> Outcome:
        await reporting.text("Before, ")
        await gone.wait()
        await reporting.progress("generating", 50, "writing")
        await reporting.text("meanwhile, ")
        said.set()
        await back.wait()
        await reporting.text("after.")
        await reporting.spent(input_tokens=10, output_tokens=5, usd=None)
        raise ZeroDivisionError

    async with working(jobs.app, talks, jobs=1):
        job = await jobs.invoke()
        await jobs.until_said(job)
        async with outages.away():
            gone.set()
            await said.wait()
        back.set()
        failed = await jobs.until(job, "failed")

    assert failed["partial_result"] == "Before, meanwhile, after."
    assert await jobs.stored(job, "attempt", "losses", "output_tokens") == (1, 0, 5)


async def test_a_run_that_ends_while_the_database_is_away_is_not_run_again(
    jobs: Jobs, outages: Outages, caplog: pytest.LogCaptureFixture
):
    held = Held()

    async def tried() -> bool:
        return "the end of a run is not written yet" in caplog.text

    async with working(jobs.app, held) as serving:
        job = await jobs.invoke()
        await jobs.until(job, "running")
        async with outages.away():
            held.let_go()
            await eventually(tried)
            # Nor when the worker is told to hurry.
            serving.worker.stop()
            serving.worker.stop()
        await serving.until_left()

    assert (await jobs.shown(job))["result"] == "Did Look.."
    assert held.attempts == [(UUID(job), 1)]


async def test_after_an_outage_nobody_takes_the_jobs_of_workers_that_are_alive(
    jobs: Jobs, outages: Outages
):
    held, other = Held(), Held()
    pace = but(QUICK, lease=timedelta(seconds=3), beat_s=1)

    async with (
        working(jobs.app, held, pace=pace),
        working(jobs.app, other, pace=pace, name="here:2"),
    ):
        job = await jobs.invoke()
        await jobs.until_said(job)
        async with outages.away():
            await until_past(monotonic() + 3.5)
        await until_past(monotonic() + 4)
        kept = await jobs.stored(job, "status", "attempt", "losses")
        held.let_go()
        other.let_go()
        await jobs.until(job, "complete")

    assert kept == ("running", 1, 0)


async def test_a_job_whose_end_could_not_be_written_for_too_long_is_run_again(
    jobs: Jobs, outages: Outages
):
    held = Held()

    async with working(jobs.app, held, pace=but(SHORT, ending_s=0)) as serving:

        async def over() -> bool:
            return not serving.worker.execution.running

        job = await jobs.invoke()
        await jobs.until_said(job)
        async with outages.away():
            held.let_go()
            await eventually(over)
        await jobs.until(job, "complete")

    assert held.attempts == [(UUID(job), 1), (UUID(job), 2)]


async def test_a_fetcher_that_lost_the_database_keeps_nothing_waiting_for_what_runs(
    jobs: Jobs, outages: Outages, caplog: pytest.LogCaptureFixture
):
    held = Held()

    async def lost() -> bool:
        return "fetching jobs stopped" in caplog.text or "stopping worker" in caplog.text

    async with working(jobs.app, held, jobs=2):
        first = await jobs.invoke()
        await held.until_begun(1)
        async with outages.away():
            await eventually(lost)
        others = await many(jobs, 2)
        await held.until_begun(2)
        await until_past(monotonic() + 1)
        together = held.most
        held.let_go()
        for job in (first, *others):
            await jobs.until(job, "complete")

    assert together == 2


async def test_after_an_outage_a_worker_uses_all_its_slots_before_its_longest_run_ends(
    jobs: Jobs, outages: Outages, caplog: pytest.LogCaptureFixture
):
    held = Held()

    async def lost() -> bool:
        return "fetching jobs stopped" in caplog.text or "stopping worker" in caplog.text

    async with working(jobs.app, held, jobs=3):
        for task in ("short", "long"):
            await jobs.invoke(task)
        await held.until_begun(2)
        async with outages.away():
            await eventually(lost)
        await jobs.invoke("after it")
        await held.until_begun(3)
        held.let_go("short")
        await held.until_ended(1)
        await jobs.invoke("in its place")
        await held.until_begun(4)

    assert held.most == 3


async def test_a_full_worker_gives_signs_of_life_again_after_an_outage(
    jobs: Jobs, outages: Outages, caplog: pytest.LogCaptureFixture
):
    held = Held()
    signs = "SELECT id FROM procrastinate_workers ORDER BY id DESC LIMIT 1"

    async def lost() -> bool:
        return "stopping worker" in caplog.text

    async with working(jobs.app, held, jobs=1):
        await jobs.invoke()
        await held.until_begun(1)
        before = await jobs.rows(signs)
        async with outages.away():
            await eventually(lost)

        async def another() -> bool:
            return await jobs.rows(signs) > before

        await eventually(another)


async def test_a_job_that_was_fetched_and_could_not_be_claimed_is_delivered_again(
    jobs: Jobs, owner: psycopg.Connection, caplog: pytest.LogCaptureFixture
):
    job = await jobs.invoke()

    async def failed() -> bool:
        return bool(owner.execute(FAILED).fetchall())

    owner.execute("ALTER TABLE dramatis.persona_jobs RENAME TO gone")
    async with working(jobs.app, at_once):
        await eventually(failed)
        owner.execute("ALTER TABLE dramatis.gone RENAME TO persona_jobs")
        await jobs.until(job, "complete")

    assert await jobs.stored(job, "attempt") == (1,)


async def test_a_job_whose_fetcher_died_before_it_was_claimed_is_delivered_again(jobs: Jobs):
    job = await jobs.invoke()
    await jobs.execute("UPDATE procrastinate_jobs SET status = 'doing'")

    async with working(jobs.app, at_once):
        await jobs.until(job, "complete")
