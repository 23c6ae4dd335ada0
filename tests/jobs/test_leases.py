"""Whose turn it is to be run, and what becomes of deliveries when it is another's."""

from functools import partial
from random import Random
from uuid import UUID

import anyio
import pytest
from sqlalchemy import text

from server.jobs.leases import PAUSE, claim, deliver_orphans, hand_back, take_over
from server.jobs.running import Outcome, Reporting, RunJob
from server.jobs.service import cancel_job
from server.jobs.shapes import JobPending, Priority
from server.work import App, Caller, Work
from tests.conftest import but, operator
from tests.jobs.conftest import begun, invoked, status_of, taken
from tests.jobs.workers import Jobs, configured, eventually, working

pytestmark = pytest.mark.anyio

# Each job that waits has one delivery that waits, and no other is there.
TICKETS = """
SELECT job.id, ticket.id FROM
  (SELECT * FROM dramatis.persona_jobs WHERE status = 'pending') job
  FULL JOIN (SELECT * FROM procrastinate_jobs WHERE status = 'todo') ticket
  ON ticket.id = job.delivery_id
WHERE job.id IS NULL OR ticket.id IS NULL
"""
LEFT_WITHOUT = """
SELECT id FROM dramatis.persona_jobs
WHERE status = 'pending' AND delivery_id NOT IN (SELECT id FROM procrastinate_jobs)
"""


@pytest.fixture
def jobs(own_app: App) -> Jobs:
    return Jobs(configured(own_app))


async def fetched(jobs: Jobs, ticket: int) -> UUID | None:
    """Claim on a delivery as a worker does that has fetched it, and return what is claimed."""

    async def fetch(work: Work) -> UUID | None:
        take = text("UPDATE procrastinate_jobs SET status = 'doing' WHERE id = :id")
        await work.session.execute(take, {"id": ticket})
        row = await claim(work, ticket, "worker")
        drop = text("DELETE FROM procrastinate_jobs WHERE id = :id")
        await work.session.execute(drop, {"id": ticket})
        return row.id if row is not None else None

    return await jobs.using(fetch)


async def ticket_of(jobs: Jobs, job: str) -> int:
    (ticket,) = await jobs.stored(job, "delivery_id")
    return ticket


async def blocked(jobs: Jobs) -> bool:
    return bool(await jobs.rows("SELECT 1 FROM pg_locks WHERE NOT granted"))


async def test_any_delivery_is_for_the_job_whose_turn_it_is(jobs: Jobs):
    low = await jobs.invoke(priority="low")
    older = await jobs.invoke(priority="high")
    newer = await jobs.invoke(priority="high")
    tickets = [await ticket_of(jobs, job) for job in (low, newer)]

    began = [str(await fetched(jobs, ticket)) for ticket in tickets]
    last = await fetched(jobs, await ticket_of(jobs, low))

    assert [*began, str(last)] == [older, newer, low]


async def test_a_job_in_another_queue_is_left_to_who_looks_after_that(jobs: Jobs):
    other = Jobs(but(jobs.app, jobs=but(jobs.app.jobs, queue="other")))
    await other.invoke(priority="high")
    job = await jobs.invoke(priority="low")

    assert str(await fetched(jobs, await ticket_of(jobs, job))) == job


async def test_a_job_whose_time_has_not_come_lets_others_pass(app: App, caller: Caller):
    run = await begun(app, caller, priority="high")
    async with app.work(caller) as work:
        later = await work.session.scalar(text("SELECT clock_timestamp() + interval '1 hour'"))
        await hand_back(work, run.job_id, run.attempt, message="busy", run_after=later)
    jobs = Jobs(app)
    ticket = await ticket_of(jobs, str(run.job_id))
    together = f"UPDATE dramatis.persona_jobs SET queue = '{run.job_id}'"
    job = await invoked(app, caller, priority="low")
    await jobs.execute(together)

    assert isinstance(status := await status_of(app, caller, job), JobPending)
    assert status.position == 1
    assert await fetched(jobs, ticket) == job
    assert await fetched(jobs, await ticket_of(jobs, str(run.job_id))) is None
    assert await jobs.rows("SELECT scheduled_at FROM procrastinate_jobs") == [(later,)]


async def test_a_job_that_was_taken_over_is_as_old_as_before(app: App, caller: Caller):
    first = await invoked(app, caller)
    second = await invoked(app, caller)
    await taken(app, caller, first)
    jobs = Jobs(app)
    await jobs.execute(
        "UPDATE dramatis.persona_jobs SET queue = 'jobs', lease_until = CASE status"
        " WHEN 'running' THEN clock_timestamp() END"
    )
    await jobs.using(lambda work: take_over(work, [first]))

    states = [await status_of(app, caller, job) for job in (first, second)]

    assert [one.position for one in states if isinstance(one, JobPending)] == [1, 2]


