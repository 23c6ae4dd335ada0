"""The verbs in process and over stdio, beside their own statements in psycopg."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from server.app import open_app
from server.personas import listing, queries
from server.personas.service import register_persona
from server.personas.shapes import Registered
from server.settings import Settings
from server.work import AGENT_SCOPES, App, Caller, Work
from tests.benchmarks.population import grow
from tests.benchmarks.raw import Connection, Files, Replay, pool, recorded
from tests.benchmarks.report import Row, Samples, Section, at_most
from tests.benchmarks.turns import in_turns, plain
from tests.benchmarks.wire import DRAMATIS, Wire, spawned

REGISTER_GOAL = 2
# Flat, but for the noise of a busy machine.
FLAT_GOAL = 1.5
CALLER = "benchmark"

REGISTER = "register_persona"
ROLE = "role 1"
NAME = "Zephyrine"


@dataclass(frozen=True, slots=True)
class Verb:
    what: str
    tool: str
    arguments: dict[str, Any]
    run: Callable[[App, Caller], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds of one verb at one size."""

    ours: Samples
    raw: Samples
    stdio: Samples


Results = dict[tuple[str, int], Times]


async def measure(host: str, data_root: Path, sizes: list[int], *, rounds: int) -> list[Section]:
    results: Results = {}
    for size in sizes:
        grow(host, size)
        with spawned(DRAMATIS, data_root) as server:
            server.open()
            async with open_app(Settings(data_root=data_root)) as app, pool(host, 1) as idle:
                caller = Caller("agent", CALLER, app.tenant_id, AGENT_SCOPES)
                known = await register_persona(app, caller, name=f"{NAME} {size}", role=ROLE)
                for verb in _verbs(known):
                    async with idle.connection() as connection:
                        timing = _Timing(app, caller, connection, server)
                        results[verb.what, size] = await timing.measured(verb, rounds)
    whats = list(dict.fromkeys(what for what, _ in results))
    return [_speed(results, whats, sizes, rounds), _flatness(results, whats, sizes)]


@dataclass(frozen=True, slots=True)
class _Timing:
    app: App
    caller: Caller
    connection: Connection
    server: Wire

    async def measured(self, verb: Verb, rounds: int) -> Times:
        replay = await self._recorded(verb)
        ours, raw, stdio = await in_turns(
            rounds,
            partial(verb.run, self.app, self.caller),
            partial(replay.run, self.connection),
            plain(partial(self.server.call, verb.tool, verb.arguments)),
        )
        return Times(ours, raw, stdio)

    async def _recorded(self, verb: Verb) -> Replay:
        with recorded(self.app.database.engine) as statements:
            answer = await verb.run(self.app, self.caller)
        files = Files.like(Path(answer.path)) if isinstance(answer, Registered) else None
        return Replay(list(statements), files)


def _verbs(known: Registered) -> list[Verb]:
    async def register(app: App, caller: Caller) -> object:
        return await register_persona(app, caller, name="Con", role=ROLE)

    def get(by: str, reference: str) -> Verb:
        run = _in_work(lambda work: queries.get_persona(work, reference))
        return Verb(f"get_persona by {by}", "get_persona", {"persona": reference}, run)

    return [
        Verb(REGISTER, REGISTER, {"name": "Con", "role": ROLE}, register),
        Verb(
            "lookup_role",
            "lookup_role",
            {"name": "role 0"},
            _in_work(lambda work: listing.lookup_role(work, "role 0")),
        ),
        get("slug", known.slug),
        get("id", str(known.id)),
        get("name", known.name),
        get("part of name", known.name[3:].lower()),
        Verb("list_personas", "list_personas", {}, _in_work(listing.list_personas)),
    ]


def _in_work(
    run: Callable[[Work], Awaitable[object]],
) -> Callable[[App, Caller], Awaitable[object]]:
    async def in_work(app: App, caller: Caller) -> object:
        async with app.work(caller) as work:
            return await run(work)

    return in_work


def _speed(results: Results, whats: list[str], sizes: list[int], rounds: int) -> Section:
    rows: list[Row] = []
    for what in whats:
        for size in sizes:
            times = results[what, size]
            raw, goal = times.raw, REGISTER_GOAL if what == REGISTER else None
            doors = (("in process", times.ours, goal), ("over stdio", times.stdio, None))
            for door, samples, judged in doors:
                rows.append(
                    at_most(
                        f"{what}, {size:,} personas, {door}",
                        samples.p50_and_p95(),
                        raw.p50_and_p95(),
                        samples.median / raw.median,
                        judged,
                    )
                )
    return Section(
        "2a. Verbs, in ms: p50 / p95",
        "The baseline sends the statements that ours sends, and writes the same files, in psycopg;"
        f" {rounds} of each, in turns. The ratio is that of the p50.",
        rows,
    )


def _flatness(results: Results, whats: list[str], sizes: list[int]) -> Section:
    rows: list[Row] = []
    for what in whats:
        least, most = results[what, sizes[0]], results[what, sizes[-1]]
        growth = min(most.ours.values) / min(least.ours.values)
        raw_growth = min(most.raw.values) / min(least.raw.values)
        rows.append(at_most(what, f"{growth:.2f} x", f"{raw_growth:.2f} x", growth, FLAT_GOAL))
    return Section(
        f"2b. Growth in process, from {sizes[0]:,} to {sizes[-1]:,} personas",
        "Of the fastest call: sizes are measured minutes apart, and what else the machine does"
        " would show in the p50. The baseline's growth is that of the statements alone.",
        rows,
    )
