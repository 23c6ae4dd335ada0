"""Who runs a job, and until when they count as alive.

Every change by a worker names the attempt it was given. A worker that was given up, because it did
not renew its lease, has an old one, and changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from sqlalchemy import text

from server.jobs.delivering import TURN, deliver, position_of
from server.jobs.ending import Spending, end_jobs
from server.jobs.shapes import Priority, RunnerKind
from server.work import Work

LEASE = timedelta(seconds=30)
# A job that takes its worker down every time must not do so for ever.
MOST_LOSSES = 3
LOST = (
    "The worker that ran it died, three times: the job may be what kills it, for example by taking"
    " all memory."
)
# Before the first of those that wait is offered again, where it could not run yet.
PAUSE = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a worker does what it does all the time. Tests are in more of a hurry.

    Attributes:
        lease: how long a worker counts as alive that says nothing.
        beat_s: between two renewals of leases.
        sweep_s: between two looks for jobs of dead workers.
        poll_s: between two looks for jobs whose time has come; of new ones notices tell at once.
        ending_s: how long the end of a run is tried to be written while the database is away.
        clean_s: between two looks whether old jobs are to be removed.
    """

    lease: timedelta = LEASE
    beat_s: float = 2
    sweep_s: float = 10
    poll_s: float = 0.3
    ending_s: float = 60
    clean_s: float = 3600


@dataclass(frozen=True, slots=True)
class Claimed:
    """A job as the worker has to know it that is to run it.

    Attributes:
        input_tokens, output_tokens, usd, spend_estimated: what earlier attempts spent.
        root, host: where its project is; `None` where it has none.
        put_off: whether deliveries of others were put off, for want of room.
    """

    id: UUID
    attempt: int
    persona: str
    prompt: str
    task: str
    context: str | None
    throttles: int
    runner: RunnerKind
    model: str
    model_url: str | None
    tokens_limit: int
    usd_limit: Decimal | None
    seconds_limit: float
    spent_on: date
    input_tokens: int
    output_tokens: int
    usd: Decimal | None
    spend_estimated: bool
    standards_root: str
    root: str | None
    host: str | None
    put_off: bool

    @property
    def spent(self) -> Spending:
        return Spending(self.input_tokens, self.output_tokens, self.usd, self.spend_estimated)


async def claim(
    work: Work, delivery_id: int, worker: str, lease: timedelta = LEASE
) -> Claimed | None:
    """Take the job whose turn it is, of those in the queue of the one that was delivered.

    The two change their deliveries where they are not the same, so that each job that waits keeps
    one that comes. Nothing is taken on a delivery that was replaced or whose job was cancelled.
    Where no job may run now, because of how many do already or because its time has not come, it is
    delivered again later.
    """
    await work.session.execute(_LOCK, {"tenant": work.caller.tenant_id})
    values = {"delivery": delivery_id, "worker": worker, "lease": lease, **_limits(work)}
    while True:
        row = (await work.session.execute(_CLAIM, values)).mappings().one_or_none()
        if row is None:
            return None
        if row["best"] is None:
            await _deliver_again(work, row["holder"], delivery_id)
            return None
        # Otherwise one of the two was cancelled or delivered anew at this moment.
        if row["id"] is not None:
            claimed = Claimed(**{column.name: row[column.name] for column in fields(Claimed)})
            if claimed.put_off:
                await call_next(work)
            return claimed


async def call_next(work: Work) -> None:
    """Have a delivery that was put off come at once, for each queue where a job may run now."""
    await work.session.execute(_CALL_NEXT, _limits(work))


async def renew(work: Work, attempts: Mapping[UUID, int], lease: timedelta = LEASE) -> set[UUID]:
    """Say that these runs are alive, and return those that are still this worker's."""
    rows = await work.session.execute(
        _RENEW, {"ids": [*attempts], "attempts": [*attempts.values()], "lease": lease}
    )
    return set(rows.scalars())


async def hand_back(
    work: Work,
    job_id: UUID,
    attempt: int,
    *,
    run_after: datetime | None = None,
    throttled: bool = False,
    message: str,
) -> None:
    """Put a job that this worker runs back into the queue, unless it is not its any more."""
    values = {
        "id": job_id,
        "attempt": attempt,
        "run_after": run_after,
        "throttled": int(throttled),
        "message": message,
    }
    back = (await work.session.execute(_HAND_BACK, values)).one_or_none()
    if back is not None:
        await _redeliver(work, job_id, back.queue, back.priority, run_after)


