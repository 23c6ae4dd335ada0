"""Hand jobs to the queue and take them back, in the transaction of whoever does it.

A delivery is a ticket: it brings a worker to the queue, and the job whose turn it is gets the
worker. See `leases.claim`.

The queue's own functions are called, and not its library, which the server has no use for. They are
those of procrastinate 3.10; a test holds that its worker gets what is delivered here.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import text

from server.jobs.shapes import Priority
from server.work import Work

TASK = "run_job"
PRIORITIES: Mapping[Priority, int] = {"low": -10, "normal": 0, "high": 10}
# Whose turn it is: priority, then age. An index holds those that wait in this order.
TURN = "array_position(ARRAY['high', 'normal', 'low'], job.priority), job.created_at, job.id"


async def deliver(
    work: Work, queue: str, priority: Priority, run_after: datetime | None = None
) -> int:
    """Put a ticket into the queue; it comes out when this transaction is committed.

    It says nothing but the tenant, for the tables of the queue know none.

    Returns:
        The delivery's number, which a job's row has to carry: one that no row carries is stale.
    """
    delivery = await work.session.execute(
        _DELIVER,
        {
            "queue": queue,
            "task": TASK,
            "priority": PRIORITIES[priority],
            "tenant": work.caller.tenant_id,
            "run_after": run_after,
        },
    )
    return delivery.scalar_one()


async def withdraw(work: Work, delivery_ids: Sequence[int | None]) -> None:
    """Take deliveries back that no worker has fetched yet."""
    await work.session.execute(_WITHDRAW, {"ids": [one for one in delivery_ids if one is not None]})


async def position_of(work: Work, job_id: UUID) -> int:
    """Count where a pending job stands in its queue, among those of its tenant; 1 is next."""
    return await work.session.scalar(_POSITION, {"id": job_id}) or 1


_DELIVER = text("""
SELECT (procrastinate_defer_jobs_v1(ARRAY[ROW(
  :queue, :task, :priority, NULL, NULL,
  jsonb_build_object('tenant_id', CAST(:tenant AS int)),
  CAST(:run_after AS timestamptz)
)::procrastinate_job_to_defer_v1]))[1]
""")
_WITHDRAW = text("""
DELETE FROM procrastinate_jobs WHERE id = ANY(CAST(:ids AS bigint[])) AND status = 'todo'
""")
# Those whose time has not come stand behind the others.
_POSITION = text(
    f"""
SELECT position FROM (
  SELECT id, row_number() OVER (
    ORDER BY coalesce(job.run_after > clock_timestamp(), false), {TURN}
  ) AS position FROM dramatis.persona_jobs job
  WHERE status = 'pending'
    AND queue = (SELECT queue FROM dramatis.persona_jobs WHERE id = CAST(:id AS uuid))
) waiting WHERE id = CAST(:id AS uuid)
"""  # noqa: S608  # of texts of our own
)
