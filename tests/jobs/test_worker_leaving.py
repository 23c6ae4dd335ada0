"""How workers leave: idle, told to, or given up."""

from dataclasses import dataclass, field
from time import monotonic
from uuid import UUID

import anyio
import pytest

from server.jobs.worker import Worker, waiting_jobs
from tests.jobs.workers import (
    DEADLINE_S,
    LATER,
    SHORT,
    Held,
    Jobs,
    Outages,
    at_once,
    at_work,
    eventually,
    execution_of,
    given_up,
    until_past,
    working,
)

pytestmark = pytest.mark.anyio

DUE = (
    "UPDATE dramatis.persona_jobs SET run_after = NULL",
    "UPDATE procrastinate_jobs SET scheduled_at = NULL",
)


@dataclass(kw_only=True)
class JustMissed(Worker):
    """A worker for which a job comes, and begins, right after it has seen that none waits."""

    outside: Jobs
    held: Held
    came: list[str] = field(default_factory=list[str])

    async def jobs_wait(self) -> bool:
        waits = await super().jobs_wait()
        if not self.came:
            self.came.append(await self.outside.invoke("last moment"))
            await self.held.until_begun(1)
        return waits


async def test_a_worker_leaves_when_it_had_nothing_to_do_for_long_enough(jobs: Jobs):
    held = Held()

    async with working(jobs.app, held, idle_s=0.5) as serving:
        job = await jobs.invoke()
        await held.until_begun(1)
        await until_past(monotonic() + 1)
        stayed = not serving.left.is_set()
        held.let_go()
        await jobs.until(job, "complete")
        idle_since = serving.worker.execution.last_busy
        await serving.until_left()

    assert stayed
    assert monotonic() - idle_since >= 0.5


async def test_a_job_waits_until_it_is_fetched_whenever_its_time_comes(jobs: Jobs):
    execution = execution_of(jobs.app, at_once)
    before = await waiting_jobs(jobs.app, execution)

    await jobs.invoke()
    due = await waiting_jobs(jobs.app, execution)
    await jobs.execute(LATER)
    later = await waiting_jobs(jobs.app, execution)
    of_these = await waiting_jobs(jobs.app, execution, ["jobs", "others"])
    of_others = await waiting_jobs(jobs.app, execution, ["others"])

    assert (before, due, later, of_these, of_others) == (False, True, True, True, False)


async def test_a_worker_stays_while_a_job_waits_for_its_time(jobs: Jobs):
    job = await jobs.invoke()
    await jobs.execute(LATER)
    await jobs.execute("UPDATE dramatis.persona_jobs SET run_after = now() + interval '1 hour'")

    async with working(jobs.app, at_once, idle_s=0) as serving:
        await until_past(monotonic() + 2)
        stayed = not serving.left.is_set()
        await jobs.cancel(job)
        await serving.until_left()

    assert stayed


async def test_a_worker_stays_where_nobody_answers_whether_jobs_wait(
    jobs: Jobs, outages: Outages, caplog: pytest.LogCaptureFixture
):
    async def unanswered() -> bool:
        return "looking for jobs that wait: The database does not answer" in caplog.text

    job = await jobs.invoke()
    await jobs.execute(LATER)
    await jobs.execute("UPDATE dramatis.persona_jobs SET run_after = now() + interval '1 hour'")

    async with working(jobs.app, at_once, idle_s=0):
        async with outages.away():
            await eventually(unanswered)
        for statement in DUE:
            await jobs.execute(statement)
        await jobs.until(job, "complete")


async def test_a_worker_that_is_about_to_leave_stays_for_a_job_of_the_last_moment(jobs: Jobs):
    held = Held()
    execution = execution_of(jobs.app, held)
    worker = JustMissed(
        jobs.app, execution, jobs=3, drain_s=DEADLINE_S, idle_s=0, outside=jobs, held=held
    )

    async with at_work(worker) as serving:
        await held.until_begun(1)
        await jobs.invoke("another")
        await held.until_begun(2)
        held.let_go()
        await serving.until_left()

    assert held.began == ["last moment", "another"]
    assert [await jobs.status(job) for job in worker.came] == ["complete"]


async def test_a_worker_that_is_to_stop_ends_what_it_runs_and_takes_nothing_more(jobs: Jobs):
    held = Held()

    async with working(jobs.app, held) as serving:
        first = await jobs.invoke()
        await held.until_begun(1)
        serving.worker.stop()
        second = await jobs.invoke()
        held.let_go()
        await serving.until_left()

    assert [await jobs.status(job) for job in (first, second)] == ["complete", "pending"]


async def test_a_drain_that_outlasts_the_lease_runs_the_job_once(jobs: Jobs):
    held = Held()

    async with (
        working(jobs.app, held, pace=SHORT) as serving,
        working(jobs.app, held, pace=SHORT, name="here:2"),
    ):
        job = await jobs.invoke()
        await held.until_begun(1)
        serving.worker.stop()
        (lease,) = await jobs.stored(job, "lease_until")

        async def renewed() -> bool:
            (now,) = await jobs.stored(job, "lease_until")
            return now > lease + 2 * SHORT.lease

        await eventually(renewed)
        held.let_go()
        await jobs.until(job, "complete")

    assert held.attempts == [(UUID(job), 1)]


async def test_a_job_that_is_not_over_when_the_drain_is_goes_to_another_worker(jobs: Jobs):
    stuck, other = Held(), Held()
    other.let_go()

    async with working(jobs.app, stuck, drain_s=0.2) as serving:
        job = await jobs.invoke()
        await jobs.until_said(job)
        serving.worker.stop()
        await serving.until_left()
    waiting = await jobs.shown(job)
    async with working(jobs.app, other, name="here:2"):
        await jobs.until(job, "complete")

    assert waiting["message"] == "Waiting: its worker was stopped; waiting for another."
    assert (stuck.attempts, other.attempts) == ([(UUID(job), 1)], [(UUID(job), 2)])
    assert await jobs.stored(job, "losses", "worker") == (0, "here:2")


async def test_a_worker_that_is_told_twice_hands_back_at_once(jobs: Jobs):
    held = Held()

    async with working(jobs.app, held) as serving:
        job = await jobs.invoke()
        await held.until_begun(1)
        serving.worker.stop()
        serving.worker.stop()
        with anyio.fail_after(10):
            await serving.until_left()

    assert await jobs.stored(job, "status", "partial") == ("pending", "Look. … ")


async def test_a_worker_that_was_given_up_stops_and_the_job_is_run_anew(jobs: Jobs):
    held = Held()

    async with working(jobs.app, held):
        job = await jobs.invoke()
        await held.until_begun(1)
        await given_up(jobs, job)
        await held.until_begun(2)
        await held.until_ended(1)
        held.let_go()
        await jobs.until(job, "complete")

    assert held.attempts == [(UUID(job), 1), (UUID(job), 2)]
    assert await jobs.stored(job, "losses") == (1,)
