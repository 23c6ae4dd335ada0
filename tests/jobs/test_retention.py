from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

import pytest
from dirty_equals import IsDatetime
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from server.jobs.leases import claim, hand_back
from server.jobs.queries import list_jobs
from server.jobs.retention import clean_if_due, clean_jobs, recommended
from server.jobs.service import cancel_job
from server.jobs.statistics import job_statistics
from server.work import App, Caller, Work
from tests.conftest import operator
from tests.jobs.conftest import (
    aged,
    begun,
    completed,
    failed,
    invoked,
    left_behind,
    status_of,
    taken,
)
from tests.jobs.workers import Jobs
from tests.standards.conftest import audited, using

pytestmark = pytest.mark.anyio

Reach = Callable[[App, Caller], Awaitable[UUID]]

DAY_S = 86_400


def tomorrow() -> IsDatetime:
    return IsDatetime(delta=60, approx=datetime.now(UTC) + timedelta(days=1))


async def cancelled(app: App, caller: Caller) -> UUID:
    job = await invoked(app, caller)
    await using(app, caller, lambda work: cancel_job(work, str(job)))
    return job


@pytest.mark.parametrize(
    ("end", "days"),
    [(completed, 7), (cancelled, 7), (failed, 30)],
    ids=["complete", "cancelled", "failed"],
)
async def test_what_has_ended_is_kept_for_its_days(app: App, caller: Caller, end: Reach, days: int):
    kept, old = [await end(app, caller) for _ in range(2)]
    await aged(app, caller, kept, days * DAY_S - 60)
    await aged(app, caller, old, days * DAY_S + 60)

    cleaned = await using(app, caller, clean_jobs)

    assert cleaned.model_dump() == {"jobs_deleted": 1, "next_cleanup": tomorrow()}
    listing = await using(app, caller, list_jobs)
    assert [job.job_id for job in listing.jobs] == [kept]
    assert (await status_of(app, caller, old)).status == "not_found"


async def test_what_nobody_ran_for_a_day_is_given_up(app: App, caller: Caller):
    fresh, stale = [await invoked(app, caller) for _ in range(2)]
    await aged(app, caller, fresh, DAY_S - 60)
    await aged(app, caller, stale, DAY_S + 60)

    cleaned = await using(app, caller, clean_jobs)

    answer = await status_of(app, caller, stale)
    assert cleaned.jobs_deleted == 0
    assert answer.model_dump(exclude={"job_id", "elapsed_seconds"}) == {
        "status": "failed",
        "persona": "architect",
        "error": "It waited for a day, and no worker took it: is one running?",
        "partial_result": None,
    }
    assert (await status_of(app, caller, fresh)).status == "pending"
    assert (await left_behind(app, caller))["deliveries"] == 1


async def test_a_run_that_goes_on_is_left_alone(app: App, caller: Caller):
    run = await begun(app, caller)
    await aged(app, caller, run.job_id, 100 * DAY_S)

    await using(app, caller, clean_jobs)

    assert (await status_of(app, caller, run.job_id)).status == "running"


async def test_a_job_that_a_worker_is_just_claiming_is_not_given_up(own_app: App):
    caller = operator(own_app)
    job = await invoked(own_app, caller)
    await aged(own_app, caller, job, 2 * DAY_S)

    async with own_app.work(caller) as work:
        (delivery_id,) = await Jobs(own_app).stored(str(job), "delivery_id")
        assert await claim(work, delivery_id, "worker")
        await using(own_app, caller, clean_jobs)

    assert (await status_of(own_app, caller, job)).status == "running"


async def test_a_job_that_has_begun_and_waits_again_is_not_given_up(app: App, caller: Caller):
    run = await begun(app, caller)
    await aged(app, caller, run.job_id, 2 * DAY_S)
    async with app.work(caller) as work:
        await hand_back(work, run.job_id, run.attempt, message="its worker was stopped")

    await using(app, caller, clean_jobs)

    assert (await status_of(app, caller, run.job_id)).status == "pending"


async def cleaned_at(work: Work) -> datetime:
    return (await job_statistics(work)).next_cleanup - timedelta(days=1)


