"""Workers in this process: what they fetch, how many at once, and how they leave."""

from collections import Counter
from datetime import timedelta
from time import monotonic
from uuid import UUID

import anyio
import psycopg
import pytest

from server import access
from server.jobs.leases import Pace
from server.jobs.running import Outcome, Reporting, RunJob
from server.jobs.worker import waiting_jobs
from server.work import App
from tests.conftest import Databases, but, operator
from tests.jobs.workers import (
    QUICK,
    Held,
    Jobs,
    Outages,
    configured,
    eventually,
    execution_of,
    given_up,
    working,
)

pytestmark = pytest.mark.anyio

FAILED = "SELECT FROM dramatis_queue.procrastinate_jobs WHERE status = 'failed'"
LATER = "UPDATE procrastinate_jobs SET scheduled_at = now() + interval '1 hour'"
SHORT = but(QUICK, lease=timedelta(seconds=2))


@pytest.fixture
def jobs(own_app: App) -> Jobs:
    return Jobs(configured(own_app))


@pytest.fixture
def outages(own_app: App, databases: Databases) -> Outages:
    return Outages.of(own_app, databases)


async def at_once(job: RunJob, reporting: Reporting) -> Outcome:
    return Outcome("Done.", 1, 1, None)


async def many(jobs: Jobs, count: int) -> list[str]:
    return [await jobs.invoke(f"Task {number}.") for number in range(count)]


async def until_tried(jobs: Jobs, job: str) -> None:
    """Wait until a job was delivered, could not run yet, and is delivered again."""
    (first,) = await jobs.stored(job, "delivery_id")

    async def again() -> bool:
        return await jobs.stored(job, "delivery_id") != (first,)

    await eventually(again)


async def until_past(moment: float) -> None:
    async def past() -> bool:
        return monotonic() > moment

    await eventually(past)


async def test_jobs_run_several_at_once_and_no_more_than_they_may(jobs: Jobs):
    ids = await many(jobs, 5)
    held = Held()

    async with working(jobs.app, held, jobs=3):
        await held.until_begun(3)
        running = [await jobs.status(job) for job in ids]
        held.let_go()
        for job in ids:
            await jobs.until(job, "complete")

    assert running == ["running"] * 3 + ["pending"] * 2
    assert held.most == 3


async def test_one_worker_takes_jobs_by_priority_and_then_by_age(jobs: Jobs):
    await jobs.invoke("low", priority="low")
    await jobs.invoke("normal", priority="normal")
    await jobs.invoke("high 1", priority="high")
    await jobs.invoke("high 2", priority="high")
    held = Held()
    held.let_go()

    async with working(jobs.app, held, jobs=1):
        await held.until_begun(4)

    assert held.began == ["high 1", "high 2", "normal", "low"]


async def test_a_job_that_could_not_run_yet_still_comes_before_lesser_ones(jobs: Jobs):
    jobs = Jobs(configured(jobs.app, running_per_persona=1))
    held = Held()

    async with working(jobs.app, held, jobs=4):
        first = await jobs.invoke("first")
        await held.until_begun(1)
        await until_tried(jobs, await jobs.invoke("high", priority="high"))
        held.let_go()
        await jobs.until(first, "complete")
        await jobs.until(await jobs.invoke("low", priority="low"), "complete")

    assert held.began == ["first", "high", "low"]


async def test_when_a_run_ends_the_next_job_begins_however_long_it_was_put_off(jobs: Jobs):
    jobs = Jobs(configured(jobs.app, running=1))
    held = Held()

    async with working(jobs.app, held):
        await jobs.invoke("first")
        await held.until_begun(1)
        second = await jobs.invoke("second")
        await until_tried(jobs, second)
        await jobs.execute(LATER)
        held.let_go()
        with anyio.fail_after(10):
            await jobs.until(second, "complete")


async def test_jobs_that_cannot_run_yet_are_not_all_tried_all_the_time(jobs: Jobs):
    jobs = Jobs(configured(jobs.app, running=1))
    held = Held()

    async def all_tried() -> bool:
        return not await jobs.rows(
            "SELECT 1 FROM procrastinate_jobs WHERE status = 'todo' AND scheduled_at IS NULL"
        )

    async def delivered() -> int:
        ((last,),) = await jobs.rows("SELECT max(id) FROM procrastinate_jobs")
        return last

    async with working(jobs.app, held):
        await many(jobs, 21)
        await held.until_begun(1)
        await eventually(all_tried)
        before = await delivered()
        await until_past(monotonic() + 3)
        again = await delivered() - before
        await jobs.execute("DELETE FROM procrastinate_jobs WHERE status = 'todo'")

    assert 2 <= again <= 20


