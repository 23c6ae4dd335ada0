"""Start a worker: settings in, jobs run, until it is told to go or has nothing to do."""

import logging
import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Generator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from platform import node

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup
from opentelemetry.trace import TracerProvider

from server.app import open_app
from server.jobs.adopting import Adoption
from server.jobs.commands import command_runner
from server.jobs.execution import Execution
from server.jobs.leases import Pace
from server.jobs.model_key import model_key
from server.jobs.running import Outcome, Reporting, RunJob, Runner, RunnerMissing
from server.jobs.shapes import RunnerKind
from server.jobs.starting import Station, sign, start_worker
from server.jobs.worker import Worker
from server.settings import Settings
from server.telemetry import sending_spans

_log = logging.getLogger(__name__)

# How long running jobs may go on when the worker is to stop.
DRAIN_S = 300
USUAL_PACE = Pace()
_STOPPING = (signal.SIGTERM, signal.SIGINT)
# Signals, until it leaves without tidying up.
ENOUGH = 3


def work(
    settings: Settings,
    *,
    on_demand: int | None = None,
    drain_s: float = DRAIN_S,
    pace: Pace = USUAL_PACE,
) -> None:
    """Run jobs until SIGTERM or SIGINT.

    A second one does not wait for those that run, and a third one for nothing at all.

    Args:
        on_demand: the lock of a worker that was started for a job. It runs jobs of its station
            alone, and leaves when it is idle.

    Raises:
        Unavailable: the database cannot be had.
    """
    logging.basicConfig(
        stream=sys.stderr,
        level=settings.log_level,
        format="%(asctime)s dramatis worker: %(levelname)s: %(message)s",
    )
    with sending_spans("dramatis-worker") as tracers:
        model_runner = cache(partial(_model_runner, settings, tracers))
        anyio.run(_work, settings, on_demand, drain_s, pace, model_runner)


@dataclass(slots=True)
class _Presence:
    """The lock that says that a worker is here.

    Attributes:
        told_to_go: whether somebody wants it away. Then it leaves no other behind.
    """

    lock: int | None
    told_to_go: bool = False

    def end(self) -> None:
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None


async def _work(
    settings: Settings,
    on_demand: int | None,
    drain_s: float,
    pace: Pace,
    model_runner: Callable[[], Runner],
) -> None:
    station = Station.of(settings)
    presence = _Presence(station.attend() if on_demand is None else on_demand)
    # Every run writes what it does.
    pool_size = max(settings.pool_size, settings.worker_jobs)
    with ExitStack() as to_the_end:
        to_the_end.callback(presence.end)
        async with open_app(settings.model_copy(update={"pool_size": pool_size})) as app:
            execution = Execution(
                app,
                worker=f"{node()}:{os.getpid()}",
                host="" if settings.database_url is None else node(),
                library=settings.standards_library,
                runners=_runners(settings, model_runner),
                pace=pace,
            )
            worker = Worker(
                app,
                execution,
                jobs=settings.worker_jobs,
                drain_s=drain_s,
                idle_s=settings.worker_idle_s if on_demand is not None else None,
                queues=[station.queue] if on_demand is not None else None,
                adoption=_adoption(station) if on_demand is not None else None,
            )
            signals = to_the_end.enter_context(_hearing())
            if on_demand is not None:
                sign(on_demand)
            async with _told_to_stop(signals, worker, presence) as tasks:
                if settings.model is not None:
                    tasks.start_soon(_prepare, model_runner)
                await worker.serve()
            # Whoever came while this one was leaving saw that a worker was here.
            presence.end()
            left_alone = on_demand is not None and not presence.told_to_go
            if left_alone and await worker.jobs_wait():
                start_worker(station, settings)


def _adoption(station: Station) -> Adoption:
    def abandoned(queues: Collection[str]) -> Collection[str]:
        with station.looking():
            return station.abandoned(queues)

    return Adoption(station.queue, abandoned)


@contextmanager
def _hearing() -> Generator[AsyncIterator[signal.Signals]]:
    """Hear signals; from then on none ends the process, which tidies up and goes by itself."""
    with anyio.open_signal_receiver(*_STOPPING) as signals:
        yield signals
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)


async def _counted(
    signals: AsyncIterator[signal.Signals],
) -> AsyncGenerator[tuple[int, signal.Signals]]:
    told = 0
    async for received in signals:
        told += 1
        yield told, received


@asynccontextmanager
async def _told_to_stop(
    signals: AsyncIterator[signal.Signals], worker: Worker, presence: _Presence
) -> AsyncGenerator[TaskGroup]:
    async def listen() -> None:
        async for told, received in _counted(signals):
            _log.info("%s: stopping", received.name)
            if told == ENOUGH:
                # Whatever it waits for, such as a database that does not answer, its leases end.
                os._exit(128 + received)
            # First, so that for a job that it takes no more another worker is looked for.
            presence.told_to_go = True
            presence.end()
            worker.stop()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        yield tasks
        tasks.cancel_scope.cancel()


async def _prepare(model_runner: Callable[[], Runner]) -> None:
    """Import what the first job would have to wait for."""
    try:
        await anyio.to_thread.run_sync(model_runner)
    # Whatever breaks in libraries must not take the worker along: each job that needs them fails.
    except Exception as error:  # noqa: BLE001
        _log.warning("what speaks to models cannot be loaded: %s", error)


def _runners(settings: Settings, model_runner: Callable[[], Runner]) -> Mapping[RunnerKind, Runner]:
    async def run_model(job: RunJob, reporting: Reporting) -> Outcome:
        runner = await anyio.to_thread.run_sync(model_runner)
        return await runner(job, reporting)

    async def run_no_command(job: RunJob, reporting: Reporting) -> Outcome:
        raise RunnerMissing(
            "This worker has no command to run.",
            hint="Set DRAMATIS_RUNNER_COMMAND where the worker is started.",
        )

    if settings.runner_command is None:
        return {"model": run_model, "command": run_no_command}
    command = command_runner(
        settings.runner_command, seconds=settings.job_s, environment=settings.environment()
    )
    return {"model": run_model, "command": command}


def _model_runner(settings: Settings, tracers: TracerProvider | None) -> Runner:
    """Import the model libraries, which take a second, and make the runner.

    Raises:
        RunnerMissing: they are not installed here.
    """
    try:
        from server.jobs.model_choice import ModelConfig
        from server.jobs.models import model_runner
        from server.jobs.tools import tools_for
    except ModuleNotFoundError as error:
        raise RunnerMissing(
            "This worker lacks the libraries that speak to models.",
            hint="Install Dramatis with its extra `worker`.",
        ) from error

    config = ModelConfig(
        model=settings.model,
        url=settings.model_url,
        key=partial(model_key, settings),
        price=settings.model_price,
        silence_s=settings.model_s,
        tracers=tracers,
    )
    return model_runner(config, tools_for)