async def a_day_later(app: App, caller: Caller) -> None:
    async with app.work(caller) as work:
        await work.session.execute(
            text("UPDATE dramatis.job_cleanups SET cleaned_at = cleaned_at - interval '1 day'")
        )


async def test_a_clean_up_is_due_once_a_day(app: App, caller: Caller):
    await using(app, caller, clean_if_due)
    first = await using(app, caller, cleaned_at)
    await using(app, caller, clean_if_due)
    again = await using(app, caller, cleaned_at)
    await a_day_later(app, caller)
    await using(app, caller, clean_if_due)

    assert first == again
    assert (await using(app, caller, job_statistics)).next_cleanup == tomorrow()


async def test_a_worker_removes_old_jobs_a_portion_at_a_time(app: App, caller: Caller):
    for _ in range(3):
        await aged(app, caller, await completed(app, caller), 8 * DAY_S)

    async def portion() -> tuple[bool, int]:
        more = await using(app, caller, lambda work: clean_if_due(work, 2))
        return more, (await using(app, caller, list_jobs)).total_count

    assert [await portion() for _ in range(3)] == [(True, 1), (False, 0), (False, 0)]


async def test_one_that_is_asked_for_does_not_wait_until_it_is_due(app: App, caller: Caller):
    await using(app, caller, clean_jobs)
    old = await completed(app, caller)
    await aged(app, caller, old, 8 * DAY_S)

    cleaned = await using(app, caller, clean_jobs)

    assert cleaned.jobs_deleted == 1


async def test_two_workers_do_not_clean_at_once(own_app: App):
    caller = operator(own_app)
    await aged(own_app, caller, await completed(own_app, caller), 8 * DAY_S)

    async with own_app.work(caller) as one, own_app.work(caller) as other:
        assert await clean_if_due(one, 1)
        assert not await clean_if_due(other, 1)


async def test_a_clean_up_takes_jobs_out_of_the_size(app: App, caller: Caller):
    # Of which little is compressed away.
    long = Random(0).randbytes(30_000).hex()
    await aged(app, caller, await completed(app, caller, context=long), 8 * DAY_S)
    before = await using(app, caller, job_statistics)

    await using(app, caller, clean_jobs)

    after = await using(app, caller, job_statistics)
    assert before.database_size_mb > after.database_size_mb == 0


async def test_statistics_name_the_next_clean_up(app: App, caller: Caller):
    cleaned = await using(app, caller, clean_jobs)

    statistics = await using(app, caller, job_statistics)

    assert statistics.next_cleanup == cleaned.next_cleanup


async def test_a_clean_up_that_did_something_is_in_the_audit_log(app: App, caller: Caller):
    await using(app, caller, clean_jobs)
    await aged(app, caller, await completed(app, caller), 8 * DAY_S)
    await aged(app, caller, await invoked(app, caller), 2 * DAY_S)

    await using(app, caller, clean_jobs)

    acts = await audited(app, caller)
    assert [act for act in acts if act[1] == "jobs.cleaned"] == [
        ("tester", "jobs.cleaned", "jobs", {"deleted": 1, "expired": 1})
    ]


async def test_a_job_that_was_given_up_is_not_run_after_all(app: App, caller: Caller):
    job = await invoked(app, caller)
    await aged(app, caller, job, 2 * DAY_S)
    await using(app, caller, clean_jobs)

    with pytest.raises(AssertionError):
        await taken(app, caller, job)


@pytest.mark.parametrize(
    ("size_mb", "said"),
    [
        (0, "healthy"),
        (49.9, "healthy"),
        (50, "schedule soon"),
        (99.9, "schedule soon"),
        (100, "recommended"),
        (149.9, "recommended"),
        (150, "urgent"),
    ],
)
def test_how_much_a_clean_up_presses_depends_on_the_size(size_mb: float, said: str):
    assert recommended(size_mb) == said


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_more_never_presses_less(one: float, other: float):
    order = [recommended(size) for size in (0, 50, 100, 150)]

    less, more = sorted((one, other))

    assert order.index(recommended(less)) <= order.index(recommended(more))
