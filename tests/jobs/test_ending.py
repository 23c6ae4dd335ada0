from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID

import pytest
from dirty_equals import IsUUID
from inline_snapshot import snapshot
from sqlalchemy import text

from server.jobs.queries import NoSuchJob, list_jobs
from server.jobs.record import run_record
from server.jobs.reporting import NotOurs
from server.jobs.service import JobNotRetryable, cancel_job, reset_jobs, retry_job
from server.jobs.shapes import Cancellation, Reset
from server.jobs.statistics import job_statistics
from server.personas.queries import PersonaNotFound
from server.personas.service import PersonaArchived, register_persona, update_persona
from server.work import App, Caller
from tests.conftest import but
from tests.jobs.conftest import (
    TASK,
    aged,
    begun,
    completed,
    ended,
    failed,
    invoked,
    lasted,
    left_behind,
    status_of,
    taken,
    tool,
)
from tests.standards.conftest import audited, using

pytestmark = pytest.mark.anyio

Reach = Callable[[App, Caller], Awaitable[UUID]]

UNKNOWN = UUID(int=1)


async def cancelled(app: App, caller: Caller, job_id: UUID | str) -> Cancellation:
    return await using(app, caller, lambda work: cancel_job(work, str(job_id)))


async def reset(app: App, caller: Caller, *, confirm: bool) -> Reset:
    return await using(app, caller, lambda work: reset_jobs(work, confirm=confirm))


async def test_a_job_that_waits_is_cancelled_and_not_delivered(app: App, caller: Caller):
    job = await invoked(app, caller)

    answer = await cancelled(app, caller, job)

    assert answer.model_dump() == {
        "status": "cancelled",
        "job_id": str(job),
        "partial_result": None,
        "message": "Job cancelled after 0 seconds.",
    }
    assert (await status_of(app, caller, job)).status == "cancelled"
    assert (await left_behind(app, caller))["deliveries"] == 0


async def test_a_job_that_runs_is_cancelled_and_keeps_its_text(app: App, caller: Caller):
    run = await begun(app, caller)
    await run.text("Half of ")
    await run.text("it.")
    await run.write()
    await aged(app, caller, run.job_id, 12)

    answer = await cancelled(app, caller, run.job_id)

    assert answer.model_dump() == {
        "status": "cancelled",
        "job_id": str(run.job_id),
        "partial_result": "Half of it.",
        "message": "Job cancelled after 12 seconds.",
    }


async def test_what_a_worker_says_after_the_end_changes_nothing(app: App, caller: Caller):
    run = await begun(app, caller)
    await run.text("Half.")
    await cancelled(app, caller, run.job_id)
    before = await status_of(app, caller, run.job_id)

    late = await ended(run, "complete", result="Whole.")

    assert late is False
    with pytest.raises(NotOurs):
        await run.progress("generating", 90, "late")
    assert await status_of(app, caller, run.job_id) == before
    assert (before.status, before.model_dump()["partial_result"]) == ("cancelled", "Half.")


@pytest.mark.parametrize("end", [completed, failed])
async def test_what_has_ended_cannot_be_cancelled(app: App, caller: Caller, end: Reach):
    job = await end(app, caller)
    before = await status_of(app, caller, job)

    answer = await cancelled(app, caller, job)

    assert answer.model_dump() == {
        "status": "already_finished",
        "job_id": str(job),
        "partial_result": None,
        "message": f"The job is {before.status} already.",
    }
    assert await status_of(app, caller, job) == before


async def test_cancelling_twice_is_once(app: App, caller: Caller):
    job = await invoked(app, caller)
    await cancelled(app, caller, job)

    assert (await cancelled(app, caller, job)).status == "already_finished"
    acts = [(action, subject) for _, action, subject, _ in await audited(app, caller)]
    assert acts == [("job.invoked", str(job)), ("job.cancelled", str(job))]


@pytest.mark.parametrize("job_id", [str(UNKNOWN), "42", "", "job\0"])
async def test_a_job_that_there_is_not_cannot_be_cancelled(app: App, caller: Caller, job_id: str):
    answer = await cancelled(app, caller, job_id)

    assert answer.model_dump() == {
        "status": "not_found",
        "job_id": job_id,
        "partial_result": None,
        "message": "There is no job with this id; it may have expired. list_persona_jobs has those"
        " there are.",
    }


async def test_a_failed_job_runs_again_as_a_new_one(app: App, caller: Caller):
    earlier = await failed(app, caller, context="def f(): …", priority="high")

    started = await retry_job(app, caller, str(earlier))

    record = await using(app, caller, lambda work: run_record(work, str(started.job_id)))
    assert started.job_id == IsUUID(4)
    assert started.job_id != earlier
    assert record.model_dump(
        include={"status", "persona", "task", "context_bytes", "priority", "retry_of"}
    ) == {
        "status": "pending",
        "persona": "architect",
        "task": TASK,
        "context_bytes": 12,
        "priority": "high",
        "retry_of": earlier,
    }
    assert (await status_of(app, caller, earlier)).status == "failed"


async def test_a_retried_job_has_the_prompt_of_today(app: App, caller: Caller):
    con = await register_persona(app, caller, name="Con", role="Dev", description="Is calm.")
    earlier = await failed(app, caller, con.slug)
    await using(app, caller, lambda work: update_persona(work, con.slug, description="Shouts."))

    started = await retry_job(app, caller, str(earlier))

    record = await using(app, caller, lambda work: run_record(work, str(started.job_id)))
    assert "Shouts." in record.prompt
    assert "Is calm." not in record.prompt


