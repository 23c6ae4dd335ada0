"""Runs of jobs, one at a time, each with a runner of the test's own."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import pytest
from dirty_equals import IsFloat, IsNow, IsStr
from inline_snapshot import snapshot
from sqlalchemy.exc import DBAPIError

from server.jobs.delivering import withdraw
from server.jobs.execution import MOST_THROTTLES, Execution
from server.jobs.model_choice import ModelConfig
from server.jobs.models import model_runner
from server.jobs.queries import persona_usage
from server.jobs.reporting import NotOurs
from server.jobs.running import Outcome, Reporting, RunFailed, RunJob, Runner, RunThrottled
from server.jobs.service import reset_jobs
from server.jobs.shapes import PersonaUsage, Step
from server.personas.service import register_persona, update_persona
from server.work import PERSONA_SCOPES, App, Caller, ModelChoice, Place
from tests.conftest import Databases, but, operator
from tests.jobs.model_server import Says, serving_model
from tests.jobs.workers import (
    DEADLINE_S,
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

LOOKED = Step(
    attempt=1,
    kind="tool",
    name="search_standards",
    began_at=datetime(2026, 1, 2, tzinfo=UTC),
    duration_ms=3.5,
    details={"queries": ["retries"]},
)


@pytest.fixture
def jobs(own_app: App) -> Jobs:
    return Jobs(configured(own_app))


async def run(jobs: Jobs, job: str, runner: Runner, execution: Execution | None = None) -> None:
    """Run a job as the worker that its delivery comes to, when it is time."""
    await jobs.execute("UPDATE dramatis.persona_jobs SET run_after = NULL")
    (delivery,) = await jobs.stored(job, "delivery_id")
    await jobs.using(lambda work: withdraw(work, [delivery]))
    execution = execution or execution_of(jobs.app, runner)
    with anyio.fail_after(DEADLINE_S):
        await execution.run(jobs.app.tenant_id, delivery)


async def reset(jobs: Jobs, _: str) -> None:
    await jobs.using(lambda work: reset_jobs(work, confirm=True))


async def usage(jobs: Jobs) -> list[PersonaUsage]:
    return await jobs.using(persona_usage)


def spent_today(**values: object) -> PersonaUsage:
    return PersonaUsage.model_validate(
        {
            "persona": "architect",
            "day": f"{datetime.now(UTC):%Y-%m-%d}",
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


async def test_a_run_that_succeeds_leaves_its_result_what_it_spent_and_what_it_did(jobs: Jobs):
    job = await jobs.invoke()

    await run(jobs, job, answers)

    record = await jobs.record(job)
    assert await jobs.shown(job) == {
        "status": "complete",
        "job_id": job,
        "persona": "architect",
        "result": "Looks good.",
        "duration_seconds": IsFloat(ge=0),
        "tool_calls_made": 1,
        "tokens_used": {"input": 100, "output": 50},
        "trace": record.trace.model_dump(),
    }
    assert (record.steps[-1], record.attempts) == (LOOKED, 1)
    assert record.spent.model_dump(exclude={"seconds"}) == {
        "input_tokens": 100,
        "output_tokens": 50,
        "usd": 0.25,
        "estimated": False,
    }
    assert await jobs.stored(job, "percent", "lease_until", "worker") == (100, None, "here:1")
    assert await usage(jobs) == [spent_today(runs=1, input_tokens=100, output_tokens=50, usd=0.25)]


async def test_a_run_is_given_its_prompt_its_request_and_its_budget(jobs: Jobs):
    job = await jobs.invoke("Look.")
    given: list[RunJob] = []

    async def takes(job: RunJob, reporting: Reporting) -> Outcome:
        given.append(job)
        return Outcome("Done.", 1, 1, None)

    await run(jobs, job, takes)

    (record,) = [await jobs.record(job)]
    (mine,) = given
    assert mine == RunJob(
        id=UUID(job),
        attempt=1,
        persona="architect",
        prompt=record.prompt,
        request="Look.",
        model="test",
        model_url=None,
        tokens_limit=200_000,
        usd_limit=None,
        place=None,
        app=mine.app,
        caller=Caller("agent", "architect", jobs.app.tenant_id, PERSONA_SCOPES),
    )
    assert [step.name for step in record.steps] == ["no_project"]


async def test_a_failed_run_says_why_and_keeps_what_it_said(jobs: Jobs):
    job = await jobs.invoke()

    async def fails(job: RunJob, reporting: Reporting) -> Outcome:
        await reporting.text("So far ")
        await reporting.text("so good")
        await reporting.spent(input_tokens=7, output_tokens=3, usd=None, estimated=True)
        raise RunFailed("The model refused to answer.", hint="Ask otherwise.")

    await run(jobs, job, fails)

    assert await jobs.shown(job) == {
        "status": "failed",
        "job_id": job,
        "persona": "architect",
        "error": "The model refused to answer. Ask otherwise.",
        "partial_result": "So far so good",
        "elapsed_seconds": IsFloat(ge=0),
    }
    assert await jobs.stored(job, "error_code", "spend_estimated") == ("run_failed", True)
    assert await usage(jobs) == [spent_today(runs=1, input_tokens=7, output_tokens=3, usd=0)]


async def test_a_bug_fails_its_job_and_only_the_log_says_more(
    jobs: Jobs, caplog: pytest.LogCaptureFixture
):
    job = await jobs.invoke()

    async def breaks(job: RunJob, reporting: Reporting) -> Outcome:
        raise ZeroDivisionError("by a secret")

    await run(jobs, job, breaks)

    assert await jobs.stored(job, "status", "error", "error_code") == (
        "failed",
        "Something in the worker broke; its log has it.",
        "internal_error",
    )
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "ZeroDivisionError: by a secret" in caplog.text


async def test_what_cannot_be_kept_as_it_is_does_not_keep_a_run_from_its_end(jobs: Jobs):
    well, badly, later = [await jobs.invoke() for _ in range(3)]

    async def answers(job: RunJob, reporting: Reporting) -> Outcome:
        return Outcome("a\0b\ud800", 1, 1, None)

    async def fails(job: RunJob, reporting: Reporting) -> Outcome:
        raise RunFailed("It said \0.")

    async def throttled(job: RunJob, reporting: Reporting) -> Outcome:
        raise RunThrottled("It said \udc00.")

    await run(jobs, well, answers)
    await run(jobs, badly, fails)
    await run(jobs, later, throttled)

    assert await jobs.stored(well, "status", "result") == ("complete", "a�b�")
    assert await jobs.stored(badly, "status", "error") == ("failed", "It said �.")
    assert await jobs.stored(later, "status", "message") == ("pending", "It said �")


async def test_what_cannot_be_kept_at_all_fails_its_job_at_once_and_is_paid_for(
    jobs: Jobs, caplog: pytest.LogCaptureFixture
):
    job = await jobs.invoke()

    async def overflows(job: RunJob, reporting: Reporting) -> Outcome:
        await reporting.text("So far.")
        await reporting.progress("generating", 50, "writing")
        with pytest.raises(DBAPIError):
            await reporting.step(LOOKED.model_copy(update={"attempt": 2**40}))
        return Outcome("Done.", 100, 50, 0.25)

    await run(jobs, job, overflows)

    assert await jobs.stored(job, "status", "error_code", "partial", "result") == (
        "failed",
        "internal_error",
        "So far.",
        None,
    )
    assert f"the end of job {job} cannot be written" in caplog.text
    assert await usage(jobs) == [spent_today(runs=1, input_tokens=100, output_tokens=50, usd=0.25)]


async def test_a_run_that_takes_too_long_is_stopped(jobs: Jobs):
    jobs = Jobs(configured(jobs.app, run_s=1))
    job = await jobs.invoke()
    held = Held()

    await run(jobs, job, held)

    assert await jobs.stored(job, "status", "error", "error_code", "partial") == snapshot(
        (
            "failed",
            "It took longer than 1 seconds, which is the limit. Ask for less at once, or raise DRAMATIS_JOB_S.",
            "run_timed_out",
            "Look. … ",
        )
    )
    assert held.ended == ["Look."]


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


async def test_a_cancelled_job_never_runs(jobs: Jobs):
    job = await jobs.invoke()
    await jobs.cancel(job)
    held = Held()

    await run(jobs, job, held)

    assert (held.began, await jobs.status(job)) == ([], "cancelled")


async def test_a_delivery_that_was_replaced_runs_nothing(jobs: Jobs):
    job = await jobs.invoke()
    (stale,) = await jobs.stored(job, "delivery_id")

    async def throttled(job: RunJob, reporting: Reporting) -> Outcome:
        raise RunThrottled("The model is overloaded.", after_s=0)

    await run(jobs, job, throttled)
    held = Held()
    await execution_of(jobs.app, held).run(jobs.app.tenant_id, stale)

    assert held.began == []
    assert await jobs.stored(job, "status", "attempt") == ("pending", 1)


async def test_an_archived_persona_still_does_what_it_was_asked_before(jobs: Jobs):
    caller = operator(jobs.app)
    persona = await register_persona(jobs.app, caller, name="Con", role="developer")
    job = await jobs.invoke(persona=persona.slug)
    await jobs.using(lambda work: update_persona(work, persona.slug, status="archived"))

    await run(jobs, job, answers)

    assert await jobs.status(job) == "complete"


@pytest.mark.parametrize(
    ("host", "gone", "note"),
    [
        ("", False, None),
        ("elsewhere", False, "project_not_here"),
        ("", True, "project_not_here"),
    ],
)
async def test_a_run_has_the_project_of_its_job_where_it_is(
    jobs: Jobs, tmp_path: Path, *, host: str, gone: bool, note: str | None
):
    root = tmp_path / "project"
    place = Place("", root, root / "docs" / "standards", None)
    if not gone:
        root.mkdir()
    jobs = Jobs(but(jobs.app, place=place))
    job = await jobs.invoke()
    places: list[Place | None] = []

    async def takes(job: RunJob, reporting: Reporting) -> Outcome:
        places.append(job.place)
        return Outcome("Done.", 1, 1, None)

    execution = but(execution_of(jobs.app, takes), host=host)
    await run(jobs, job, takes, execution)

    assert places == [place if note is None else None]
    assert [step.name for step in (await jobs.record(job)).steps] == ([note] if note else [])


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
