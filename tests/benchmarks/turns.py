"""Time several things in turns, so that a busy moment of the machine falls on all of them."""

import time
from collections.abc import Awaitable, Callable

from tests.benchmarks.report import Samples

WARMING = 8

Run = Callable[[], Awaitable[object]]


async def in_turns(rounds: int, *runs: Run) -> list[Samples]:
    """Run each once a round, and return the milliseconds of each."""
    times: list[list[float]] = [[] for _ in runs]
    for number in range(rounds + WARMING):
        for run, values in zip(runs, times, strict=True):
            started = time.perf_counter()
            await run()
            elapsed = (time.perf_counter() - started) * 1000
            if number >= WARMING:
                values.append(elapsed)
    return [Samples(tuple(values)) for values in times]


def plain(run: Callable[[], object]) -> Run:
    """Let something that does not wait take its turn."""

    async def running() -> None:
        run()

    return running
