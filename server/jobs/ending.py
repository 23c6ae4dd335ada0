"""End jobs, once, and give back what was set aside for them and not spent."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Literal
from uuid import UUID

from sqlalchemy import Row, text

from server.jobs.delivering import withdraw
from server.jobs.shapes import State, keepable
from server.work import Work


@dataclass(frozen=True, slots=True)
class Ended:
    """A job as it ended."""

    id: UUID
    persona: str
    partial: str
    seconds: float


async def end_jobs(
    work: Work,
    job_ids: Sequence[UUID],
    status: Literal["failed", "cancelled"],
    *,
    error: str | None = None,
    error_code: str | None = None,
) -> list[Ended]:
    """End what has not ended yet, pending or running, and return it.

    A worker that still runs one of them finds that its job is not its own any more, and stops.
    """
    rows = await work.session.execute(
        _END, {"ids": [*job_ids], "status": status, "error": error, "code": error_code}
    )
    ended = rows.all()
    await withdraw(work, [row.delivery_id for row in ended])
    return [_ended(row) for row in ended]


async def finish_job(
    work: Work,
    job_id: UUID,
    attempt: int,
    status: State,
    *,
    result: str | None = None,
    error: str | None = None,
    error_code: str | None = None,
) -> bool:
    """End a job as the worker that runs it; `False` when it is not this worker's any more."""
    rows = await work.session.execute(
        _FINISH,
        {
            "id": job_id,
            "attempt": attempt,
            "status": status,
            "result": None if result is None else keepable(result),
            "error": None if error is None else keepable(error),
            "code": error_code,
        },
    )
    return rows.first() is not None


@dataclass(frozen=True, slots=True)
class Spending:
    """What was spent; `usd` is `None` where no price is known."""

    input_tokens: int = 0
    output_tokens: int = 0
    usd: Decimal | None = None
    estimated: bool = False

    def beyond(self, known: "Spending") -> "Spending":
        """Return what was spent since `known`."""
        return Spending(
            self.input_tokens - known.input_tokens,
            self.output_tokens - known.output_tokens,
            None if self.usd is None else self.usd - (known.usd or 0),
            self.estimated,
        )


async def spend_late(
    work: Work, job_id: UUID, attempt: int, persona: str, day: date, late: Spending
) -> bool:
    """Account for what a run spent that its job's row did not hold when the run lost its job.

    It counts on the persona's day, whatever became of the job since. A job that another worker has,
    or that nobody knows any more, keeps what it says itself, and `False` is returned.
    """
    values = {
        "persona": persona,
        "day": day,
        "input_tokens": late.input_tokens,
        "output_tokens": late.output_tokens,
        "usd": late.usd,
    }
    # The job before the day, as when jobs end.
    rows = await work.session.execute(
        _SPENT_BY_JOB, {**values, "id": job_id, "attempt": attempt, "estimated": late.estimated}
    )
    await work.session.execute(_SPENT_ON_DAY, values)
    return rows.first() is not None


def _ended(row: Row[tuple[object, ...]]) -> Ended:
    return Ended(row.id, row.persona, row.partial, row.seconds)


# What follows is put together from texts of this module alone.
# What a job set aside counts for the day on which it was invoked, and so does what it spent. Days
# are locked in one order, so that two who end several jobs at once do not wait for each other.
_SETTLED = """
, sums AS (
  SELECT persona, spent_on AS day, count(started_at) AS runs,
    sum(tokens_limit) AS tokens_limit, coalesce(sum(usd_limit), 0) AS usd_limit,
    sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
    coalesce(sum(usd), 0) AS usd,
    bool_or(usd IS NULL AND input_tokens + output_tokens > 0) AS unpriced
  FROM ended GROUP BY 1, 2
), turns AS (
  SELECT spending.persona, spending.day FROM dramatis.persona_spending spending
  JOIN sums USING (persona, day) ORDER BY 1, 2 FOR UPDATE OF spending
), settled AS (
  UPDATE dramatis.persona_spending spending SET
    reserved_tokens = greatest(0, spending.reserved_tokens - sums.tokens_limit),
    reserved_usd = greatest(0, spending.reserved_usd - sums.usd_limit),
    runs = spending.runs + sums.runs,
    input_tokens = spending.input_tokens + sums.input_tokens,
    output_tokens = spending.output_tokens + sums.output_tokens,
    usd = spending.usd + sums.usd, unpriced = spending.unpriced OR sums.unpriced
  FROM turns JOIN sums USING (persona, day)
  WHERE spending.persona = turns.persona AND spending.day = turns.day
)
"""
_END = text(
    """
WITH open AS (
  SELECT id FROM dramatis.persona_jobs
  WHERE id = ANY(CAST(:ids AS uuid[])) AND status IN ('pending', 'running')
  ORDER BY id FOR UPDATE
), ended AS (
  UPDATE dramatis.persona_jobs job SET
    status = :status, error = :error, error_code = :code, lease_until = NULL,
    finished_at = clock_timestamp()
  FROM open WHERE job.id = open.id RETURNING job.*
)"""  # noqa: S608  # of texts of our own
    + _SETTLED
    + """
SELECT id, persona, partial, delivery_id,
  extract(epoch FROM finished_at - coalesce(started_at, created_at))::float AS seconds FROM ended
"""
)
_FINISH = text(
    """
WITH ended AS (
  UPDATE dramatis.persona_jobs SET
    status = :status, result = :result, error = :error, error_code = :code, lease_until = NULL,
    percent = CASE WHEN CAST(:status AS text) = 'complete' THEN 100 ELSE percent END,
    finished_at = clock_timestamp()
  WHERE id = :id AND attempt = :attempt AND status = 'running' RETURNING *
)"""  # noqa: S608  # of texts of our own
    + _SETTLED
    + "SELECT id FROM ended"
)
# What is added to a job that has not ended would be settled once more when it does.
_SPENT_BY_JOB = text("""
UPDATE dramatis.persona_jobs SET
  input_tokens = input_tokens + :input_tokens, output_tokens = output_tokens + :output_tokens,
  usd = coalesce(usd + CAST(:usd AS numeric), usd, CAST(:usd AS numeric)),
  spend_estimated = spend_estimated OR :estimated
WHERE id = :id AND attempt = :attempt AND finished_at IS NOT NULL RETURNING id
""")
_SPENT_ON_DAY = text("""
UPDATE dramatis.persona_spending SET
  input_tokens = input_tokens + :input_tokens, output_tokens = output_tokens + :output_tokens,
  usd = usd + coalesce(CAST(:usd AS numeric), 0),
  unpriced = unpriced OR (CAST(:usd AS numeric) IS NULL AND :input_tokens + :output_tokens > 0)
WHERE persona = :persona AND day = :day
""")
