"""Numbers about jobs, and about what personas spent."""

from sqlalchemy import text

from server.jobs.retention import next_cleanup, recommended
from server.jobs.shapes import PersonaUsage, Statistics
from server.work import Work


async def job_statistics(work: Work) -> Statistics:
    """Count the jobs of the tenant, and say when the next clean-up is due and whether it presses.

    The size is that of what the tenant has stored. What removed jobs took is not in it, although
    the database keeps that room for those to come.
    """
    row = (await work.session.execute(_STATISTICS)).one()
    size_mb = float(row.size) / 1_000_000
    return Statistics(
        database_size_mb=round(size_mb, 2),
        total_jobs=sum(row.by_status.values()),
        jobs_by_status=row.by_status,
        oldest_job_days=round(row.oldest / 86_400, 2) if row.oldest is not None else None,
        next_cleanup=await next_cleanup(work),
        cleanup_recommendation=recommended(size_mb),
    )


async def persona_usage(work: Work, *, days: int = 7) -> list[PersonaUsage]:
    """List what personas spent on each of the last days, and what is set aside, newest first."""
    limits = work.app.jobs.limits
    rows = await work.session.execute(_USAGE, {"days": days})
    return [
        PersonaUsage(
            persona=row.persona,
            day=row.day.isoformat(),
            runs=row.runs,
            input_tokens=row.input_tokens,
            output_tokens=row.output_tokens,
            usd=float(row.usd) if row.usd or not row.unpriced else None,
            unpriced=row.unpriced,
            reserved_tokens=row.reserved_tokens,
            reserved_usd=float(row.reserved_usd),
            tokens_limit=limits.day_tokens,
            usd_limit=limits.day_usd,
        )
        for row in rows
    ]


_STATISTICS = text("""
SELECT
  (SELECT coalesce(sum(pg_column_size(job.*)), 0) FROM dramatis.persona_jobs job)
    + (SELECT coalesce(sum(pg_column_size(step.*)), 0) FROM dramatis.job_steps step) AS size,
  (SELECT coalesce(jsonb_object_agg(status, count), '{}') FROM (
    SELECT status, count(*) FROM dramatis.persona_jobs GROUP BY status) counted) AS by_status,
  (SELECT extract(epoch FROM clock_timestamp() - min(created_at))::float
    FROM dramatis.persona_jobs) AS oldest
""")
_USAGE = text("""
SELECT * FROM dramatis.persona_spending
WHERE day > (clock_timestamp() AT TIME ZONE 'UTC')::date - CAST(:days AS int)
ORDER BY day DESC, persona
""")