async def test_a_cancelled_job_runs_again(app: App, caller: Caller):
    job = await invoked(app, caller)
    await cancelled(app, caller, job)

    started = await retry_job(app, caller, str(job))

    await taken(app, caller, started.job_id)


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (
            invoked,
            snapshot(
                "The job is pending; only one that failed or was cancelled runs again. Follow it with check_persona_job."
            ),
        ),
        (
            completed,
            snapshot(
                "The job is complete; only one that failed or was cancelled runs again. Invoke the persona anew, with the same task."
            ),
        ),
    ],
)
async def test_only_what_failed_or_was_cancelled_runs_again(
    app: App, caller: Caller, state: Reach, sentence: str
):
    job = await state(app, caller)
    before = await left_behind(app, caller)

    with pytest.raises(JobNotRetryable) as refused:
        await retry_job(app, caller, str(job))

    assert str(refused.value) == sentence
    assert await left_behind(app, caller) == before


async def test_a_job_that_runs_cannot_be_retried(app: App, caller: Caller):
    run = await begun(app, caller)

    with pytest.raises(JobNotRetryable, match=r"The job is running.*check_persona_job"):
        await retry_job(app, caller, str(run.job_id))


@pytest.mark.parametrize("job_id", [str(UNKNOWN), "42"])
async def test_a_job_that_there_is_not_cannot_be_retried(app: App, caller: Caller, job_id: str):
    with pytest.raises(NoSuchJob, match=r"may have expired.*list_persona_jobs"):
        await retry_job(app, caller, job_id)


async def test_the_job_of_a_persona_that_is_archived_now_is_not_retried(app: App, caller: Caller):
    con = await register_persona(app, caller, name="Con", role="Dev")
    job = await failed(app, caller, con.slug)
    await using(app, caller, lambda work: update_persona(work, con.slug, status="archived"))

    with pytest.raises(PersonaArchived):
        await retry_job(app, caller, str(job))


async def test_the_job_of_a_prompt_file_that_is_not_here_is_not_retried(
    app: App, caller: Caller, tmp_path: Path
):
    (tmp_path / "writer.md").write_text(
        "---\nid: writer\nname: Writer\nsummary: For words.\ndomain: documentation\n---\n\nWrite."
    )
    job = await failed(but(app, jobs=but(app.jobs, personas=tmp_path)), caller, "writer")

    with pytest.raises(PersonaNotFound) as refused:
        await retry_job(app, caller, str(job))

    assert str(refused.value) == snapshot(
        "The prompt file of 'writer' is not here. Set DRAMATIS_CORE_PERSONAS to the folder that has it."
    )


async def test_without_confirmation_a_reset_only_says_what_it_would_do(app: App, caller: Caller):
    await invoked(app, caller)
    run = await begun(app, caller)
    await completed(app, caller)
    before = await left_behind(app, caller)

    answer = await reset(app, caller, confirm=False)

    assert answer.model_dump() == snapshot(
        {
            "status": "confirmation_needed",
            "jobs_deleted": 0,
            "space_freed_mb": 0.0,
            "message": "Nothing was done. With confirm=true, 3 jobs and their run records are removed, and running ones are cancelled. That cannot be undone.",
        }
    )
    assert await left_behind(app, caller) == before
    assert (await status_of(app, caller, run.job_id)).status == "running"


async def test_a_reset_cancels_what_has_not_ended_and_forgets_all(app: App, caller: Caller):
    await completed(app, caller)
    await invoked(app, caller)
    run = await begun(app, caller, context="x" * 100_000)

    answer = await reset(app, caller, confirm=True)

    assert answer.model_dump() == snapshot(
        {
            "status": "reset",
            "jobs_deleted": 3,
            "space_freed_mb": 0.01,
            "message": "3 removed, of which 2 had not ended.",
        }
    )
    assert (await status_of(app, caller, run.job_id)).status == "not_found"
    assert (await using(app, caller, list_jobs)).total_count == 0
    assert (await using(app, caller, job_statistics)).total_jobs == 0
    with pytest.raises(NotOurs):
        await run.progress("generating", 50, "late")
    acts = [(action, details) for _, action, _, details in await audited(app, caller)]
    assert acts[-1] == ("jobs.reset", {"deleted": 3, "cancelled": 2, "recent": 3})


async def test_a_reset_takes_steps_and_deliveries_along(app: App, caller: Caller):
    run = await begun(app, caller)
    await run.step(tool("search_standards"))
    await invoked(app, caller)

    await reset(app, caller, confirm=True)

    rows = await left_behind(app, caller)
    assert (rows["jobs"], rows["deliveries"], rows["set aside"]) == (0, 0, 0)
    async with app.work(caller) as work:
        assert await work.session.scalar(text("SELECT count(*) FROM dramatis.job_steps")) == 0


async def test_nothing_to_reset_is_said_as_well(app: App, caller: Caller):
    answer = await reset(app, caller, confirm=True)

    assert answer.model_dump() == snapshot(
        {
            "status": "reset",
            "jobs_deleted": 0,
            "space_freed_mb": 0.0,
            "message": "0 removed, of which 0 had not ended.",
        }
    )


async def test_a_complete_answer_stays_as_it_is(app: App, caller: Caller):
    job = await completed(app, caller)
    await lasted(app, caller, job, 3)
    before = await status_of(app, caller, job)

    await reset(app, caller, confirm=False)

    assert await status_of(app, caller, job) == before