async def lost_jobs(work: Work) -> list[UUID]:
    """List the jobs of the tenant whose worker has not renewed its lease."""
    return [*await work.session.scalars(_UNRENEWED)]


async def take_over(work: Work, job_ids: Sequence[UUID]) -> list[UUID]:
    """Deliver jobs again whose worker is gone, and give up those that lost too many.

    Returns:
        Those that wait again.
    """
    lost = (await work.session.execute(_LOST, {"ids": [*job_ids]})).all()
    given_up = [row.id for row in lost if row.losses + 1 >= MOST_LOSSES]
    await end_jobs(work, given_up, "failed", error=LOST, error_code="worker_lost")
    again = [row for row in lost if row.id not in given_up]
    for row in again:
        await work.session.execute(_WAIT_AGAIN, {"id": row.id})
        await _redeliver(work, row.id, row.queue, row.priority)
    return [row.id for row in again]


async def deliver_orphans(work: Work, delivery_ids: Sequence[int]) -> None:
    """Replace deliveries whose fetcher died before it claimed a job, and drop finished ones.

    A job that waits and has no delivery, for whatever reason, gets one as well.
    """
    unclaimed = (await work.session.execute(_UNCLAIMED, {"ids": [*delivery_ids]})).all()
    for row in unclaimed:
        await _redeliver(work, row.id, row.queue, row.priority)
    await work.session.execute(_DROP, {"ids": [*delivery_ids]})


async def _deliver_again(work: Work, job_id: UUID, delivery_id: int) -> None:
    # The further behind a job is, the later: any delivery is good for the first one, and twenty
    # jobs together come a few times in a second.
    pause = PAUSE * await position_of(work, job_id)
    waiting = (
        await work.session.execute(
            _WAITING, {"id": job_id, "delivery": delivery_id, "pause": pause}
        )
    ).one_or_none()
    if waiting is None:
        # Cancelled meanwhile, or delivered anew.
        return
    await _redeliver(work, job_id, waiting.queue, waiting.priority, waiting.again)


async def _redeliver(
    work: Work, job_id: UUID, queue: str, priority: Priority, run_after: datetime | None = None
) -> None:
    delivery_id = await deliver(work, queue, priority, run_after)
    await work.session.execute(_REDELIVERED, {"id": job_id, "delivery": delivery_id})


def _limits(work: Work) -> dict[str, int]:
    limits = work.app.jobs.limits
    return {"running": limits.running, "per_persona": limits.running_per_persona}


