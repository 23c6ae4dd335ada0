"""A call of a model from a job, beside the same call by the library alone."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from pydantic_ai import Agent

from server.jobs.leases import Pace
from server.jobs.model_choice import ModelConfig, model_of
from server.jobs.models import model_runner
from server.jobs.tools import tools_for
from tests.benchmarks.job_bench import Bench, bench
from tests.benchmarks.report import Row, Samples, Section, at_most
from tests.benchmarks.turns import WARMING, Run, in_turns
from tests.jobs.model_runs import JOB, Told
from tests.jobs.model_server import Says, serving_model
from tests.jobs.workers import execution_of

CONFIG = ModelConfig()


async def measure(data_root: Path, *, rounds: int) -> Section:
    async with (
        serving_model(lambda _: Says(["There is nothing ", "to say against it."])) as server,
        bench(data_root, model="played", model_url=server.url) as made,
    ):
        run_jobs = await _runs(made, rounds + WARMING)
        job = replace(JOB, model_url=server.url)
        runner = model_runner(CONFIG, lambda _: [])

        async def alone() -> None:
            agent = Agent(model_of(job.model, job.model_url, None), instructions=job.prompt)
            async with agent.run_stream_events(job.request) as events:
                async for _ in events:
                    pass

        async def run() -> None:
            await next(run_jobs)()

        bare, running, whole = await in_turns(rounds, alone, lambda: runner(job, Told()), run)
    return Section(
        "8e. A call of a model, in ms: p50 / p95",
        "Of a model on loopback that answers at once, with a few words. The baseline is pydantic-ai"
        f" alone; {rounds} of each, in turns.",
        [
            _beside("our runner, which writes nothing", running, bare),
            _beside("a whole run: claimed, with tools, reported, ended", whole, bare),
        ],
    )


async def _runs(made: Bench, count: int) -> Iterator[Run]:
    """Invoke jobs, and return what runs one after the other as a worker does."""
    execution = execution_of(made.app, model_runner(CONFIG, tools_for), Pace())
    runs: list[Run] = []
    for _ in range(count):
        job = await made.invoke()
        (delivery,) = await made.jobs.stored(job, "delivery_id")
        runs.append(partial(execution.run, made.app.tenant_id, delivery))
    return iter(runs)


def _beside(what: str, ours: Samples, bare: Samples) -> Row:
    return at_most(what, ours.p50_and_p95(), bare.p50_and_p95(), ours.median / bare.median, None)
