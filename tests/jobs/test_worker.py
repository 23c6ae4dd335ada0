"""Workers in this process: what they fetch, in which order, and how many at once."""

from collections import Counter
from time import monotonic
from uuid import UUID

import anyio
import pytest

from server import access
from server.jobs.leases import Pace
from server.jobs.running import Outcome, Reporting, RunJob
from tests.conftest import but, operator
from tests.jobs.workers import (
    LATER,
    QUICK,
    Held,
    Jobs,
    at_once,
    configured,
    eventually,
    many,
    until_past,
    working,
)

pytestmark = pytest.mark.anyio


async def until_tried(jobs: Jobs, job: str) -> None:
    """Wait until a job was delivered, could not run yet, and is delivered again."""
    (first,) = await jobs.stored(job, "delivery_id")

    async def again() -> bool:
        return await jobs.stored(job, "delivery_id") != (first,)

    await eventually(again)


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
