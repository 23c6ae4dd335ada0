"""The worker: fetches jobs from the queue and runs them, several at once, until it is to go."""

import logging
from collections import defaultdict
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from time import monotonic
from uuid import UUID

import anyio
import procrastinate
from sqlalchemy import select, text

from db.tables import TenantRow
from server.errors import DramatisError
from server.jobs import leases
from server.jobs.adopting import Adoption
from server.jobs.execution import Execution
from server.jobs.fetching import STALLED_S, Fetcher, open_queue
from server.jobs.reporting import NotOurs
from server.jobs.retention import clean_if_due
from server.work import App, DatabaseUnavailable

_log = logging.getLogger(__name__)

PAUSE_S = 1


@dataclass
class Worker:
    """Runs jobs until it is stopped, or has been idle for too long.

    Attributes:
        jobs: how many run at once.
        drain_s: how long running jobs may go on when it is to stop; then they are handed back.
        idle_s: how long it stays without a job; `None` is for ever.
        queues: those it fetches from; `None` is all.
        adoption: what it does for other queues of whoever started it.
    """

    app: App
    execution: Execution
    jobs: int
    drain_s: float
    idle_s: float | None = None
    queues: Sequence[str] | None = None
    adoption: Adoption | None = None
    ready: anyio.Event = field(default_factory=anyio.Event)
    _stopping: anyio.Event = field(default_factory=anyio.Event)
    _fetchers: list[Fetcher] = field(default_factory=list[Fetcher])
    _cut_off_at: float = -inf

    async def serve(self) -> None:
        """Run jobs. Never put this into a cancel scope: what runs then would be left alone."""
        async with (
            open_queue(self.app, self._run, self.jobs) as queue,
            anyio.create_task_group() as tasks,
        ):
            # These go on while running jobs drain, so that nobody takes them over.
            for loop in (self._beat, self._sweep, self._clean, self._leave, self._drain):
                tasks.start_soon(loop)
            await self._fetch(queue)
            tasks.cancel_scope.cancel()

    def stop(self) -> None:
        """Fetch nothing more; running jobs have until `drain_s` to end. Twice is at once."""
        if self._stopping.is_set():
            self.execution.hand_back_all()
        self._stopping.set()

    async def jobs_wait(self) -> bool:
        """Tell whether a job waits that this worker may run; without an answer, one may."""
        if self.adoption is not None and self.adoption.waits:
            return True
        with self._supervised("looking for jobs that wait"):
            return await waiting_jobs(self.app, self.execution, self.queues)
        return True

    async def _fetch(self, queue: procrastinate.App) -> None:
        async with anyio.create_task_group() as fetchers:
            while not self._stopping.is_set():
                fetcher = self._fetcher(queue)
                fetchers.start_soon(self._run_fetcher, fetcher)
                self.ready.set()
                await fetcher.stopped.wait()
                if self._stopping.is_set():
                    return
                # Now that none is fetched, a job shows that came in the last moment.
                if self._is_idle() and not await self.jobs_wait():
                    self._stopping.set()
                else:
                    await anyio.sleep(PAUSE_S)

    def _fetcher(self, queue: procrastinate.App) -> Fetcher:
        fetcher = Fetcher(
            app=queue,
            queues=self.queues,
            name=self.execution.worker,
            concurrency=0,
            fetch_job_polling_interval=self.execution.pace.poll_s,
            freed=self._fill,
        )
        self._fetchers.append(fetcher)
        self._fill()
        return fetcher

    def _fill(self) -> None:
        """Let the last fetcher run as many as those before it, which only wait, leave room for."""
        *earlier, last = self._fetchers
        last.widen(self.jobs - sum(fetcher.busy for fetcher in earlier))

    async def _run_fetcher(self, fetcher: Fetcher) -> None:
        try:
            await fetcher.run()
        # Most of all a database that is away. Another fetcher tries again.
        except Exception as error:  # noqa: BLE001
            _log.warning("fetching jobs stopped: %s", type(error).__name__)
        finally:
            fetcher.stopped.set()
            self._fetchers.remove(fetcher)

    async def _run(self, tenant_id: int, delivery_id: int) -> None:
        await self.execution.run(tenant_id, delivery_id)
        if not self.execution.put_off:
            return
        # There may be room now for one that could not run before.
        with self._supervised("calling the next job"):
            async with self.app.work(self.execution.caller(tenant_id)) as work:
                await leases.call_next(work)

    async def _beat(self) -> None:
        while True:
            await anyio.sleep(self.execution.pace.beat_s)
            by_tenant: dict[int, dict[UUID, int]] = defaultdict(dict)
            # Also where nothing runs the database is asked, to know when it is away.
            by_tenant[self.app.tenant_id] = {}
            for run in self.execution.running.values():
                by_tenant[run.tenant_id][run.job_id] = run.attempt
            for tenant_id, attempts in by_tenant.items():
                with self._supervised("renewing leases"):
                    await self._renew(tenant_id, attempts)

    async def _renew(self, tenant_id: int, attempts: dict[UUID, int]) -> None:
        try:
            async with self.app.work(self.execution.caller(tenant_id)) as work:
                alive = await leases.renew(work, attempts, self.execution.pace.lease)
        except DatabaseUnavailable:
            # Others may be cut off as well, and alive although they do not say so.
            self._cut_off_at = monotonic()
            raise
        for job_id, attempt in attempts.items():
            run = self.execution.running.get(job_id)
            if run is None or run.attempt != attempt:
                continue
            try:
                if job_id not in alive:
                    raise NotOurs
                await run.reporting.flush()
            except NotOurs:
                run.stop()

    async def _sweep(self) -> None:
        while True:
            with self._supervised("looking for jobs of dead workers"):
                await self._look_after_others()
            await anyio.sleep(self.execution.pace.sweep_s)

    async def _look_after_others(self) -> None:
        """Give the jobs of dead workers to others, and remove what is left of old deliveries."""
        orphans: dict[int, list[int]] = defaultdict(list)
        async with self.app.work(self.execution.caller(self.app.tenant_id)) as work:
            await work.session.execute(_PRUNE, {"stalled": STALLED_S})
            for row in await work.session.execute(_ORPHANS):
                orphans[row.tenant_id].append(row.id)
        for tenant_id in await self._tenants():
            with self._supervised("looking for jobs of dead workers"):
                await self._look_after(tenant_id, orphans[tenant_id])

    async def _look_after(self, tenant_id: int, orphans: Sequence[int]) -> None:
        async with self.app.work(self.execution.caller(tenant_id)) as work:
            if monotonic() >= self._cut_off_at + self.execution.pace.lease.total_seconds():
                lost = await leases.lost_jobs(work)
                await leases.take_over(
                    work, [one for one in lost if one not in self.execution.running]
                )
            await leases.deliver_orphans(work, orphans)
            if self.adoption is not None and tenant_id == self.app.tenant_id:
                await self.adoption.look(work)
            await leases.call_next(work)

    async def _clean(self) -> None:
        while True:
            with self._supervised("removing old jobs"):
                for tenant_id in await self._tenants():
                    with self._supervised("removing old jobs"):
                        await self._clean_up(tenant_id)
            await anyio.sleep(self.execution.pace.clean_s)

    async def _clean_up(self, tenant_id: int) -> None:
        more = True
        while more:
            async with self.app.work(self.execution.caller(tenant_id)) as work:
                more = await clean_if_due(work)

    async def _tenants(self) -> list[int]:
        async with self.app.work(self.execution.caller(self.app.tenant_id)) as work:
            return [*await work.session.scalars(select(TenantRow.id))]

    async def _leave(self) -> None:
        """Stop fetching when there was nothing to do for long enough, and nothing waits."""
        while self.idle_s is not None:
            if self._is_idle() and not await self.jobs_wait():
                for fetcher in self._fetchers:
                    fetcher.stop()
            quiet = monotonic() - self.execution.last_busy
            await anyio.sleep(max(PAUSE_S, self.idle_s - quiet))

    def _is_idle(self) -> bool:
        if self.idle_s is None or any(fetcher.busy for fetcher in self._fetchers):
            return False
        return monotonic() - self.execution.last_busy >= self.idle_s

    @contextmanager
    def _supervised(self, doing: str) -> Generator[None]:
        """Keep a loop that must not end alive: the next round tries again."""
        try:
            yield
        except DramatisError as error:
            _log.warning("%s: %s", doing, error.args[0])
        # Its bug is for the log, and the next round tries again.
        except Exception:  # noqa: BLE001
            _log.exception("%s failed", doing)

    async def _drain(self) -> None:
        await self._stopping.wait()
        # By now each has begun; before, it would forget it again.
        for fetcher in self._fetchers:
            fetcher.stop()
        await anyio.sleep(self.drain_s)
        self.execution.hand_back_all()


async def waiting_jobs(app: App, execution: Execution, queues: Sequence[str] | None = None) -> bool:
    """Tell whether any delivery waits in these queues or, with `None`, in any.

    So does one that was fetched: its worker may have been killed, and then it comes again.
    """
    async with app.work(execution.caller(app.tenant_id)) as work:
        values = {"queues": None if queues is None else [*queues]}
        return bool(await work.session.scalar(_WAITING, values))


# The library does this only where a fetcher starts.
_PRUNE = text("SELECT procrastinate_prune_stalled_workers_v1(:stalled)")
# Those whose fetcher is dead, or of which nothing came.
_ORPHANS = text("""
SELECT id, CAST(args->>'tenant_id' AS int) AS tenant_id
FROM procrastinate_jobs
WHERE status <> 'todo' AND (worker_id IS NULL OR status <> 'doing') ORDER BY id
""")
_WAITING = text("""
SELECT EXISTS (SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing')
  AND (CAST(:queues AS text[]) IS NULL OR queue_name = ANY (CAST(:queues AS text[]))))
""")
