"""Workers in this process, whose runs do what a test wants, and what is seen of their jobs."""

from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from time import monotonic
from typing import Any, TypeVar
from uuid import UUID

import anyio
import psycopg
from psycopg import sql
from sqlalchemy import text

from server.jobs.execution import Execution
from server.jobs.leases import Pace, take_over
from server.jobs.queries import check_job, the_job
from server.jobs.record import run_record
from server.jobs.running import Outcome, Reporting, RunJob, Runner
from server.jobs.service import cancel_job, invoke_persona
from server.jobs.shapes import Priority, RunRecord, State
from server.jobs.worker import Worker
from server.work import App, JobLimits, JobSettings, ModelChoice, Work
from tests.conftest import Databases, but, operator
from tests.test_migrations import plain

T = TypeVar("T")

DEADLINE_S = 90
POLL_S = 0.02
# The lease is long: a busy machine must not lose a job that no test takes away.
QUICK = Pace(lease=timedelta(seconds=60), beat_s=0.05, sweep_s=0.1, poll_s=0.05)
SHORT = but(QUICK, lease=timedelta(seconds=2))
LATER = "UPDATE procrastinate_jobs SET scheduled_at = now() + interval '1 hour'"


async def eventually(done: Callable[[], Awaitable[object]]) -> None:
    """Wait for what nothing tells of."""
    with anyio.fail_after(DEADLINE_S):
        while not await done():  # noqa: ASYNC110
            # Every look is a transaction, and others share this machine.
            await anyio.sleep(POLL_S)


@dataclass
class Held:
    """Runs that say a word and last until they are let go.

    Attributes:
        began: the tasks, in the order in which their runs began.
        attempts: the job and the attempt of each.
        most: how many there were at once.
    """

    began: list[str] = field(default_factory=list[str])
    attempts: list[tuple[UUID, int]] = field(default_factory=list[tuple[UUID, int]])
    ended: list[str] = field(default_factory=list[str])
    most: int = 0
    _now: int = 0
    _all: bool = False
    _each: dict[str, anyio.Event] = field(default_factory=lambda: defaultdict(anyio.Event))

    async def __call__(self, job: RunJob, reporting: Reporting) -> Outcome:
        self.began.append(job.request)
        self.attempts.append((job.id, job.attempt))
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            await reporting.text(f"{job.request} … ")
            await reporting.progress("generating", 10, "writing")
            if not self._all:
                await self._each[job.request].wait()
        finally:
            self._now -= 1
            self.ended.append(job.request)
        return Outcome(f"Did {job.request}.", 10, 5, 0.25)

    def let_go(self, task: str | None = None) -> None:
        """Let one come to an end, or all, and those that are still to come."""
        if task is not None:
            self._each[task].set()
            return
        self._all = True
        for event in self._each.values():
            event.set()

    async def until_begun(self, count: int) -> None:
        await self._until(self.began, count)

    async def until_ended(self, count: int) -> None:
        await self._until(self.ended, count)

    async def _until(self, tasks: list[str], count: int) -> None:
        async def so_many() -> bool:
            return len(tasks) >= count

        await eventually(so_many)


@dataclass(frozen=True)
class Jobs:
    """The jobs of an app, as whoever invokes personas sees them."""

    app: App

    async def invoke(
        self, task: str = "Look.", persona: str = "architect", priority: Priority = "normal"
    ) -> str:
        started = await invoke_persona(
            self.app, operator(self.app), persona, task, priority=priority
        )
        return str(started.job_id)

    async def using(self, verb: Callable[[Work], Awaitable[T]]) -> T:
        async with self.app.work(operator(self.app)) as work:
            return await verb(work)

    async def status(self, job: str) -> str:
        return (await self.using(lambda work: check_job(work, job))).status

    async def shown(self, job: str) -> dict[str, Any]:
        """Return what is answered to whoever asks for the job."""
        return (await self.using(lambda work: check_job(work, job))).model_dump(mode="json")

    async def until(self, job: str, status: State) -> dict[str, Any]:
        """Wait until a job has a status, and return the answer that says so."""

        async def reached() -> bool:
            return await self.status(job) == status

        await eventually(reached)
        return await self.shown(job)

    async def until_said(self, job: str) -> None:
        """Wait until the first words of a run are kept."""

        async def said() -> bool:
            return (await self.stored(job, "partial")) != ("",)

        await eventually(said)

    async def cancel(self, job: str) -> None:
        await self.using(lambda work: cancel_job(work, job))

    async def record(self, job: str) -> RunRecord:
        return await self.using(lambda work: run_record(work, job))

    async def stored(self, job: str, *names: str) -> tuple[Any, ...]:
        """Read columns that no answer shows."""
        row = await self.using(lambda work: the_job(work, UUID(job)))
        return tuple(getattr(row, name) for name in names)

    async def execute(self, statement: str) -> None:
        await self.using(lambda work: work.session.execute(text(statement)))

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        return await self.using(lambda work: _rows(work, query))


