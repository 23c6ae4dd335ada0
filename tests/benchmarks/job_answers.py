"""What a client waits for: that a job is taken, begins, and says how it is."""

import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from server.jobs.queries import check_job
from server.jobs.starting import Station
from tests.benchmarks.job_bench import ECHO, PERSONAS, TASK, Bench, bench, worker_of
from tests.benchmarks.raw import Pool, Replay, pool, recorded
from tests.benchmarks.report import Row, Samples, Section, Verdict
from tests.benchmarks.turns import Run, in_turns, plain
from tests.benchmarks.wire import Wire, spawned
from tests.jobs.conftest import begun
from tests.jobs.workers import eventually

INVOKE_GOAL_MS = 50
START_GOAL_MS = 100
STATUS_GOAL_MS = 10
# All places of the worker are taken for as long as this lasts.
WAITING = 20
PARTIAL = "A sentence of a review that is being written. " * 40


async def measure(host: str, data_root: Path, *, rounds: int) -> Section:
    rows: list[Row] = []
    async with bench(data_root, **ECHO) as made:
        with spawned(made.server(), data_root) as server:
            server.open()
            rows += await _invoked(made, server, "no worker, and none is looked for", rounds)
            await made.forget()
            rows += await _beside_a_worker(data_root, rounds)
            async with pool(host, 1) as idle:
                rows += await _followed(made, server, idle, rounds)
    with _model_process() as url:
        async with bench(data_root, model="played", model_url=url) as made:
            with spawned(made.server(), data_root) as server, worker_of(made):
                server.open()
                await _saturate(made)
                rows += await _invoked(made, server, "a saturated worker", rounds)
    return Section(
        "8a. Invoking and following jobs, in ms: p50 / p95",
        "Saturated is a worker all of whose runs stream from a model, and a queue behind them. The"
        f" baseline sends the statements that ours sends, in psycopg; {rounds} of each. The goal is"
        " for the p95.",
        rows,
    )


async def _invoked(made: Bench, server: Wire, beside: str, rounds: int) -> list[Row]:
    arguments = {"persona": PERSONAS[0], "task": TASK}
    over_stdio = plain(partial(server.call, "invoke_persona", arguments))
    ours, stdio = await in_turns(rounds, made.invoke, over_stdio)
    return [
        _judged(f"invoke_persona, {beside}, in process", ours, INVOKE_GOAL_MS),
        _judged(f"invoke_persona, {beside}, over stdio", stdio, INVOKE_GOAL_MS),
    ]


async def _beside_a_worker(data_root: Path, rounds: int) -> list[Row]:
    """Measure invocations that look for a worker, which is here and has nothing else to do."""
    answered, claimed = list[float](), list[float]()
    async with bench(data_root, start_worker=True, **ECHO) as made:
        station = Station.of(made.settings)

        async def here() -> bool:
            return station.is_staffed()

        with worker_of(made):
            await eventually(here)
            await made.jobs.until(await made.invoke(), "complete")
            for _ in range(rounds):
                invoked = time.perf_counter()
                job = await made.invoke()
                answered.append((time.perf_counter() - invoked) * 1000)
                await made.jobs.until(job, "complete")
                claimed.append(await made.milliseconds(job, "created_at", "started_at"))
    return [
        _judged(
            "invoke_persona, finds that a worker is here, in process",
            Samples(tuple(answered)),
            INVOKE_GOAL_MS,
        ),
        _judged("enqueued, until a worker begins the run", Samples(tuple(claimed)), START_GOAL_MS),
    ]


async def _followed(made: Bench, server: Wire, idle: Pool, rounds: int) -> list[Row]:
    run = await begun(made.app, made.caller)
    await run.text(PARTIAL)
    job = str(run.job_id)

    async def check() -> None:
        async with made.app.work(made.caller) as work:
            await check_job(work, job)

    async def progress() -> None:
        await run.progress("generating", 50, "writing")

    async with idle.connection() as connection:
        raw_check, raw_progress = [
            partial((await _replay(made, verb)).run, connection) for verb in (check, progress)
        ]
        over_stdio = plain(partial(server.call, "check_persona_job", {"job_id": job}))
        runs: list[Run] = [check, raw_check, over_stdio, progress, raw_progress]
        checked, raw_checked, stdio, written, raw_written = await in_turns(rounds, *runs)
    return [
        _judged("check_persona_job, in process", checked, STATUS_GOAL_MS, raw_checked),
        _judged("check_persona_job, over stdio", stdio, STATUS_GOAL_MS, raw_checked),
        _judged("progress of a run, written", written, None, raw_written),
    ]


async def _replay(made: Bench, verb: Callable[[], Awaitable[None]]) -> Replay:
    with recorded(made.app.database.engine) as statements:
        await verb()
    return Replay(list(statements), None)


async def _saturate(made: Bench) -> None:
    """Return when every place of the worker is taken, and far more waits."""
    waiting = [await made.invoke() for _ in range(WAITING)]

    async def all_places() -> bool:
        statuses = [await made.jobs.status(job) for job in waiting]
        return statuses.count("running") == made.settings.worker_jobs

    await eventually(all_places)


@contextmanager
def _model_process() -> Generator[str]:
    """Have a model in a process of its own, where it takes nothing from whoever is measured."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.jobs.model_server"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.communicate()


def _judged(what: str, ours: Samples, goal_ms: float | None, raw: Samples | None = None) -> Row:
    baseline, ratio = "", ""
    if raw is not None:
        baseline, ratio = raw.p50_and_p95(), f"{ours.median / raw.median:.2f} x"
    if goal_ms is None:
        return Row(what, ours.p50_and_p95(), baseline, ratio)
    verdict: Verdict = "met" if ours.p95 < goal_ms else "missed"
    return Row(what, ours.p50_and_p95(), baseline, ratio, f"< {goal_ms} ms", verdict)