async def test_the_further_behind_a_job_is_the_later_it_is_delivered_again(jobs: Jobs):
    jobs = Jobs(configured(jobs.app, running=0))
    waiting = [await jobs.invoke() for _ in range(3)]
    for job in waiting:
        await fetched(jobs, await ticket_of(jobs, job))

    after = await jobs.rows(
        "SELECT round(extract(epoch FROM scheduled_at - now())) FROM procrastinate_jobs ORDER BY id"
    )

    pause_s = PAUSE.total_seconds()
    assert [seconds for (seconds,) in after] == [pause_s, 2 * pause_s, 3 * pause_s]


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_is_claimed_cancelled_and_handed_back_what_is_left_runs(
    jobs: Jobs, seed: int
):
    chance = Random(seed)
    jobs = Jobs(configured(jobs.app, running=3, running_per_persona=2))
    priorities: list[Priority] = ["low", "normal", "high"]
    left = [
        await jobs.invoke("Look.", chance.choice(["qa", "sre"]), chance.choice(priorities))
        for _ in range(12)
    ]
    for _ in range(30):
        job = chance.choice(left)
        match await jobs.status(job), chance.randrange(4):
            case _, 0 if len(left) > 4:
                await jobs.cancel(job)
                left.remove(job)
            case "running", _:
                (attempt,) = await jobs.stored(job, "attempt")
                await jobs.using(
                    lambda work, job=job, attempt=attempt: hand_back(
                        work, UUID(job), attempt, message="stopped"
                    )
                )
            case _:
                await fetched(jobs, await ticket_of(jobs, job))
        assert await jobs.rows(TICKETS) == []
    for job in left:
        if await jobs.status(job) == "running":
            await jobs.cancel(job)

    async def at_once(job: RunJob, reporting: Reporting) -> Outcome:
        return Outcome("Done.", 1, 1, None)

    async def all_ended() -> bool:
        return {await jobs.status(job) for job in left} <= {"complete", "cancelled"}

    async with working(jobs.app, at_once):
        await eventually(all_ended)


async def test_claims_at_once_in_two_queues_do_not_both_pass_one_limit(jobs: Jobs):
    jobs = Jobs(configured(jobs.app, running=1))
    other = Jobs(but(jobs.app, jobs=but(jobs.app.jobs, queue="other")))
    tickets = [await ticket_of(jobs, await queue.invoke()) for queue in (jobs, other)]
    second: list[UUID | None] = []

    async def claims() -> None:
        second.append(await fetched(jobs, tickets[1]))

    async def waits_or_claimed() -> bool:
        return bool(second) or await blocked(jobs)

    async with anyio.create_task_group() as tasks, jobs.app.work(operator(jobs.app)) as work:
        assert await claim(work, tickets[0], "worker")
        tasks.start_soon(claims)
        await eventually(waits_or_claimed)

    assert second == [None]


async def test_where_the_next_job_is_cancelled_meanwhile_the_one_after_it_is_claimed(jobs: Jobs):
    cancelled, after, last = [await jobs.invoke() for _ in range(3)]
    ticket = await ticket_of(jobs, last)
    claimed: list[str] = []

    async def claims() -> None:
        claimed.append(str(await fetched(jobs, ticket)))

    async with anyio.create_task_group() as tasks, jobs.app.work(operator(jobs.app)) as work:
        await cancel_job(work, cancelled)
        tasks.start_soon(claims)
        await eventually(partial(blocked, jobs))

    assert claimed == [after]
    assert await jobs.rows(TICKETS) == []


async def test_on_a_delivery_that_is_replaced_meanwhile_nothing_is_claimed(jobs: Jobs):
    job = await jobs.invoke()
    ticket = await ticket_of(jobs, job)
    claimed: list[UUID | None] = []

    async def claims() -> None:
        claimed.append(await fetched(jobs, ticket))

    async with anyio.create_task_group() as tasks, jobs.app.work(operator(jobs.app)) as work:
        await deliver_orphans(work, [ticket])
        tasks.start_soon(claims)
        await eventually(partial(blocked, jobs))

    assert claimed == [None]
    assert str(await fetched(jobs, await ticket_of(jobs, job))) == job


async def test_a_delivery_that_a_claim_is_passing_on_is_not_dropped(jobs: Jobs):
    first, second = await jobs.invoke(priority="high"), await jobs.invoke()
    orphan, ticket = [await ticket_of(jobs, job) for job in (first, second)]
    await jobs.execute("UPDATE procrastinate_jobs SET status = 'doing'")

    async with jobs.app.work(operator(jobs.app)) as work:
        claimed = await claim(work, ticket, "worker")
        await jobs.using(lambda sweep: deliver_orphans(sweep, [orphan]))

    assert claimed is not None
    assert (str(claimed.id), await ticket_of(jobs, second)) == (first, orphan)
    assert await jobs.rows(LEFT_WITHOUT) == []
    await jobs.using(lambda sweep: deliver_orphans(sweep, [orphan]))
    assert await jobs.rows(TICKETS) == []


async def test_a_job_that_waits_without_a_delivery_gets_one(jobs: Jobs):
    await jobs.invoke()
    await jobs.execute("DELETE FROM procrastinate_jobs")

    await jobs.using(lambda sweep: deliver_orphans(sweep, []))

    assert await jobs.rows(TICKETS) == []
