"""Follow jobs to their end, and see to it that a worker is there to run them."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from uuid import UUID

import anyio
from sqlalchemy import text

from server.errors import Unavailable
from server.jobs.leases import LEASE
from server.jobs.queries import check_job, job_state, parsed_id, project_id_of
from server.jobs.service import look_for_worker
from server.jobs.shapes import JobNotFound, JobPending, JobRunning, JobStatus
from server.personas.shapes import Shape
from server.standards.proposals import ProposalDetail
from server.standards.queries import get_proposal
from server.work import App, Caller, Work

_log = logging.getLogger(__name__)

POLL_S = 0.5
# Between two calls for a worker: one that was called may be on its way.
CALL_AGAIN_FIRST_S = 1
CALL_AGAIN_S = 5

Told = Callable[[JobPending | JobRunning], Awaitable[None]]


class FollowedJob(Shape):
    """A job, with what whoever follows it may have to decide.

    Attributes:
        updated_at: when something last was heard of it.
        proposals: what its run has proposed as standards of this project, while it runs and they
            wait for a person.
    """

    status: JobStatus
    created_at: datetime
    updated_at: datetime
    proposals: list[ProposalDetail]


async def follow_job(
    app: App, caller: Caller, job_id: str, *, wait_s: float = 0, told: Told | None = None
) -> JobStatus:
    """Say how a job is when it has ended, or when the time is over.

    Takes no `Work`: no connection is held while it waits. Where a worker has died, or none has been
    here yet, one is started.

    Args:
        told: is told how the job is, again and again, while there is time left.
    """
    deadline = monotonic() + wait_s
    calls = _Calls(app, caller)
    while True:
        async with app.work(caller) as work:
            status = await check_job(work, job_id)
            queues = await _waiting_in(work, status)
        await calls.look(queues)
        left = deadline - monotonic()
        if not isinstance(status, JobPending | JobRunning) or left <= 0:
            return status
        if told is not None:
            await told(status)
        await anyio.sleep(min(POLL_S, left))


async def followed_job(app: App, caller: Caller, job_id: str) -> FollowedJob | None:
    """Look at a job once; `None` when there is none. A worker is started as `follow_job` does."""
    async with app.work(caller) as work:
        status = await check_job(work, job_id)
        row = await job_state(work, parsed_id(job_id))
        if row is None or isinstance(status, JobNotFound):
            return None
        # Whatever its worker writes renews the lease.
        heard = row.lease_until - LEASE if row.lease_until is not None else row.started_at
        running = isinstance(status, JobRunning)
        followed = FollowedJob(
            status=status,
            created_at=row.created_at,
            updated_at=row.finished_at or heard or row.created_at,
            proposals=await _proposals(work, row.id) if running else [],
        )
        queues = await _waiting_in(work, status)
    await _Calls(app, caller).look(queues)
    return followed


async def take_up_jobs(app: App, caller: Caller) -> None:
    """Start a worker if jobs of the tenant wait for one, or have lost theirs."""
    async with app.work(caller) as work:
        queues = await _queues(work)
    await _Calls(app, caller).look(queues)


async def _queues(work: Work, job_id: UUID | None = None) -> list[str]:
    """List where this job, or any of the tenant's, waits for a worker or has lost its own."""
    return [*await work.session.scalars(_ALONE, {"id": job_id})]


async def _waiting_in(work: Work, status: JobStatus) -> list[str]:
    match status:
        case JobPending(job_id=job_id) | JobRunning(job_id=job_id):
            return await _queues(work, job_id)
        case _:
            return []


@dataclass
class _Calls:
    """Calls for a worker while a job has none, again and again: one that was started may die."""

    app: App
    caller: Caller
    _pause_s: float = 0
    _called_at: float = 0
    _told: bool = False

    async def look(self, queues: Sequence[str]) -> None:
        # Whoever may only look starts nothing.
        if not queues or "jobs:write" not in self.caller.scopes:
            self._pause_s = 0
        elif monotonic() >= self._called_at + self._pause_s:
            self._pause_s = CALL_AGAIN_S if self._pause_s else CALL_AGAIN_FIRST_S
            self._called_at = monotonic()
            await self._call(queues)

    async def _call(self, queues: Sequence[str]) -> None:
        try:
            await look_for_worker(self.app, queues)
        except Unavailable as error:
            # A worker on another machine may take the job all the same.
            if not self._told:
                _log.warning("%s", error)
            self._told = True


async def _proposals(work: Work, job_id: UUID) -> list[ProposalDetail]:
    project = await project_id_of(work)
    made = await work.session.scalars(_PROPOSED, {"job": job_id, "project": project})
    details = [await get_proposal(work, proposal_id) for proposal_id in made.all()]
    return [one for one in details if one.waits_for == "person" and one.stale is None]


_ALONE = text("""
SELECT DISTINCT queue FROM dramatis.persona_jobs
WHERE (CAST(:id AS uuid) IS NULL OR id = CAST(:id AS uuid))
  AND (status = 'pending' OR status = 'running' AND lease_until < clock_timestamp())
""")
_PROPOSED = text("""
SELECT DISTINCT proposal.id FROM dramatis.job_steps step
JOIN dramatis.proposals proposal ON proposal.id = CAST(step.details->>'proposal_id' AS int)
WHERE step.job_id = :job AND step.kind = 'tool' AND proposal.status = 'draft'
  AND proposal.project_id = CAST(:project AS int)
ORDER BY proposal.id
""")
