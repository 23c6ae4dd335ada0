from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import anyio
import pytest
from inline_snapshot import snapshot
from sqlalchemy import text

from server.jobs.ending import Spending, spend_late
from server.jobs.leases import hand_back
from server.jobs.limits import BudgetExhausted, QueueFull, TooManyInvocations
from server.jobs.queries import list_jobs
from server.jobs.record import run_record
from server.jobs.reporting import JobReporting
from server.jobs.service import cancel_job, reset_jobs
from server.jobs.statistics import persona_usage
from server.work import App, Caller, JobLimits, Work
from tests.conftest import but, operator
from tests.jobs.conftest import aged, begun, configured, ended, invoked, left_behind, taken
from tests.jobs.workers import Jobs, eventually
from tests.standards.conftest import using

pytestmark = pytest.mark.anyio


async def test_a_full_queue_is_refused_with_the_numbers(app: App, caller: Caller):
    app = configured(app, queue_length=2)
    await invoked(app, caller)
    await invoked(app, caller, "qa")
    before = await left_behind(app, caller)

    with pytest.raises(QueueFull) as refused:
        await invoked(app, caller)

    assert str(refused.value) == snapshot(
        "The queue is full: 2 jobs wait, and 2 may. Wait for some to finish, or cancel one with cancel_persona_job. The limit is DRAMATIS_QUEUE_LENGTH."
    )
    assert await left_behind(app, caller) == before


async def test_only_what_waits_takes_room_in_the_queue(app: App, caller: Caller):
    app = configured(app, queue_length=1)
    cancelled = await invoked(app, caller)
    await using(app, caller, lambda work: cancel_job(work, str(cancelled)))
    await begun(app, caller)

    await invoked(app, caller)

    with pytest.raises(QueueFull):
        await invoked(app, caller)


def test_twenty_jobs_may_wait_by_default():
    assert JobLimits().queue_length == 20


async def test_too_many_in_a_minute_are_refused_with_the_numbers(app: App, caller: Caller):
    app = configured(app, per_minute=2)
    await aged(app, caller, await invoked(app, caller), 61)
    await invoked(app, caller)
    await invoked(app, caller)

    with pytest.raises(TooManyInvocations) as refused:
        await invoked(app, caller)

    assert str(refused.value) == snapshot(
        "There were 2 invocations in the last minute, and 2 may be. Try again in a minute. The limit is DRAMATIS_JOBS_PER_MINUTE."
    )


async def test_a_reset_lets_nobody_invoke_more_often(app: App, caller: Caller):
    app = configured(app, per_minute=2)
    await aged(app, caller, await invoked(app, caller), 61)
    for _ in range(2):
        await using(app, caller, lambda work: reset_jobs(work, confirm=True))
        await invoked(app, caller)
    await using(app, caller, lambda work: reset_jobs(work, confirm=True))

    with pytest.raises(TooManyInvocations):
        await invoked(app, caller)


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        (
            {"run_tokens": 1000, "day_tokens": 3500},
            snapshot(
                "architect may spend 3,500 tokens a day; 0 tokens are spent, 3,000 tokens are set aside for runs that are not over, and a run may take 1,000 tokens. Wait until tomorrow (UTC) or for runs to end, or raise DRAMATIS_PERSONA_DAY_TOKENS or lower DRAMATIS_RUN_TOKENS."
            ),
        ),
        (
            {"run_usd": 0.5, "day_usd": 1.6},
            snapshot(
                "architect may spend $1.60 a day; $0.00 are spent, $1.50 are set aside for runs that are not over, and a run may take $0.50. Wait until tomorrow (UTC) or for runs to end, or raise DRAMATIS_PERSONA_DAY_USD or lower DRAMATIS_RUN_USD."
            ),
        ),
    ],
)
async def test_of_five_at_once_as_many_pass_as_the_day_has_for_them(
    own_app: App, limits: dict[str, Any], sentence: str
):
    app, caller = configured(own_app, **limits), operator(own_app)
    passed: list[object] = []
    refused: list[str] = []

    async def invoke() -> None:
        try:
            passed.append(await invoked(app, caller))
        except BudgetExhausted as error:
            refused.append(str(error))

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(invoke)

    assert (len(passed), refused) == (3, [sentence] * 2)
    assert await left_behind(app, caller) == {
        "jobs": 3,
        "deliveries": 3,
        "acts": 3,
        "set aside": 1,
    }


async def test_of_five_at_once_as_many_pass_as_the_queue_has_room_for(own_app: App):
    app, caller = configured(own_app, queue_length=2), operator(own_app)
    refused: list[str] = []

    async def invoke() -> None:
        try:
            await invoked(app, caller)
        except QueueFull as error:
            refused.append(error.args[0])

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(invoke)

    assert refused == ["The queue is full: 2 jobs wait, and 2 may."] * 3


