"""Runs of jobs, one at a time: what they are given, and how they end."""

import logging
from math import inf
from pathlib import Path
from uuid import UUID

import pytest
from dirty_equals import IsFloat
from inline_snapshot import snapshot
from sqlalchemy.exc import DBAPIError

from server.jobs.running import Outcome, Reporting, RunFailed, RunJob, RunThrottled
from server.jobs.shapes import PersonaUsage
from server.personas.service import register_persona, update_persona
from server.work import PERSONA_SCOPES, Caller, Place
from tests.conftest import but, operator
from tests.jobs.executions import LOOKED, answers, run, spent_today, usage
from tests.jobs.workers import Held, Jobs, configured, execution_of

pytestmark = pytest.mark.anyio


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
    assert await usage(jobs) == [
        spent_today(runs=1, input_tokens=7, output_tokens=3, usd=None, unpriced=True)
    ]


async def test_a_day_with_runs_without_a_known_price_says_that_its_cost_is_not_all(jobs: Jobs):
    days: list[PersonaUsage] = []
    for usd in (None, 0.25):

        async def spends(_: RunJob, __: Reporting, usd: float | None = usd) -> Outcome:
            return Outcome("Done.", 10, 5, usd)

        await run(jobs, await jobs.invoke(), spends)
        days += await usage(jobs)

    assert days == [
        spent_today(runs=1, input_tokens=10, output_tokens=5, usd=None, unpriced=True),
        spent_today(runs=2, input_tokens=20, output_tokens=10, usd=0.25, unpriced=True),
    ]


async def test_a_run_that_spent_nothing_has_a_price(jobs: Jobs):
    job = await jobs.invoke()

    async def fails(_: RunJob, __: Reporting) -> Outcome:
        raise RunFailed("There is no such model.")

    await run(jobs, job, fails)

    assert await usage(jobs) == [spent_today(runs=1, input_tokens=0, output_tokens=0, usd=0)]


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
            await reporting.step(LOOKED.model_copy(update={"details": {"found": inf}}))
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
