"""Jobs that do nothing, by the thousand, beside a worker of the library that delivers ours."""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import procrastinate
from procrastinate.worker import Worker

from server.jobs.fetching import configure
from server.jobs.leases import Pace
from server.jobs.running import Outcome, Reporting, RunJob
from tests.benchmarks.job_bench import Bench, bench
from tests.benchmarks.report import Section, at_least
from tests.jobs.workers import working

GOAL = 0.4
CONCURRENCY = 10
QUEUE = "bare"
NO_ARGUMENTS: dict[str, Any] = {}


async def measure(data_root: Path, *, jobs: int, rounds: int) -> Section:
    """Drain with ours and with the baseline in turns."""
    async with bench(data_root, model="none", pool_size=CONCURRENCY) as made:
        pairs = [(await _ours(made, jobs), await _bare(made, jobs)) for _ in range(rounds)]
    ours, bare = (statistics.median(rates) for rates in zip(*pairs, strict=True))
    shares = [our / its for our, its in pairs]
    row = at_least("no-op jobs", f"{ours:,.0f}", f"{bare:,.0f}", statistics.median(shares), GOAL)
    return Section(
        "8b. Jobs per second, drained by one worker",
        f"{jobs:,} jobs that do nothing, {CONCURRENCY} at once; the medians of {rounds} rounds, in"
        " turns, and the least and greatest ratio. The baseline is procrastinate alone, in the same"
        " database.",
        [replace(row, ratio=f"{row.ratio} [{min(shares):.0%}, {max(shares):.0%}]")],
    )


async def _ours(made: Bench, jobs: int) -> float:
    await _invoke(made, jobs)
    done, over = _countdown(jobs)

    async def do_nothing(job: RunJob, reporting: Reporting) -> Outcome:
        done()
        return Outcome("Done.", 0, 0, None)

    began = time.perf_counter()
    async with working(made.app, do_nothing, jobs=CONCURRENCY, pace=Pace()):
        await over.wait()
        ended = time.perf_counter()
    await made.forget()
    return jobs / (ended - began)


async def _invoke(made: Bench, jobs: int) -> None:
    remaining = iter(range(jobs))

    async def invoke() -> None:
        for _ in remaining:
            await made.invoke()

    async with anyio.create_task_group() as tasks:
        for _ in range(CONCURRENCY):
            tasks.start_soon(invoke)


async def _bare(made: Bench, jobs: int) -> float:
    url = made.app.database.engine.url.set(drivername="postgresql")
    connector = procrastinate.PsycopgConnector(
        conninfo=url.render_as_string(hide_password=False), configure=configure
    )
    queue = procrastinate.App(connector=connector)
    done, over = _countdown(jobs)

    @queue.task(queue=QUEUE)
    async def do_nothing() -> None:
        done()

    async with queue.open_async():
        await do_nothing.batch_defer_async(*[NO_ARGUMENTS] * jobs)
        worker = Worker(
            queue,
            queues=[QUEUE],
            concurrency=CONCURRENCY,
            delete_jobs="successful",
            install_signal_handlers=False,
        )
        began = ended = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.run)
            await over.wait()
            ended = time.perf_counter()
            worker.stop()
    return jobs / (ended - began)


def _countdown(jobs: int) -> tuple[Callable[[], None], anyio.Event]:
    """Return what is called for every job, and what is set by the last of them."""
    remaining, over = iter(range(jobs - 1)), anyio.Event()

    def done() -> None:
        if next(remaining, None) is None:
            over.set()

    return done, over
