"""The worker: fetches jobs from the queue and runs them, several at once, until it is to go."""

import logging
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from math import inf
from time import monotonic
from typing import Any
from uuid import UUID

import anyio
import procrastinate
from procrastinate.worker import Worker as Fetching
from psycopg import AsyncConnection
from sqlalchemy import select, text

from db.session import CONNECT_TIMEOUT_S, SEARCH_PATH
from db.tables import TenantRow
from server.errors import DramatisError
from server.jobs import leases
from server.jobs.delivering import TASK
from server.jobs.execution import Execution
from server.jobs.reporting import NotOurs
from server.jobs.retention import clean_if_due
from server.work import App

_log = logging.getLogger(__name__)

# The library's own sign of life. Not ours: see `leases`.
HEARTBEAT_S = 10
STALLED_S = 30
PAUSE_S = 1
# Of a connection whose other end is gone without a word, this is noticed within half a minute.
KEEPALIVE: Mapping[str, int] = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}

Run = Callable[[int, int], Awaitable[None]]


class _Fetcher(Fetching):
    """A fetcher of the library's, which says when it fetches no more: some errors end it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stopped = anyio.Event()

    def stop(self) -> None:
        super().stop()
        self.stopped.set()

    async def _shutdown(self, side_tasks: list[Any]) -> None:
        # Where fetching failed nobody has called `stop`, and this waits for all that runs.
        self.stopped.set()
        await super()._shutdown(side_tasks)


@dataclass
class Worker:
    """Runs jobs until it is stopped, or has been idle for too long.

    Attributes:
        jobs: how many run at once.
        drain_s: how long running jobs may go on when it is to stop; then they are handed back.
        idle_s: how long it stays without a job; `None` is for ever.
        queues: those it fetches from; `None` is all.
    """

    app: App
    execution: Execution
    jobs: int
    drain_s: float
    idle_s: float | None = None
    queues: Sequence[str] | None = None
    ready: anyio.Event = field(default_factory=anyio.Event)
    _stopping: anyio.Event = field(default_factory=anyio.Event)
    _fetchers: list[_Fetcher] = field(default_factory=list[_Fetcher])
    _cut_off_at: float = -inf

    async def serve(self) -> None:
        """Run jobs. Never put this into a cancel scope: what runs then would be left alone."""
        async with (
            _queue(self.app, self._run, self.jobs) as queue,
            anyio.create_task_group() as tasks,
        ):
            # These go on while running jobs drain, so that nobody takes them over.
            for loop in (self._beat, self._sweep, self._clean, self._leave, self._drain):
                tasks.start_soon(loop)
            async with anyio.create_task_group() as fetchers:
                while not self._stopping.is_set():
                    # None is free where earlier fetchers still wait for what they fetched.
                    free = max(0, self.jobs - len(self.execution.running))
                    fetcher = self._fetcher(queue, free)
                    fetchers.start_soon(self._fetch, fetcher)
                    self.ready.set()
                    await fetcher.stopped.wait()
                    if not self._stopping.is_set():
                        await anyio.sleep(PAUSE_S)
            tasks.cancel_scope.cancel()

    def stop(self) -> None:
        """Fetch nothing more; running jobs have until `drain_s` to end. Twice is at once."""
        if self._stopping.is_set():
            self.execution.hand_back_all()
        self._stopping.set()

    def _fetcher(self, queue: procrastinate.App, concurrency: int) -> _Fetcher:
        fetcher = _Fetcher(
            app=queue,
            queues=self.queues,
            name=self.execution.worker,
            concurrency=concurrency,
            fetch_job_polling_interval=self.execution.pace.poll_s,
            # What failed is kept: its job may never have been claimed, and the sweep sees to it.
            delete_jobs="successful",
            install_signal_handlers=False,
            update_heartbeat_interval=HEARTBEAT_S,
            stalled_worker_timeout=STALLED_S,
        )
        self._fetchers.append(fetcher)
        return fetcher

    async def _fetch(self, fetcher: _Fetcher) -> None:
        try:
            await fetcher.run()
        # Most of all a database that is away. Another fetcher tries again.
        except Exception as error:  # noqa: BLE001
            _log.warning("fetching jobs stopped: %s", type(error).__name__)
        finally:
            fetcher.stopped.set()
            self._fetchers.remove(fetcher)
            # A later one had to leave room for what this one ran; the next one has it all.
            for later in self._fetchers:
                if later.concurrency < self.jobs:
                    later.stop()

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
            for run in self.execution.running.values():
                by_tenant[run.tenant_id][run.job_id] = run.attempt
            for tenant_id, attempts in by_tenant.items():
                with self._supervised("renewing leases"):
                    await self._renew(tenant_id, attempts)

    async def _renew(self, tenant_id: int, attempts: dict[UUID, int]) -> None:
        async with self.app.work(self.execution.caller(tenant_id)) as work:
            alive = await leases.renew(work, attempts, self.execution.pace.lease)
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
        async with self.app.work(self.execution.caller(self.app.tenant_id)) as work:
            await work.session.execute(_PRUNE, {"stalled": STALLED_S})
            fetched = (await work.session.execute(_FETCHED)).all()
        by_tenant: dict[int, list[int]] = defaultdict(list)
        for row in fetched:
            # Where nobody has it, its fetcher is dead, or nothing came of it.
            by_tenant[row.tenant_id] += [row.id] if row.nobodys else []
        for tenant_id, orphans in by_tenant.items():
            async with self.app.work(self.execution.caller(tenant_id)) as work:
                if monotonic() >= self._cut_off_at + self.execution.pace.lease.total_seconds():
                    lost = await leases.lost_jobs(work)
                    await leases.take_over(
                        work, [one for one in lost if one not in self.execution.running]
                    )
                await leases.deliver_orphans(work, orphans)
                await leases.call_next(work)

    async def _clean(self) -> None:
        while True:
            with self._supervised("removing old jobs"):
                for tenant_id in await _tenants(self.app, self.execution):
                    more = True
                    while more:
                        async with self.app.work(self.execution.caller(tenant_id)) as work:
                            more = await clean_if_due(work)
            await anyio.sleep(self.execution.pace.clean_s)

    async def _leave(self) -> None:
        """Leave when there was nothing to do for long enough, and nothing waits for its time."""
        while self.idle_s is not None:
            quiet = monotonic() - self.execution.last_busy
            if not self.execution.running and quiet >= self.idle_s:
                waits = False
                with self._supervised("looking for jobs that wait"):
                    waits = await waiting_jobs(self.app, self.execution, self.queues)
                if not waits:
                    self.stop()
                    return
            await anyio.sleep(max(PAUSE_S, self.idle_s - quiet))

    @contextmanager
    def _supervised(self, doing: str) -> Generator[None]:
        """Keep a loop that must not end alive: the next round tries again."""
        try:
            yield
        except DramatisError as error:
            # Others may have been cut off like this one, and are alive although they do not say so.
            self._cut_off_at = monotonic()
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
    """Tell whether any delivery waits in these queues or, with `None`, in any."""
    async with app.work(execution.caller(app.tenant_id)) as work:
        values = {"queues": None if queues is None else [*queues]}
        return bool(await work.session.scalar(_WAITING, values))


async def _tenants(app: App, execution: Execution) -> list[int]:
    async with app.work(execution.caller(app.tenant_id)) as work:
        return [*await work.session.scalars(select(TenantRow.id))]


@asynccontextmanager
async def _queue(app: App, run: Run, jobs: int) -> AsyncGenerator[procrastinate.App]:
    """Open the queue on the app's database, with a connection or two of its own."""
    url = app.database.engine.url.set(drivername="postgresql")
    connector = procrastinate.PsycopgConnector(
        conninfo=url.render_as_string(hide_password=False),
        kwargs={"connect_timeout": CONNECT_TIMEOUT_S, **KEEPALIVE},
        configure=_configure,
        min_size=1,
        max_size=max(2, min(jobs, 8)),
        # How long a fetch waits for a database that is away.
        timeout=CONNECT_TIMEOUT_S,
    )
    queue = procrastinate.App(connector=connector)

    @queue.task(name=TASK, pass_context=True)
    async def run_job(context: procrastinate.JobContext, tenant_id: int) -> None:
        assert context.job.id is not None
        await run(tenant_id, context.job.id)

    async with queue.open_async():
        yield queue


async def _configure(connection: AsyncConnection[Any]) -> None:
    await connection.execute(f"SET search_path TO {SEARCH_PATH}")
    await connection.commit()


# The library does this only where a fetcher starts.
_PRUNE = text("SELECT procrastinate_prune_stalled_workers_v1(:stalled)")
_FETCHED = text("""
SELECT id, worker_id IS NULL OR status <> 'doing' AS nobodys,
  CAST(args->>'tenant_id' AS int) AS tenant_id
FROM procrastinate_jobs WHERE status <> 'todo' ORDER BY id
""")
_WAITING = text("""
SELECT EXISTS (SELECT FROM procrastinate_jobs WHERE status = 'todo'
  AND (CAST(:queues AS text[]) IS NULL OR queue_name = ANY (CAST(:queues AS text[]))))
""")