async def test_a_personas_budget_is_its_own(app: App, caller: Caller):
    app = configured(app, run_tokens=1000, day_tokens=1000)
    await invoked(app, caller)

    await invoked(app, caller, "qa")

    with pytest.raises(BudgetExhausted):
        await invoked(app, caller)


async def test_what_a_run_spent_is_not_there_for_the_next(app: App, caller: Caller):
    app = configured(app, run_tokens=1000, day_tokens=1500)
    run = await spending(app, caller)
    await ended(run, "complete", result="Fine.")

    with pytest.raises(BudgetExhausted) as refused:
        await invoked(app, caller)

    assert str(refused.value) == snapshot(
        "architect may spend 1,500 tokens a day; 540 tokens are spent, 0 tokens are set aside for runs that are not over, and a run may take 1,000 tokens. Wait until tomorrow (UTC) or for runs to end, or raise DRAMATIS_PERSONA_DAY_TOKENS or lower DRAMATIS_RUN_TOKENS."
    )


LATE = Spending(5, 2, Decimal("0.01"), estimated=True)
LIMITS = {"run_tokens": 1000, "day_tokens": 5000, "run_usd": 0.5, "day_usd": 2.0}
SPENT = {
    "runs": 1,
    "input_tokens": 500,
    "output_tokens": 40,
    "usd": 0.25,
    "unpriced": False,
    "reserved_tokens": 0,
    "reserved_usd": 0.0,
}


async def spending(app: App, caller: Caller) -> JobReporting:
    """Begin a run that has spent something."""
    run = await begun(app, caller)
    await run.spent(input_tokens=500, output_tokens=40, usd=0.25)
    return run


async def used(app: App, caller: Caller) -> list[dict[str, Any]]:
    usage = await using(app, caller, persona_usage)
    return [one.model_dump(exclude={"persona", "tokens_limit", "usd_limit"}) for one in usage]


def today() -> str:
    return datetime.now(UTC).date().isoformat()


async def test_what_a_job_may_spend_is_set_aside(app: App, caller: Caller):
    app = configured(app, **LIMITS)
    await invoked(app, caller)

    (usage,) = await using(app, caller, persona_usage)

    assert usage.day == today()
    assert usage.model_dump(exclude={"day"}) == snapshot(
        {
            "persona": "architect",
            "runs": 0,
            "input_tokens": 0,
            "output_tokens": 0,
            "usd": 0.0,
            "unpriced": False,
            "reserved_tokens": 1000,
            "reserved_usd": 0.5,
            "tokens_limit": 5000,
            "usd_limit": 2.0,
        }
    )


async def cancel(work: Work, run: JobReporting) -> None:
    await cancel_job(work, str(run.job_id))


async def reset(work: Work, _: JobReporting) -> None:
    await reset_jobs(work, confirm=True)


async def complete(_: Work, run: JobReporting) -> None:
    await ended(run, "complete", result="Fine.")


async def fail(_: Work, run: JobReporting) -> None:
    await ended(run, "failed", error="No.")


@pytest.mark.parametrize("end", [cancel, reset, complete, fail])
async def test_at_its_end_a_run_gives_back_what_it_did_not_spend(
    app: App, caller: Caller, end: Callable[[Work, JobReporting], Awaitable[None]]
):
    app = configured(app, **LIMITS)
    run = await spending(app, caller)

    await using(app, caller, lambda work: end(work, run))

    assert await used(app, caller) == [{"day": today(), **SPENT}]


@pytest.mark.parametrize("end", [cancel, reset])
async def test_a_job_that_never_ran_spent_nothing(
    app: App, caller: Caller, end: Callable[[Work, JobReporting], Awaitable[None]]
):
    app = configured(app, **LIMITS)
    job = await invoked(app, caller)
    waiting = await begun(app, caller, "qa")

    await using(app, caller, lambda work: end(work, but(waiting, job_id=job)))

    usage = await using(app, caller, persona_usage)
    (architect,) = [one for one in usage if one.persona == "architect"]
    assert (architect.runs, architect.reserved_tokens, architect.reserved_usd) == (0, 0, 0)


async def test_what_ends_together_is_settled_together(app: App, caller: Caller):
    app = configured(app, **LIMITS)
    for _ in range(2):
        await spending(app, caller)
    await invoked(app, caller)

    await using(app, caller, lambda work: reset_jobs(work, confirm=True))

    twice = {"runs": 2, "input_tokens": 1000, "output_tokens": 80, "usd": 0.5}
    assert await used(app, caller) == [{"day": today(), **SPENT, **twice}]


