"""What became of jobs: their state now, and lists of them."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, SQLColumnExpression, func, select, text
from sqlalchemy.orm import defer
from sqlalchemy.sql.base import ExecutableOption

from db.tables import JobRow
from server.errors import Conflict, NotFound, parse
from server.jobs.delivering import position_of
from server.jobs.shapes import (
    CORE,
    JobCancelled,
    JobComplete,
    JobFailed,
    JobListing,
    JobNotFound,
    JobPending,
    JobQuery,
    JobRunning,
    JobStatus,
    ListedJob,
    Progress,
    State,
    TokensUsed,
)
from server.specs.trace import Trace
from server.standards.projects import find_project
from server.work import Work

WAITS = "Go on with other things and check it now and then; the result waits for you."
# A worker that was started for the job is there by then.
LONG_WAIT_S = 10
NO_WORKER = (
    "no worker is running. Start one with `dramatis worker`; one that was started for this job and"
    " died says why in the logs in the folder `workers` of the data root"
)
# A task in a list is there to be recognised.
TASK_SHOWN = 200
SHORTEST_ID = 4
FITTING_NAMED = 10


class NoSuchJob(NotFound):
    code = "job_not_found"


class AmbiguousJob(Conflict):
    code = "ambiguous_job"


async def check_job(work: Work, job_id: str) -> JobStatus:
    """Say how a job is. One that is unknown, malformed or another tenant's is `not_found`."""
    wanted = parsed_id(job_id)
    row = await job_state(work, wanted)
    if row is None:
        return JobNotFound(job_id=job_id[:200], message=no_such_job())
    match row.status:
        case "pending":
            return await _pending(work, row)
        case "running":
            return await _running(work, row)
        case "complete":
            return JobComplete(
                job_id=row.id,
                persona=row.persona,
                result=row.result or "",
                duration_seconds=seconds_of(row),
                tool_calls_made=row.tool_calls,
                tokens_used=TokensUsed(input=row.input_tokens, output=row.output_tokens),
                trace=Trace.model_validate(row.trace),
            )
        case "failed":
            return JobFailed(
                job_id=row.id,
                persona=row.persona,
                error=row.error or "",
                partial_result=row.partial or None,
                elapsed_seconds=seconds_of(row),
            )
        case _:
            return JobCancelled(
                job_id=row.id,
                persona=row.persona,
                partial_result=row.partial or None,
                elapsed_seconds=seconds_of(row),
            )


async def list_jobs(
    work: Work, *, status: State | None = None, persona: str | None = None, limit: int = 10
) -> JobListing:
    """List the jobs of this project, newest first.

    Args:
        persona: id of a core persona, slug, or name; `core:qa` is the core persona alone.

    Raises:
        Invalid: a value breaks a rule.
    """
    asked = parse(JobQuery, status=status, persona=persona, limit=limit)
    here = JobRow.project_id.is_not_distinct_from(await project_id_of(work))
    wanted = [here]
    if asked.status is not None:
        wanted.append(JobRow.status == asked.status)
    if asked.persona is not None:
        name = asked.persona.removeprefix("@").lower()
        core = name.removeprefix(CORE)
        if core != name:
            wanted.append(JobRow.trace["source"].astext == "core")
        wanted.append(
            (func.lower(JobRow.persona) == core) | (func.lower(JobRow.persona_name) == core)
        )
    rows = await work.session.execute(
        select(*_LISTED)
        .where(*wanted)
        .order_by(JobRow.created_at.desc(), JobRow.id)
        .limit(asked.limit)
    )
    count = select(func.count()).select_from(JobRow)
    return JobListing(
        jobs=[_listed(row) for row in rows],
        total_count=await work.session.scalar(count.where(here)) or 0,
        filtered_count=await work.session.scalar(count.where(*wanted)) or 0,
    )


def parsed_id(job_id: str) -> UUID | None:
    """Read a job's id; what is none names no job."""
    try:
        return UUID(job_id.strip())
    except ValueError:
        return None


async def find_job(work: Work, start: str) -> UUID:
    """Find the job of this tenant whose id begins so; at least 4 characters say which.

    Raises:
        NoSuchJob: none does.
        AmbiguousJob: several do; the hint lists them, newest first.
    """
    digits = start.strip().replace("-", "").lower()
    if not re.fullmatch(f"[0-9a-f]{{{SHORTEST_ID},32}}", digits):
        raise NoSuchJob(
            "That is no id of a job, nor the first characters of one.",
            hint=f"{SHORTEST_ID} or more are needed. list_persona_jobs has those there are.",
        )
    first, last = UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))
    fitting = (
        await work.session.execute(
            select(JobRow.id, JobRow.persona, JobRow.status)
            .where(JobRow.id.between(first, last))
            .order_by(JobRow.created_at.desc(), JobRow.id)
            .limit(FITTING_NAMED)
        )
    ).all()
    if not fitting:
        raise _job_not_found()
    if len(fitting) > 1:
        listed = ", ".join(f"{row.id} ({row.persona}, {row.status})" for row in fitting)
        raise AmbiguousJob("Several jobs have ids that begin so.", hint=f"Say which: {listed}.")
    return fitting[0].id


