"""How the answers of the room of jobs look to a person."""

import json
import sys
from collections.abc import Mapping, Sequence
from uuid import UUID

from server.cli.output import fields, moment, table
from server.cli.quoting import columns_of, quoted
from server.cli.standards_views import many
from server.jobs.shapes import (
    Cancellation,
    Cleaned,
    JobComplete,
    JobListing,
    JobPending,
    JobRunning,
    JobStarted,
    JobStatus,
    PersonaUsage,
    ProposalMade,
    Recommendation,
    RunRecord,
    Spent,
    Statistics,
    Step,
)
from server.visible import visible

SHORT_DIGEST = 12
SHORT_ID = 8
DETAILS_SHOWN = 100
PRESSES: Mapping[Recommendation, str] = {
    "healthy": "healthy",
    "schedule soon": "schedule a clean-up soon",
    "recommended": "a clean-up is recommended, `dramatis job clean`",
    "urgent": "a clean-up is urgent, `dramatis job clean`",
}


def short(job_id: UUID | str) -> str:
    """Shorten an id for people; the commands take that."""
    return str(job_id)[:SHORT_ID]


def started(job: JobStarted) -> str:
    one = short(job.job_id)
    return (
        f"Job {job.job_id}: {job.message}\n"
        f"`dramatis job show {one}` shows how it is, `dramatis job tail {one}` follows it."
    )


def goes_on(job_id: str) -> str:
    one = short(job_id)
    return (
        f"The job goes on. `dramatis job show {one}` shows how it is, `dramatis job cancel {one}`"
        " stops it."
    )


def moving(job: JobPending | JobRunning) -> str:
    """Say in a line where a job is that has not ended."""
    if isinstance(job, JobPending):
        return _one_line(f"pending, {job.elapsed_seconds:.0f} s: {job.message}")
    now = job.progress
    left = f", about {now.eta_seconds} s left" if now.eta_seconds is not None else ""
    how = f"{now.percent_complete}% {now.phase}, {job.elapsed_seconds:.0f} s{left}"
    return _one_line(f"{how}: {now.message}" if now.message else how)


def text_of(job: JobStatus) -> str:
    """Return what a persona has said; nothing where the job never began."""
    if isinstance(job, JobComplete):
        return job.result
    return getattr(job, "partial_result", None) or ""


def shown(job: JobStatus, run: RunRecord) -> str:
    """Lay out how a job is or, once it has ended, the record of its run; and what was said."""
    if isinstance(job, JobPending | JobRunning):
        now = {"Job": job.job_id, "Persona": job.persona, "Task": visible(run.task)}
        parts = [fields({**now, "Now": moving(job)})]
    else:
        parts = [fields(_about(run))]
        parts += [_steps(run.steps)] if run.steps else []
        parts += [_proposals(run.proposals)] if run.proposals else []
    if text := text_of(job):
        parts.append("\n".join(quoted(text, columns_of(sys.stdout))))
    return "\n\n".join(parts)


def listed(listing: JobListing) -> str:
    if not listing.jobs:
        if listing.total_count:
            return f"No job fits; there are {listing.total_count:,}."
        return "There are no jobs here. `dramatis invoke` starts one."
    rows = [
        (
            short(one.job_id),
            one.persona,
            one.status,
            one.created_at,
            "" if one.duration_seconds is None else f"{one.duration_seconds:,.0f} s",
            visible(one.task),
        )
        for one in listing.jobs
    ]
    headers = ("ID", "PERSONA", "STATUS", "INVOKED", "TOOK", "TASK")
    shown = f"{len(listing.jobs):,} of {listing.filtered_count:,}"
    fitting = (
        f", {listing.total_count:,} in all" if listing.filtered_count < listing.total_count else ""
    )
    return f"{table(headers, rows, cuttable=('TASK',))}\n\n{shown}{fitting}."


def cancelled(cancellation: Cancellation) -> str:
    if cancellation.partial_result is None:
        return cancellation.message
    kept = f"`dramatis job show {short(cancellation.job_id)}` has what it said until then."
    return f"{cancellation.message} {kept}"


def counted(counts: Statistics) -> str:
    by_status = ", ".join(
        f"{number:,} {status}" for status, number in counts.jobs_by_status.items()
    )
    oldest = counts.oldest_job_days
    return fields(
        {
            "Jobs": f"{counts.total_jobs:,}{f': {by_status}' if by_status else ''}",
            "Oldest": f"{oldest:,.1f} days" if oldest is not None else "none",
            "Size": f"{counts.database_size_mb:,.2f} MB: {PRESSES[counts.cleanup_recommendation]}",
            "Clean-up": f"due {moment(counts.next_cleanup)}",
        }
    )


