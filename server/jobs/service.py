"""Invoke personas, and stop, repeat and forget what they do."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from statistics import median
from uuid import uuid4

import anyio
import anyio.to_thread
from sqlalchemy import text

from db.tables import JobRow
from server import audit
from server.access import require
from server.errors import Conflict, Unavailable, parse
from server.jobs.delivering import deliver, position_of
from server.jobs.ending import Ended, end_jobs
from server.jobs.limits import admit, keep_others_out
from server.jobs.prompting import Cast, addressee, cast
from server.jobs.queries import WAITS, job_state, no_such_job, parsed_id, project_id_of, the_job
from server.jobs.shapes import CORE, Cancellation, JobStarted, NewJob, Priority, Reset
from server.jobs.starting import WorkerNotStarted
from server.personas.queries import PersonaNotFound
from server.standards.projects import the_project
from server.work import App, Caller, ModelChoice, Work

# Where a persona has not finished anything yet.
ESTIMATE_S = 60
RECENT = 20


class ModelNotConfigured(Unavailable):
    code = "model_not_configured"


class JobNotRetryable(Conflict):
    code = "job_not_retryable"


async def invoke_persona(
    app: App,
    caller: Caller,
    persona: str,
    task: str,
    *,
    context: str | None = None,
    priority: Priority = "normal",
) -> JobStarted:
    """Put a persona to work in the background, and answer at once.

    Takes no `Work`: a worker is looked for, and started if need be, when the job is committed. The
    job keeps the prompt that the persona has now.

    Args:
        persona: id of a core persona, slug, name, or a text with a mention: its words come before
            those of the task.
        context: text or code that belongs to the task, or paths of files in the project.

    Raises:
        ModelNotConfigured: there is nothing to run it on.
        PersonaNotFound, AmbiguousPersona, PersonaArchived: see `cast`; there is no job then.
        QueueFull, TooManyInvocations, BudgetExhausted: see `admit`.
        Invalid: a value breaks a rule; the context may have 100,000 bytes.
    """
    require(caller, "jobs:write")
    model = _model(app)

    async def invoke(work: Work) -> JobStarted:
        named, words = await addressee(work, persona, task)
        asked = parse(NewJob, persona=named, task=words, context=context, priority=priority)
        who = await cast(work, asked.persona, asked.task)
        return await _started(work, await _enqueue(work, who, asked, model), who)

    return await _with_worker(app, caller, invoke)


async def cancel_job(work: Work, job_id: str) -> Cancellation:
    """Stop a job: what waits never runs, and what runs stops within seconds and keeps its text."""
    require(work.caller, "jobs:write")
    wanted = parsed_id(job_id)
    if wanted is None:
        return _not_cancelled("not_found", job_id, no_such_job())
    ended = await end_jobs(work, [wanted], "cancelled")
    if ended:
        await audit.record(work, "job.cancelled", str(wanted), {"persona": ended[0].persona})
        return _cancelled(ended[0])
    row = await job_state(work, wanted)
    if row is None:
        return _not_cancelled("not_found", job_id, no_such_job())
    return _not_cancelled("already_finished", job_id, f"The job is {row.status} already.")


async def retry_job(app: App, caller: Caller, job_id: str) -> JobStarted:
    """Run a failed or cancelled job again, as a new one with the prompt of today.

    Raises:
        NoSuchJob: there is none with this id (any more).
        JobNotRetryable: it has not ended, or it is complete.
        ModelNotConfigured, PersonaNotFound, QueueFull and so on: see `invoke_persona`.
    """
    require(caller, "jobs:write")
    model = _model(app)

    async def retry(work: Work) -> JobStarted:
        earlier = await the_job(work, parsed_id(job_id))
        if earlier.status not in ("failed", "cancelled"):
            raise JobNotRetryable(
                f"The job is {earlier.status}; only one that failed or was cancelled runs again.",
                hint="Invoke the persona anew, with the same task."
                if earlier.status == "complete"
                else "Follow it with check_persona_job.",
            )
        asked = parse(
            NewJob,
            persona=earlier.persona,
            task=earlier.task,
            context=earlier.context,
            priority=earlier.priority,
        )
        who = await _cast_again(work, earlier)
        return await _started(work, await _enqueue(work, who, asked, model, earlier), who)

    return await _with_worker(app, caller, retry)


async def reset_jobs(work: Work, *, confirm: bool) -> Reset:
    """Cancel what waits and runs, and forget all jobs of this project. What was spent stays known.

    Args:
        confirm: without it nothing happens, and the answer says what would.
    """
    require(work.caller, "jobs:write")
    scope = {"project": await project_id_of(work)}
    if not confirm:
        count = await work.session.scalar(_COUNT, scope)
        return Reset(
            status="confirmation_needed",
            jobs_deleted=0,
            space_freed_mb=0,
            message=f"Nothing was done. With confirm=true, {count} jobs and their run records are"
            " removed, and running ones are cancelled. That cannot be undone.",
        )
    await keep_others_out(work)
    open_ids = (await work.session.scalars(_OPEN, scope)).all()
    cancelled = await end_jobs(work, open_ids, "cancelled")
    deleted = (await work.session.execute(_DELETE, scope)).one()
    await audit.record(
        work,
        "jobs.reset",
        "jobs",
        {"deleted": deleted.jobs, "cancelled": len(cancelled), "recent": deleted.recent},
    )
    return Reset(
        status="reset",
        jobs_deleted=deleted.jobs,
        space_freed_mb=round(deleted.bytes / 1_000_000, 2),
        message=f"{deleted.jobs} removed, of which {len(cancelled)} had not ended.",
    )


async def look_for_worker(app: App, queues: Collection[str] | None = None) -> None:
    """Start a worker on this machine, if that is ours to do and none is here.

    Args:
        queues: where jobs wait; `None` stands for ours.

    Raises:
        WorkerNotStarted: the machine refuses.
    """
    if app.jobs.start_worker is not None:
        await anyio.to_thread.run_sync(app.jobs.start_worker, queues)


async def _with_worker(
    app: App, caller: Caller, enqueue: Callable[[Work], Awaitable[JobStarted]]
) -> JobStarted:
    """Commit a job and look for a worker. The job is there, whatever the machine says."""
    started = None
    # Whoever goes away meanwhile leaves a job all the same, and it needs a worker.
    with anyio.CancelScope(shield=True):
        async with app.work(caller) as work:
            started = await enqueue(work)
        try:
            await look_for_worker(app)
        except WorkerNotStarted as error:
            started = started.model_copy(update={"message": str(error)})
    assert started is not None
    return started


def _model(app: App) -> ModelChoice:
    if app.jobs.model is None:
        raise ModelNotConfigured(
            "No model is configured that a persona could run on.",
            hint="Set DRAMATIS_MODEL (e.g. `anthropic:claude-sonnet-5-5` and ANTHROPIC_API_KEY), or"
            " DRAMATIS_MODEL with DRAMATIS_MODEL_URL for an OpenAI-compatible server, or"
            " DRAMATIS_RUNNER_COMMAND (e.g. `claude -p`). Until then play the persona yourself:"
            " call become_persona with the same persona and task.",
        )
    return app.jobs.model


async def _enqueue(
    work: Work, who: Cast, asked: NewJob, model: ModelChoice, retry_of: JobRow | None = None
) -> JobRow:
    spent_on = await admit(work, who.key)
    limits = work.app.jobs.limits
    project_id, standards_root = await _project(work, retry_of)
    job = JobRow(
        id=uuid4(),
        persona=who.key,
        persona_name=who.name,
        persona_id=who.persona_id,
        project_id=project_id,
        standards_root=standards_root,
        task=asked.task,
        context=asked.context,
        priority=asked.priority,
        prompt=who.prompt,
        trace=who.trace.model_dump(mode="json"),
        runner="command" if model.command else "model",
        model=model.name,
        model_url=model.url,
        requested_by=work.caller.name,
        queue=work.app.jobs.queue,
        spent_on=spent_on,
        retry_of=retry_of.id if retry_of is not None else None,
        tokens_limit=limits.run_tokens,
        usd_limit=limits.run_usd,
        seconds_limit=limits.run_s,
    )
    job.delivery_id = await deliver(work, job.queue, asked.priority)
    work.session.add(job)
    await work.session.flush()
    await audit.record(
        work, "job.invoked", str(job.id), {"persona": who.key, "priority": asked.priority}
    )
    return job


async def _cast_again(work: Work, earlier: JobRow) -> Cast:
    """Find who ran a job, as they are today; somebody else may have a core persona's name by now."""
    if earlier.trace["source"] != "core":
        return await cast(work, earlier.persona, earlier.task)
    try:
        return await cast(work, f"{CORE}{earlier.persona}", earlier.task)
    except PersonaNotFound as error:
        raise PersonaNotFound(
            f"The prompt file of {earlier.persona!r} is not here.",
            hint="Set DRAMATIS_CORE_PERSONAS to the folder that has it.",
        ) from error