def no_such_job() -> str:
    return str(_job_not_found())


async def the_job(work: Work, job_id: UUID | None) -> JobRow:
    """Read a job of this tenant.

    Raises:
        NoSuchJob: there is none.
    """
    row = await _job(work, job_id)
    if row is None:
        raise _job_not_found()
    return row


async def job_state(work: Work, job_id: UUID | None) -> JobRow | None:
    """Read a job without what it was invoked with, which is large and never changes."""
    return await _job(work, job_id, *_INVOKED_WITH)


async def _job(work: Work, job_id: UUID | None, *options: ExecutableOption) -> JobRow | None:
    if job_id is None:
        return None
    query = select(JobRow).where(JobRow.id == job_id).options(*options)
    return await work.session.scalar(query.execution_options(populate_existing=True))


def _job_not_found() -> NoSuchJob:
    return NoSuchJob(
        "There is no job with this id; it may have expired.",
        hint="list_persona_jobs has those there are.",
    )


async def project_id_of(work: Work) -> int | None:
    """Find the project whose jobs are meant: none where this was not started in one."""
    if work.app.place is None:
        return None
    project = await find_project(work)
    # A project that nothing is known of has no jobs, and must not show those of no project.
    return project.id if project is not None else -1


async def _pending(work: Work, row: JobRow) -> JobPending:
    position = await position_of(work, row.id)
    waiting = row.message or ("next in the queue" if position == 1 else f"number {position}")
    if row.run_after is not None:
        again = row.run_after.astimezone(UTC)
        day = "" if again.date() == datetime.now(UTC).date() else f"{again:%Y-%m-%d} "
        waiting = f"{waiting}; tried again at {day}{again:%H:%M:%S} UTC"
    elapsed = seconds_of(row)
    if elapsed > LONG_WAIT_S and not await work.session.scalar(_ANY_WORKER):
        waiting = NO_WORKER
    return JobPending(
        job_id=row.id,
        persona=row.persona,
        position=position,
        elapsed_seconds=elapsed,
        message=f"Waiting: {waiting}.",
    )


async def _running(work: Work, row: JobRow) -> JobRunning:
    elapsed = seconds_of(row)
    # What has hardly begun says nothing about its end.
    known = row.percent >= 10 and elapsed >= 1
    eta = round(elapsed * (100 - row.percent) / row.percent) if known else None
    return JobRunning(
        job_id=row.id,
        persona=row.persona,
        progress=Progress.model_validate(
            {
                "phase": row.phase,
                "percent_complete": row.percent,
                "message": row.message,
                "eta_seconds": eta,
                "tool_calls_completed": row.tool_calls,
            }
        ),
        elapsed_seconds=elapsed,
        partial_result=row.partial,
    )


def _listed(row: Row[*tuple[Any, ...]]) -> ListedJob:
    return ListedJob(
        job_id=row.job_id,
        persona=row.persona,
        status=row.status,
        task=f"{row.task[: TASK_SHOWN - 1]}…" if row.cut else row.task,
        created_at=row.created_at,
        duration_seconds=seconds_of(row) if row.started_at is not None else None,
    )


def seconds_of(row: JobRow | Row[*tuple[Any, ...]]) -> float:
    """Measure how long a job runs or ran; how long it waits or waited where it never began."""
    began = row.started_at or row.created_at
    ended = row.finished_at or datetime.now(UTC)
    return round(max(0.0, (ended - began).total_seconds()), 1)


_INVOKED_WITH = [
    defer(column, raiseload=True) for column in (JobRow.task, JobRow.context, JobRow.prompt)
]
_LISTED: Sequence[SQLColumnExpression[Any]] = (
    JobRow.id.label("job_id"),
    JobRow.persona,
    JobRow.status,
    JobRow.created_at,
    JobRow.started_at,
    JobRow.finished_at,
    func.left(JobRow.task, TASK_SHOWN).label("task"),
    (func.length(JobRow.task) > TASK_SHOWN).label("cut"),
)
# A worker gives a sign every 10 seconds. What the queue knows of it others remove where it was cut
# off for a while; what it runs is its own until the lease is over.
_ANY_WORKER = text("""
SELECT EXISTS (SELECT FROM procrastinate_workers
  WHERE last_heartbeat > clock_timestamp() - interval '45 seconds')
OR EXISTS (SELECT FROM dramatis.persona_jobs
  WHERE status = 'running' AND lease_until > clock_timestamp())
""")