async def _rows(work: Work, query: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await work.session.execute(text(query))]


async def given_up(jobs: Jobs, job: str) -> None:
    """Let the lease of a running job be over, and deliver it again."""

    async def expire(work: Work) -> None:
        await work.session.execute(
            text("UPDATE dramatis.persona_jobs SET lease_until = clock_timestamp()")
        )
        await take_over(work, [UUID(job)])

    await jobs.using(expire)


def configured(app: App, **limits: Any) -> App:
    """Give an app a model to invoke personas on, in no project, and room for many jobs."""
    whole: Mapping[str, Any] = {"queue_length": 1000, "per_minute": 1000, **limits}
    settings = JobSettings(ModelChoice("test", None, command=False), JobLimits(**whole))
    return but(app, place=None, jobs=settings)


def execution_of(app: App, runner: Runner, pace: Pace = QUICK, name: str = "here:1") -> Execution:
    return Execution(app, name, "", None, {"model": runner, "command": runner}, pace)


@asynccontextmanager
async def working(
    app: App,
    runner: Runner,
    *,
    jobs: int = 3,
    drain_s: float = DEADLINE_S,
    idle_s: float | None = None,
    pace: Pace = QUICK,
    name: str = "here:1",
) -> AsyncGenerator["Serving"]:
    """Have a worker until the block ends; what it then still runs is handed back."""
    worker = Worker(app, execution_of(app, runner, pace, name), jobs, drain_s, idle_s)
    async with at_work(worker) as serving:
        yield serving


@asynccontextmanager
async def at_work(worker: Worker) -> AsyncGenerator["Serving"]:
    serving = Serving(worker)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serving.serve)
        try:
            with anyio.fail_after(DEADLINE_S):
                await worker.ready.wait()
            yield serving
        finally:
            worker.stop()
            worker.stop()
            # It must not be cancelled, also when the test failed.
            with anyio.CancelScope(shield=True):
                await serving.until_left()


@dataclass
class Serving:
    """A worker at work."""

    worker: Worker
    left: anyio.Event = field(default_factory=anyio.Event)

    async def serve(self) -> None:
        try:
            await self.worker.serve()
        finally:
            self.left.set()

    async def until_left(self) -> None:
        with anyio.fail_after(DEADLINE_S):
            await self.left.wait()


@dataclass(frozen=True)
class Outages:
    """Takes the database of a test away from everybody who is connected."""

    database: str
    url: str

    @classmethod
    def of(cls, app: App, databases: Databases) -> "Outages":
        database = app.database.engine.url.database
        assert database
        return cls(database, plain(databases.url("postgres", "postgres")))

    @asynccontextmanager
    async def away(self) -> AsyncGenerator[None]:
        """Cut every connection and refuse new ones, until this ends."""
        allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        name = sql.Identifier(self.database)
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as admin:
            await admin.execute(allow.format(name, sql.SQL("false")))
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                [self.database],
            )
            try:
                yield
            finally:
                await admin.execute(allow.format(name, sql.SQL("true")))


async def at_once(job: RunJob, reporting: Reporting) -> Outcome:
    return Outcome("Done.", 1, 1, None)


async def many(jobs: Jobs, count: int) -> list[str]:
    return [await jobs.invoke(f"Task {number}.") for number in range(count)]


async def until_past(moment: float) -> None:
    async def past() -> bool:
        return monotonic() > moment

    await eventually(past)