async def _project(work: Work, retry_of: JobRow | None) -> tuple[int | None, str]:
    """Say which project a job is for, and where its standards are in it."""
    if retry_of is not None:
        return retry_of.project_id, retry_of.standards_root
    place = work.app.place
    if place is None:
        return None, ""
    return (await the_project(work)).id, place.standards.relative_to(place.root).as_posix()


async def _started(work: Work, job: JobRow, who: Cast) -> JobStarted:
    ahead = await position_of(work, job.id)
    recent: Sequence[float] = (
        await work.session.scalars(_DURATIONS, {"persona": who.key, "recent": RECENT})
    ).all()
    queued = "" if ahead == 1 else f" It is number {ahead} in the queue."
    return JobStarted(
        job_id=job.id,
        persona=who.key,
        estimated_duration_seconds=max(1, round(median(recent))) if recent else ESTIMATE_S,
        poll_command=f'check_persona_job(job_id="{job.id}")',
        message=f"{who.name} works in the background.{queued} {WAITS}",
        trace=who.trace,
    )


def _cancelled(ended: Ended) -> Cancellation:
    return Cancellation(
        status="cancelled",
        job_id=str(ended.id),
        partial_result=ended.partial or None,
        message=f"Job cancelled after {ended.seconds:.0f} seconds.",
    )