@pytest.mark.parametrize(
    ("limits", "beside"), [({"running_per_persona": 1}, True), ({"running": 1}, False)]
)
async def test_a_job_beyond_the_limits_waits_and_then_runs(
    jobs: Jobs, limits: dict[str, int], *, beside: bool
):
    jobs = Jobs(configured(jobs.app, **limits))
    first = await jobs.invoke("first")
    held = Held()

    async with working(jobs.app, held, jobs=3):
        await held.until_begun(1)
        second = await jobs.invoke("second")
        await until_tried(jobs, second)
        other = await jobs.invoke("other", persona="qa")
        if beside:
            await jobs.until(other, "running")
        waiting = await jobs.status(second)
        held.let_go()
        for job in (first, second, other):
            await jobs.until(job, "complete")

    assert waiting == "pending"
    assert held.most == 1 + beside


async def test_a_worker_runs_the_jobs_of_every_tenant_each_as_its_own(jobs: Jobs):
    async with jobs.app.work(operator(jobs.app)) as work:
        await access.add_tenant(work, "other")
        tenant_id = await access.tenant_id(work.session, "other")
    others = Jobs(but(jobs.app, tenant_id=tenant_id))
    job = await others.invoke()

    async with working(jobs.app, at_once):
        done = await others.until(job, "complete")

    assert done["result"] == "Done."
    assert await jobs.status(job) == "not_found"


async def test_two_workers_run_two_hundred_jobs_once_each(jobs: Jobs):
    ids = await many(jobs, 200)
    ran: Counter[tuple[UUID, int]] = Counter()

    async def count(job: RunJob, reporting: Reporting) -> Outcome:
        ran[(job.id, job.attempt)] += 1
        return Outcome("Done.", 1, 1, None)

    async def none_left() -> bool:
        left = await jobs.rows("SELECT 1 FROM dramatis.persona_jobs WHERE status <> 'complete'")
        return not left

    async with working(jobs.app, count, jobs=4), working(jobs.app, count, jobs=4, name="here:2"):
        await eventually(none_left)

    assert ran == {(UUID(job), 1): 1 for job in ids}
    assert await jobs.rows("SELECT 1 FROM procrastinate_jobs") == []


async def test_a_job_cancelled_while_it_talks_stops_and_keeps_what_it_said(jobs: Jobs):
    held = Held()

    async with working(jobs.app, held):
        job = await jobs.invoke()
        await jobs.until_said(job)
        await jobs.cancel(job)
        with anyio.fail_after(5):
            await held.until_ended(1)
        cancelled = await jobs.shown(job)
        held.let_go()

    assert (cancelled["status"], cancelled["partial_result"]) == ("cancelled", "Look. … ")
    assert await jobs.shown(job) == cancelled


async def test_in_use_a_cancelled_run_stops_within_seconds(jobs: Jobs):
    held = Held()

    async with working(jobs.app, held, pace=Pace()):
        job = await jobs.invoke()
        await jobs.until_said(job)
        await jobs.cancel(job)
        with anyio.fail_after(5):
            await held.until_ended(1)


async def test_words_are_kept_also_when_nothing_follows_them(jobs: Jobs):
    held = Held()

    async def talks(job: RunJob, reporting: Reporting) -> Outcome:
        await reporting.progress("generating", 10, "writing")
        # So soon after the last thing that was kept, this waits for more to come.
        await reporting.text("One word.")
        return await held(job, reporting)

    async with working(jobs.app, talks):
        job = await jobs.invoke()
        await jobs.until_said(job)


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


async def test_a_worker_cleans_up_when_it_starts(jobs: Jobs):
    async with working(jobs.app, at_once):
        await eventually(lambda: jobs.rows("SELECT 1 FROM dramatis.job_cleanups"))


async def test_a_worker_that_stays_cleans_up_again_the_next_day(jobs: Jobs):
    cleaned = "SELECT 1 FROM dramatis.job_cleanups WHERE cleaned_at > now() - interval '1 hour'"

    async with working(jobs.app, at_once, pace=but(QUICK, clean_s=0.05)):
        await eventually(lambda: jobs.rows(cleaned))
        await jobs.execute(
            "UPDATE dramatis.job_cleanups SET cleaned_at = cleaned_at - interval '1 day'"
        )
        await eventually(lambda: jobs.rows(cleaned))


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