def cleaned(done: Cleaned) -> str:
    return f"Removed {many(done.jobs_deleted, 'job')}. Next clean-up: {moment(done.next_cleanup)}."


def spent(usage: Sequence[PersonaUsage]) -> str:
    if not usage:
        return "Nobody was invoked in these days."
    rows = [
        (
            one.day,
            one.persona,
            one.runs,
            f"{one.input_tokens:,}",
            f"{one.output_tokens:,}",
            _cost(one),
            _share(f"{one.reserved_tokens:,}", one.reserved_usd),
            _limit(one),
        )
        for one in usage
    ]
    headers = ("DAY", "PERSONA", "RUNS", "IN", "OUT", "USD", "SET ASIDE", "DAY'S LIMIT")
    return table(headers, rows)


def _about(run: RunRecord) -> dict[str, object]:
    """Name everything that is known of a run but its steps and texts."""
    return {
        "Job": run.job_id,
        "Status": run.status,
        "Error": run.error and f"{visible(run.error)} ({run.error_code})",
        "Persona": f"{run.persona} ({visible(run.persona_name)})",
        "Task": visible(run.task),
        "Context": f"{run.context_bytes:,} bytes" if run.context_bytes else None,
        "Asked by": f"{visible(run.requested_by)}, {moment(run.created_at)}, {run.priority} priority",
        "Ran": _ran(run),
        "Retry of": run.retry_of,
        "Spec": _spec(run),
        "Prompt": f"{run.trace.digest[:SHORT_DIGEST]}, --prompt prints it",
        "Ran on": _runner(run),
        "Project": run.project and visible(run.project),
        "Budget": _share(f"{run.budget.tokens:,} tokens", run.budget.usd, run.budget.seconds),
        "Spent": _spent(run.spent),
        "Standards": "\n".join(map(visible, run.standards)) or "none was retrieved",
    }


def _ran(run: RunRecord) -> str:
    if run.started_at is None:
        return "never"
    again = f", attempt {run.attempts}" if run.attempts > 1 else ""
    return f"{moment(run.started_at)}, for {run.spent.seconds:,.1f} s{again}"


def _spec(run: RunRecord) -> str:
    trace = run.trace
    if trace.persona_spec_version is None:
        return f"none: {visible(trace.reason or trace.source)}"
    return f"{trace.persona_spec_version}, {(trace.spec_digest or '')[:SHORT_DIGEST]}"


def _runner(run: RunRecord) -> str:
    what = visible(run.model) if run.runner == "model" else "a command-line agent"
    return f"{what}, unsandboxed" if run.unsandboxed else what


def _spent(spent: Spent) -> str:
    tokens = f"{spent.input_tokens:,} tokens in, {spent.output_tokens:,} out"
    return _share(f"{tokens} (estimated)" if spent.estimated else tokens, spent.usd, spent.seconds)


def _share(tokens: str, usd: float | None, seconds: float | None = None) -> str:
    money = f", ${_usd(usd)}" if usd else ""
    time = f", {seconds:,.1f} s" if seconds is not None else ""
    return f"{tokens}{money}{time}"


def _limit(one: PersonaUsage) -> str:
    tokens = f"{one.tokens_limit:,}" if one.tokens_limit is not None else "no limit"
    return _share(tokens, one.usd_limit)


def _cost(one: PersonaUsage) -> str:
    if one.usd is None:
        return "unknown"
    return f"at least {_usd(one.usd)}" if one.unpriced else _usd(one.usd)


def _usd(usd: float) -> str:
    return f"{usd:,.4f}"


def _steps(steps: Sequence[Step]) -> str:
    rows = [
        (
            f"{one.began_at:%H:%M:%S}",
            one.kind,
            visible(one.name),
            f"{one.duration_ms:,.0f}",
            _happened(one),
        )
        for one in steps
    ]
    return table(("AT (UTC)", "STEP", "NAME", "MS", "DETAILS"), rows, cuttable=("DETAILS",))


def _happened(step: Step) -> str:
    details = json.dumps(dict(step.details), ensure_ascii=False) if step.details else ""
    text = visible(f"failed: {step.error}" if step.error else details)
    return text if len(text) <= DETAILS_SHOWN else f"{text[: DETAILS_SHOWN - 1]}…"


def _proposals(proposals: Sequence[ProposalMade]) -> str:
    rows = [
        (one.proposal_id, visible(one.file), one.status, visible(one.decided_by or ""))
        for one in proposals
    ]
    return table(("PROPOSAL", "FILE", "STATUS", "DECIDED BY"), rows)


def _one_line(text: str) -> str:
    return " ".join(visible(text).split())