def _not_cancelled(status: str, job_id: str, message: str) -> Cancellation:
    return Cancellation.model_validate(
        {"status": status, "job_id": job_id, "partial_result": None, "message": message}
    )


_DURATIONS = text("""
SELECT extract(epoch FROM finished_at - started_at)::float FROM dramatis.persona_jobs
WHERE persona = :persona AND status = 'complete' ORDER BY created_at DESC LIMIT :recent
""")
_COUNT = text("""
SELECT count(*) FROM dramatis.persona_jobs
WHERE project_id IS NOT DISTINCT FROM CAST(:project AS int)
""")
# All are locked before any ends, for then the days of personas are: who accounts for a job that has
# ended locks in this order as well.
_OPEN = text("""
WITH locked AS (
  SELECT id, finished_at FROM dramatis.persona_jobs
  WHERE project_id IS NOT DISTINCT FROM CAST(:project AS int) ORDER BY id FOR UPDATE
)
SELECT id FROM locked WHERE finished_at IS NULL
""")
_DELETE = text("""
WITH deleted AS (
  DELETE FROM dramatis.persona_jobs job
  WHERE project_id IS NOT DISTINCT FROM CAST(:project AS int) AND finished_at IS NOT NULL
  RETURNING created_at, pg_column_size(job.*) + (
    SELECT coalesce(sum(pg_column_size(step.*)), 0) FROM dramatis.job_steps step
    WHERE step.job_id = job.id
  ) AS bytes
)
SELECT count(*) AS jobs, coalesce(sum(bytes), 0) AS bytes,
  count(*) FILTER (WHERE created_at > clock_timestamp() - interval '1 minute') AS recent
FROM deleted
""")