_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('dramatis.claims'), :tenant)")
# Which pending jobs may run now.
_MAY_RUN = """
job.status = 'pending' AND (job.run_after IS NULL OR job.run_after <= clock_timestamp())
  AND (SELECT count(*) FROM dramatis.persona_jobs WHERE status = 'running') < :running
  AND job.persona <> ALL (SELECT persona FROM dramatis.persona_jobs
    WHERE status = 'running' GROUP BY persona HAVING count(*) >= :per_persona)
"""
# The two are locked in the order in which everybody locks jobs.
_CLAIM = text(
    f"""
WITH turn AS MATERIALIZED (
  SELECT id AS holder, (
    SELECT job.id FROM dramatis.persona_jobs job WHERE job.queue = holder.queue AND {_MAY_RUN}
    ORDER BY {TURN} LIMIT 1
  ) AS best
  FROM dramatis.persona_jobs holder WHERE status = 'pending' AND delivery_id = :delivery
), waiting AS (
  SELECT id, delivery_id FROM dramatis.persona_jobs job
  WHERE id = ANY (ARRAY(SELECT unnest(ARRAY[holder, best]) FROM turn)) AND status = 'pending'
  ORDER BY id FOR UPDATE
), tickets AS (
  SELECT turn.holder, turn.best, best.delivery_id AS other FROM turn
  JOIN waiting holder ON holder.id = turn.holder AND holder.delivery_id = :delivery
  JOIN waiting best ON best.id = turn.best
), passed_on AS (
  UPDATE dramatis.persona_jobs job SET delivery_id = tickets.other FROM tickets
  WHERE job.id = tickets.holder AND tickets.holder <> tickets.best
), claimed AS (
  UPDATE dramatis.persona_jobs job SET
    status = 'running', attempt = attempt + 1, worker = :worker, run_after = NULL,
    delivery_id = :delivery, phase = 'initializing', message = 'starting',
    started_at = coalesce(started_at, clock_timestamp()),
    lease_until = clock_timestamp() + :lease
  FROM tickets WHERE job.id = tickets.best
  RETURNING job.id, attempt, persona, prompt, task, context, throttles, runner, model,
    model_url, tokens_limit, usd_limit, seconds_limit, spent_on, input_tokens,
    output_tokens, usd, spend_estimated, standards_root,
    (SELECT root FROM dramatis.projects WHERE id = job.project_id) AS root,
    (SELECT host FROM dramatis.projects WHERE id = job.project_id) AS host,
    EXISTS (SELECT FROM procrastinate_jobs
      WHERE status = 'todo' AND scheduled_at > clock_timestamp()) AS put_off
)
SELECT * FROM turn LEFT JOIN claimed ON true
"""  # noqa: S608  # of texts of our own
)
_CALL_NEXT = text(
    f"""
WITH put_off AS (
  SELECT id FROM procrastinate_jobs WHERE status = 'todo' AND scheduled_at > clock_timestamp()
    AND id = ANY (ARRAY(
      SELECT DISTINCT ON (job.queue) job.delivery_id FROM dramatis.persona_jobs job
      WHERE {_MAY_RUN} ORDER BY job.queue, {TURN}
    ))
  FOR UPDATE SKIP LOCKED
)
UPDATE procrastinate_jobs SET scheduled_at = NULL FROM put_off
WHERE procrastinate_jobs.id = put_off.id
"""  # noqa: S608  # of texts of our own
)
_RENEW = text("""
WITH mine AS (
  SELECT job.id FROM dramatis.persona_jobs job
  JOIN unnest(CAST(:ids AS uuid[]), CAST(:attempts AS int[])) mine (id, attempt)
    ON job.id = mine.id AND job.attempt = mine.attempt
  WHERE job.status = 'running' ORDER BY job.id FOR UPDATE OF job
)
UPDATE dramatis.persona_jobs job SET lease_until = clock_timestamp() + :lease
FROM mine WHERE job.id = mine.id RETURNING job.id
""")
_HAND_BACK = text("""
UPDATE dramatis.persona_jobs SET
  status = 'pending', lease_until = NULL, worker = NULL, run_after = :run_after,
  throttles = throttles + :throttled, message = :message
WHERE id = :id AND attempt = :attempt AND status = 'running' RETURNING queue, priority
""")
_UNRENEWED = text("""
SELECT id FROM dramatis.persona_jobs WHERE status = 'running' AND lease_until < clock_timestamp()
""")
_LOST = text("""
SELECT id, losses, queue, priority FROM dramatis.persona_jobs
WHERE id = ANY(CAST(:ids AS uuid[])) AND status = 'running' AND lease_until < clock_timestamp()
ORDER BY id FOR UPDATE SKIP LOCKED
""")
_WAIT_AGAIN = text("""
UPDATE dramatis.persona_jobs SET
  status = 'pending', lease_until = NULL, worker = NULL, losses = losses + 1,
  message = 'its worker died; waiting for another'
WHERE id = :id
""")
_WAITING = text("""
SELECT queue, priority, CASE WHEN run_after > clock_timestamp() THEN run_after
  ELSE clock_timestamp() + :pause END AS again
FROM dramatis.persona_jobs
WHERE id = :id AND status = 'pending' AND delivery_id = :delivery FOR UPDATE
""")
_REDELIVERED = text("UPDATE dramatis.persona_jobs SET delivery_id = :delivery WHERE id = :id")
_UNCLAIMED = text("""
SELECT id, queue, priority FROM dramatis.persona_jobs
WHERE status = 'pending' AND (
  delivery_id = ANY(CAST(:ids AS bigint[]))
  OR delivery_id NOT IN (SELECT id FROM procrastinate_jobs)
)
ORDER BY id FOR UPDATE SKIP LOCKED
""")
# A claim that passes a delivery on, and is not committed, had to be skipped above: it is spared.
_DROP = text("""
DELETE FROM procrastinate_jobs WHERE id = ANY(CAST(:ids AS bigint[])) AND NOT EXISTS (
  SELECT FROM dramatis.persona_jobs job
  WHERE job.delivery_id = procrastinate_jobs.id AND job.status IN ('pending', 'running')
)
""")
