"""Registrations per second, their files included."""

import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

from server.app import open_app
from server.personas.service import register_persona
from server.settings import Settings
from server.work import OPERATOR_SCOPES, Caller
from tests.benchmarks.raw import Files, Replay, pool, recorded
from tests.benchmarks.report import Row, Section, at_least

GOAL = 0.4
JUDGED = 32
ROLE = "developer"


async def measure(host: str, data_root: Path, *, registrations: int, rounds: int) -> Section:
    """Register with ours and with the baseline in turns, over as many connections."""
    settings = Settings(data_root=data_root)
    connections = 2 * settings.pool_size
    async with open_app(settings) as app, pool(host, connections) as idle:
        caller = Caller("agent", "benchmark", app.tenant_id, OPERATOR_SCOPES)

        async def ours() -> None:
            await register_persona(app, caller, name="Con", role=ROLE)

        await ours()
        with recorded(app.database.engine) as statements:
            registered = await register_persona(app, caller, name="Con", role=ROLE)
        replay = Replay(list(statements), Files.like(Path(registered.path)))

        async def raw() -> None:
            async with idle.connection() as connection:
                await replay.run(connection)

        rows: list[Row] = []
        for concurrency in (1, 8, JUDGED):
            mine, base = await _both(ours, raw, registrations, concurrency, rounds)
            goal = GOAL if concurrency == JUDGED else None
            what = f"concurrency {concurrency}"
            rows.append(at_least(what, f"{mine:,.0f}", f"{base:,.0f}", mine / base, goal))
    return Section(
        "3. Registrations per second",
        f"Both over at most {connections} connections, files written in threads; the median of"
        f" {rounds} rounds of {registrations}, in turns.",
        rows,
    )


Register = Callable[[], Awaitable[None]]


async def _both(
    ours: Register, raw: Register, registrations: int, concurrency: int, rounds: int
) -> tuple[float, float]:
    pairs = [
        (
            await _rate(ours, registrations, concurrency),
            await _rate(raw, registrations, concurrency),
        )
        for _ in range(rounds)
    ]
    return statistics.median(pair[0] for pair in pairs), statistics.median(p[1] for p in pairs)


async def _rate(register: Register, registrations: int, concurrency: int) -> float:
    remaining = iter(range(registrations))

    async def work() -> None:
        for _ in remaining:
            await register()

    started = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for _ in range(concurrency):
            tasks.start_soon(work)
    return registrations / (time.perf_counter() - started)
