"""Runs that are tried again, and what they may still spend."""

from collections.abc import Mapping
from datetime import UTC, timedelta
from typing import Any

import anyio
import pytest
from dirty_equals import IsFloat, IsNow, IsStr
from inline_snapshot import snapshot

from server.jobs.execution import MOST_THROTTLES
from server.jobs.running import Outcome, Reporting, RunJob, RunThrottled
from tests.jobs.executions import answers, run, spent_today, usage
from tests.jobs.workers import Held, Jobs, configured, execution_of

pytestmark = pytest.mark.anyio


async def test_a_throttled_run_waits_and_is_tried_again(jobs: Jobs):
    job = await jobs.invoke()

    async def throttled(job: RunJob, reporting: Reporting) -> Outcome:
        await reporting.spent(input_tokens=30, output_tokens=20, usd=0.5)
        raise RunThrottled("The model is overloaded.")

    for wait_s in (5, 10):
        await run(jobs, job, throttled)
        (run_after,) = await jobs.stored(job, "run_after")
        assert run_after - timedelta(seconds=wait_s) == IsNow(delta=3, tz=UTC)
    waiting = await jobs.shown(job)
    await run(jobs, job, answers)

    assert waiting == {
        "status": "pending",
        "job_id": job,
        "persona": "architect",
        "position": 1,
        "elapsed_seconds": IsFloat(ge=0),
        "message": IsStr(
            regex=r"Waiting: The model is overloaded; tried again at (\S+ )?\d\d:\d\d:\d\d UTC\."
        ),
    }
    assert await jobs.stored(job, "status", "attempt", "throttles") == ("complete", 3, 2)
    assert await usage(jobs) == [spent_today(runs=1, input_tokens=160, output_tokens=90, usd=1.25)]


async def test_who_says_when_to_come_back_is_believed(jobs: Jobs):
    job = await jobs.invoke()

    async def throttled(job: RunJob, reporting: Reporting) -> Outcome:
        raise RunThrottled("The model provider asks to slow down.", after_s=700)

    await run(jobs, job, throttled)

    (run_after,) = await jobs.stored(job, "run_after")
    assert run_after - timedelta(seconds=700) == IsNow(delta=3, tz=UTC)
    assert await jobs.rows(
        "SELECT scheduled_at FROM procrastinate_jobs WHERE status = 'todo'"
        " AND scheduled_at IS NOT NULL"
    ) == [(run_after,)]


@pytest.mark.parametrize("after_s", [0, 1])
async def test_who_wants_to_be_asked_again_at_once_is_not(jobs: Jobs, after_s: float):
    job = await jobs.invoke()

    async def throttled(job: RunJob, reporting: Reporting) -> Outcome:
        raise RunThrottled("The model is overloaded.", after_s=after_s)

    for wait_s in (5, 10):
        await run(jobs, job, throttled)
        (run_after,) = await jobs.stored(job, "run_after")
        assert run_after - timedelta(seconds=wait_s) == IsNow(delta=3, tz=UTC)


@pytest.mark.parametrize(("after_s", "said"), [(901, "901"), (1e14, "100,000,000,000,000")])
async def test_nobody_waits_for_who_wants_to_be_asked_much_later(
    jobs: Jobs, after_s: float, said: str
):
    job = await jobs.invoke()

    async def throttled(job: RunJob, reporting: Reporting) -> Outcome:
        raise RunThrottled("The model provider asks to slow down.", after_s=after_s)

    await run(jobs, job, throttled)

    assert await jobs.stored(job, "status", "error", "error_code") == (
        "failed",
        f"The model provider asks to slow down. It would have to wait {said} seconds, and waits 900"
        " at most.",
        "run_throttled",
    )


async def test_a_run_that_is_always_throttled_fails_at_last(jobs: Jobs):
    job = await jobs.invoke()

    async def throttled(job: RunJob, reporting: Reporting) -> Outcome:
        raise RunThrottled("The model is overloaded.", after_s=0)

    for _ in range(MOST_THROTTLES):
        await run(jobs, job, throttled)

    assert await jobs.stored(job, "status", "attempt", "error", "error_code") == snapshot(
        ("failed", 5, "The model is overloaded. It was tried 5 times.", "run_throttled")
    )


async def test_progress_never_falls_not_even_when_a_job_begins_anew(jobs: Jobs):
    job = await jobs.invoke()

    async def throttled(job: RunJob, reporting: Reporting) -> Outcome:
        await reporting.progress("generating", 80, "writing")
        await reporting.progress("searching", 30, "looking")
        raise RunThrottled("The model is overloaded.", after_s=0)

    held = Held()
    running: list[Mapping[str, Any]] = []
    await run(jobs, job, throttled)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, jobs, job, held)
        await jobs.until_said(job)
        running.append(await jobs.shown(job))
        held.let_go()

    assert running[0] == {
        "status": "running",
        "job_id": job,
        "persona": "architect",
        "progress": {
            "phase": "generating",
            "percent_complete": 80,
            "message": "writing",
            "eta_seconds": running[0]["progress"]["eta_seconds"],
            "tool_calls_completed": 0,
        },
        "elapsed_seconds": IsFloat(ge=0),
        "partial_result": "Look. … ",
    }


async def test_what_earlier_attempts_spent_is_not_there_to_be_spent_again(jobs: Jobs):
    jobs = Jobs(configured(jobs.app, run_tokens=1000, run_usd=2))
    job = await jobs.invoke()
    limits: list[tuple[int, float | None]] = []

    async def throttled(job: RunJob, reporting: Reporting) -> Outcome:
        limits.append((job.tokens_limit, job.usd_limit))
        await reporting.spent(input_tokens=500, output_tokens=200, usd=0.5)
        raise RunThrottled("The model is overloaded.", after_s=0)

    for _ in range(3):
        await run(jobs, job, throttled)

    assert limits == [(1000, 2), (300, 1.5), (0, 1)]


async def test_what_comes_when_the_worker_has_no_time_left_goes_straight_back(jobs: Jobs):
    job = await jobs.invoke()
    held = Held()
    execution = execution_of(jobs.app, held)
    execution.hand_back_all()

    await run(jobs, job, held, execution)

    assert held.began == []
    assert await jobs.stored(job, "status", "attempt", "lease_until") == ("pending", 1, None)
    await run(jobs, job, answers)
    assert await jobs.status(job) == "complete"
