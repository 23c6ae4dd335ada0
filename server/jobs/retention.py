"""Remove old jobs: when it is due at a start of a worker, and once a day."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from server import audit
from server.access import require
from server.jobs.ending import end_jobs
from server.jobs.shapes import Cleaned, Recommendation
from server.work import Work

EVERY = timedelta(days=1)
# Removed in one transaction of a worker's: those who wait for what it has locked do not wait long.
PORTION = 500
EXPIRED = "It waited for a day, and no worker took it: is one running?"


async def clean_jobs(work: Work) -> Cleaned:
    """Remove complete and cancelled jobs after 7 days, failed ones after 30; give up, after a day,
    those that nobody ran. What personas spent is kept.
    """
    require(work.caller, "jobs:write")
    deleted = await _remove_old(work, None)
    await work.session.execute(_REMEMBER)
    return Cleaned(jobs_deleted=deleted, next_cleanup=await next_cleanup(work))


async def clean_if_due(work: Work, most: int = PORTION) -> bool:
    """Do a portion of the same if a day has passed since all was done, and nobody else is at it.

    Returns:
        Whether more is to be done, with the next transaction.
    """
    last = await work.session.scalar(_LAST)
    if last is not None and datetime.now(UTC) < last + EVERY:
        return False
    if not await work.session.scalar(_TRY_LOCK, {"tenant": work.caller.tenant_id}):
        return False
    if await _remove_old(work, most) == most:
        return True
    await work.session.execute(_REMEMBER)
    return False


async def _remove_old(work: Work, most: int | None) -> int:
    # Jobs before the days of personas, as everybody locks them.
    deleted = await work.session.scalar(_DELETE_OLD, {"most": most}) or 0
    waiting = (await work.session.scalars(_WAITED_TOO_LONG)).all()
    await end_jobs(work, waiting, "failed", error=EXPIRED, error_code="job_expired")
    if deleted or waiting:
        details = {"deleted": deleted, "expired": len(waiting)}
        await audit.record(work, "jobs.cleaned", "jobs", details)
    return deleted


async def next_cleanup(work: Work) -> datetime:
    last = await work.session.scalar(_LAST)
    return last + EVERY if last is not None else datetime.now(UTC)


def recommended(size_mb: float) -> Recommendation:
    """Say how urgent a clean-up is, by the space that jobs take."""
    if size_mb < 50:
        return "healthy"
    if size_mb < 100:
        return "schedule soon"
    if size_mb < 150:
        return "recommended"
    return "urgent"


_TRY_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtext('dramatis.cleanup'), :tenant)")
_LAST = text("SELECT cleaned_at FROM dramatis.job_cleanups")
_REMEMBER = text("""
INSERT INTO dramatis.job_cleanups (cleaned_at) VALUES (clock_timestamp())
ON CONFLICT (tenant_id) DO UPDATE SET cleaned_at = excluded.cleaned_at
""")
# One that has begun waits for its time, or for another worker; one that is locked is being claimed.
_WAITED_TOO_LONG = text("""
SELECT id FROM dramatis.persona_jobs
WHERE status = 'pending' AND started_at IS NULL
  AND created_at < clock_timestamp() - interval '1 day'
ORDER BY id FOR UPDATE SKIP LOCKED
""")
_DELETE_OLD = text("""
WITH old AS (
  SELECT id FROM dramatis.persona_jobs WHERE
    status IN ('complete', 'cancelled') AND finished_at < clock_timestamp() - interval '7 days'
    OR status = 'failed' AND finished_at < clock_timestamp() - interval '30 days'
  ORDER BY id LIMIT CAST(:most AS bigint) FOR UPDATE
), deleted AS (
  DELETE FROM dramatis.persona_jobs job USING old WHERE job.id = old.id RETURNING 1
)
SELECT count(*) FROM deleted
""")
