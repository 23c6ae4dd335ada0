"""Invoking personas, and the workers that run their jobs."""

from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks import job_answers, job_draining, job_models, job_workers
from tests.benchmarks.report import Section


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many jobs are drained in a round, how many rounds there are, and how many cold starts."""

    drained: int
    drains: int
    starts: int


async def measure(host: str, data_root: Path, sizes: Sizes, *, rounds: int) -> list[Section]:
    return [
        await job_answers.measure(host, data_root, rounds=rounds),
        await job_draining.measure(data_root, jobs=sizes.drained, rounds=sizes.drains),
        *await job_workers.measure(data_root, rounds=sizes.starts),
        await job_models.measure(data_root, rounds=rounds),
    ]
