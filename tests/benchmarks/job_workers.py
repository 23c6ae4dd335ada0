"""Workers as processes: how long until one is there, and how much memory it takes."""

import time
from pathlib import Path
from typing import Any

from server.jobs.starting import Station
from tests.benchmarks.job_bench import ECHO, Bench, bench, worker_of
from tests.benchmarks.memory import NAMES, megabytes
from tests.benchmarks.report import Row, Samples, Section, at_most
from tests.jobs.model_server import Says, serving_model
from tests.jobs.workers import eventually


async def measure(data_root: Path, *, rounds: int) -> list[Section]:
    async with serving_model(lambda _: Says(["Fine."])) as server:
        model = {"model": "played", "model_url": server.url}
        rows = [
            *await _started(data_root, "a command", ECHO, rounds),
            *await _started(data_root, "a model", model, rounds),
        ]
        without = await _idle(data_root, ECHO)
        libraries = await _idle(data_root, model)
    starting = Section(
        "8c. A worker started on demand, in ms: median [least]",
        f"From the invocation; {rounds} of each. The database is up, and no worker is there, so the"
        " answer waits until one is started, and not until it is ready.",
        rows,
    )
    memory = [
        at_most(NAMES[kind], f"{size:.1f}", f"{without[kind]:.1f}", size / without[kind], None)
        for kind, size in libraries.items()
    ]
    return [
        starting,
        Section(
            "8d. Memory of an idle worker, in MB",
            "After its first job; the baseline has run a command, and has no model libraries in it.",
            memory or [Row("this system has no /proc/PID/smaps_rollup", "")],
        ),
    ]


async def _started(data_root: Path, on: str, settings: dict[str, Any], rounds: int) -> list[Row]:
    answered, running, complete = list[float](), list[float](), list[float]()
    async with bench(data_root, start_worker=True, worker_idle_s=1, **settings) as made:
        for _ in range(rounds):
            invoked = time.perf_counter()
            job = await made.invoke()
            answered.append((time.perf_counter() - invoked) * 1000)
            await made.jobs.until(job, "complete")
            running.append(await made.milliseconds(job, "created_at", "started_at"))
            complete.append(await made.milliseconds(job, "created_at", "finished_at"))
            await _left(made)
    return [
        Row(f"invoked on {on}, until {what}", Samples(tuple(times)).median_and_least())
        for what, times in (
            ("it is answered", answered),
            ("it runs", running),
            ("it is complete", complete),
        )
    ]


async def _left(made: Bench) -> None:
    """Wait until the worker has gone, as it does when it is idle."""
    station = Station.of(made.settings)

    async def nobody() -> bool:
        return not station.is_staffed()

    await eventually(nobody)


async def _idle(data_root: Path, settings: dict[str, Any]) -> dict[str, float]:
    async with bench(data_root, **settings) as made:
        with worker_of(made) as worker:
            await made.jobs.until(await made.invoke(), "complete")
            return megabytes(worker.pid)
