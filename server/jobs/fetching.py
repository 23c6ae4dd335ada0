"""How a worker gets deliveries: the queue's own connections, and the library's fetcher on them."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import procrastinate
from procrastinate.worker import Worker
from psycopg import AsyncConnection

from db.session import CONNECT_TIMEOUT_S, SEARCH_PATH
from server.jobs.delivering import TASK
from server.work import App

# The library's own sign of life. Not ours: see `leases`.
HEARTBEAT_S = 10
STALLED_S = 30
# Of a connection whose other end is gone without a word, this is noticed within half a minute.
KEEPALIVE: Mapping[str, int] = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}

Run = Callable[[int, int], Awaitable[None]]


class Fetcher(Worker):
    """A fetcher of the library's, which says when it fetches no more: some errors end it.

    Attributes:
        busy: how many of those it fetched are not over.
        stopped: set when it fetches nothing more; what it fetched may go on.
        freed: called when one of those is over.
    """

    def __init__(self, *args: Any, freed: Callable[[], None], **kwargs: Any) -> None:
        super().__init__(
            *args,
            # What failed is kept: its job may never have been claimed, and the sweep sees to it.
            delete_jobs="successful",
            install_signal_handlers=False,
            update_heartbeat_interval=HEARTBEAT_S,
            stalled_worker_timeout=STALLED_S,
            **kwargs,
        )
        self.busy = 0
        self.stopped = anyio.Event()
        self._freed = freed

    def widen(self, concurrency: int) -> None:
        """Run so many at once from now on, unless it does already."""
        while self.concurrency < concurrency:
            # The library makes its semaphore of the number when it begins.
            self.concurrency += 1
            self._job_semaphore.release()

    async def _periodic_deferrer(self) -> None:
        # The library watches its side tasks until the first one ends. Without periodic tasks this
        # one would, at once, and nobody would notice that those died that listen and give signs.
        await anyio.sleep_forever()

    async def _process_job(self, context: procrastinate.JobContext) -> None:
        self.busy += 1
        try:
            await super()._process_job(context)
        finally:
            self.busy -= 1
            self._freed()

    async def _shutdown(self, side_tasks: list[Any]) -> None:
        # This waits for all that runs.
        self.stopped.set()
        await super()._shutdown(side_tasks)


@asynccontextmanager
async def open_queue(app: App, run: Run, jobs: int) -> AsyncGenerator[procrastinate.App]:
    """Open the queue on the app's database, with a connection or two of its own."""
    url = app.database.engine.url.set(drivername="postgresql")
    connector = procrastinate.PsycopgConnector(
        conninfo=url.render_as_string(hide_password=False),
        kwargs={"connect_timeout": CONNECT_TIMEOUT_S, **KEEPALIVE},
        configure=configure,
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


async def configure(connection: AsyncConnection[Any]) -> None:
    """Have a connection find the queue's tables, whose functions name them without a schema."""
    await connection.execute(f"SET search_path TO {SEARCH_PATH}")
    await connection.commit()