async def test_what_a_cancelled_run_spent_after_that_is_accounted_for(app: App, caller: Caller):
    run = await spending(app, caller)
    await using(app, caller, lambda work: cancel(work, run))

    await using(
        app,
        caller,
        lambda work: spend_late(
            work, run.job_id, run.attempt, "architect", datetime.now(UTC).date(), LATE
        ),
    )

    more = {"input_tokens": 505, "output_tokens": 42, "usd": 0.26}
    assert await used(app, caller) == [{"day": today(), **SPENT, **more}]
    record = await using(app, caller, lambda work: run_record(work, str(run.job_id)))
    assert record.spent.model_dump(exclude={"seconds"}) == {
        "input_tokens": 505,
        "output_tokens": 42,
        "usd": 0.26,
        "estimated": True,
    }


async def test_what_a_lost_run_spent_is_not_the_next_attempts(app: App, caller: Caller):
    lost = await spending(app, caller)
    async with app.work(caller) as work:
        await hand_back(work, lost.job_id, lost.attempt, message="stopped")
    run = await taken(app, caller, lost.job_id)

    async with app.work(caller) as work:
        await spend_late(
            work, lost.job_id, lost.attempt, "architect", datetime.now(UTC).date(), LATE
        )
    await ended(run, "complete", result="Fine.")

    more = {"input_tokens": 505, "output_tokens": 42, "usd": 0.26}
    assert await used(app, caller) == [{"day": today(), **SPENT, **more}]
    record = await using(app, caller, lambda work: run_record(work, str(run.job_id)))
    assert (record.spent.input_tokens, record.spent.estimated) == (500, False)


async def test_a_run_belongs_to_the_day_of_its_invocation(app: App, caller: Caller):
    app = configured(app, **LIMITS)
    job = await invoked(app, caller)
    await yesterday(app, caller)
    await aged(app, caller, job, 86_400)
    await invoked(app, caller)

    run = await taken(app, caller, job)
    await run.spent(input_tokens=500, output_tokens=40, usd=0.25)
    await ended(run, "complete", result="Fine.")

    nothing = dict.fromkeys(SPENT, 0)
    before = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
    assert await used(app, caller) == [
        {"day": today(), **nothing, "reserved_tokens": 1000, "reserved_usd": 0.5},
        {"day": before, **SPENT},
    ]


async def yesterday(app: App, caller: Caller) -> None:
    """Let a night pass for what is set aside."""
    async with app.work(caller) as work:
        await work.session.execute(text("UPDATE dramatis.persona_spending SET day = day - 1"))
        await work.session.execute(text("UPDATE dramatis.persona_jobs SET spent_on = spent_on - 1"))


async def test_a_new_day_has_a_new_budget(app: App, caller: Caller):
    app = configured(app, run_tokens=1000, day_tokens=1000)
    await invoked(app, caller)
    await yesterday(app, caller)

    await invoked(app, caller)

    with pytest.raises(BudgetExhausted):
        await invoked(app, caller)


async def test_usage_covers_as_many_days_as_asked(app: App, caller: Caller):
    await invoked(app, caller)
    await yesterday(app, caller)

    assert await using(app, caller, lambda work: persona_usage(work, days=1)) == []
    assert len(await using(app, caller, lambda work: persona_usage(work, days=2))) == 1


async def test_a_reset_gives_nobody_a_new_budget(app: App, caller: Caller):
    app = configured(app, run_tokens=1000, day_tokens=1500)
    run = await spending(app, caller)

    await using(app, caller, lambda work: reset(work, run))

    with pytest.raises(BudgetExhausted):
        await invoked(app, caller)


WAITING_FOR_LOCKS = "SELECT 1 FROM pg_locks WHERE NOT granted"


async def test_who_invokes_during_a_reset_keeps_the_job_and_what_is_set_aside(own_app: App):
    app, caller = configured(own_app, **LIMITS), operator(own_app)
    first = await invoked(app, caller)
    jobs = Jobs(app)
    second: list[UUID] = []

    async def forget() -> None:
        await using(app, caller, lambda work: reset_jobs(work, confirm=True))

    async def invoke() -> None:
        second.append(await invoked(app, caller))

    async def at(waiting: int) -> None:
        async def so_many() -> bool:
            return bool(second) or len(await jobs.rows(WAITING_FOR_LOCKS)) >= waiting

        await eventually(so_many)

    async with anyio.create_task_group() as tasks, app.work(caller) as work:
        lock = text("SELECT FROM dramatis.persona_jobs WHERE id = :id FOR UPDATE")
        await work.session.execute(lock, {"id": first})
        tasks.start_soon(forget)
        await at(1)
        tasks.start_soon(invoke)
        await at(2)
        assert not second

    assert [job.job_id for job in (await using(app, caller, list_jobs)).jobs] == second
    (usage,) = await used(app, caller)
    assert usage["reserved_tokens"] == 1000
