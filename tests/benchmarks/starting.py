"""From spawning the server to its first answers."""

import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from tests.benchmarks.report import Row, Samples, Section, at_most
from tests.benchmarks.wire import BARE, DRAMATIS, LEGACY, MODERN, Command, Era, spawned
from tests.db.sessions import cleared

GOAL = 1.25
OPENINGS: dict[Era, str] = {LEGACY: "initialize", MODERN: "server/discover"}
CALLS: dict[Command, tuple[str, dict[str, Any]]] = {
    DRAMATIS: ("lookup_role", {"name": "developer"}),
    BARE: ("add", {"a": 1, "b": 2}),
}

Times = dict[tuple[Command, Era, str], list[float]]


def measure(data_root: Path, *, rounds: int) -> Section:
    """Start both servers in turns, on a database that runs already."""
    times: Times = defaultdict(list)
    _start(DRAMATIS, LEGACY, defaultdict(list), data_root)
    for _ in range(rounds):
        for era in OPENINGS:
            for command in (DRAMATIS, BARE):
                _start(command, era, times, data_root)
    empty = [_first_start() for _ in range(1 if rounds < 5 else 3)]
    rows = [_row(times, era, until) for era in OPENINGS for until in ("answered", "tools/list")]
    rows.append(_row(times, LEGACY, "tools/call", judged=False))
    for until in ("answered", "tools/call"):
        what = f"empty data directory: spawn to {_named(LEGACY, until)}"
        rows.append(Row(what, Samples(tuple(one[until] for one in empty)).median_and_least()))
    return Section(
        "1. Start, in ms: median [least]",
        f"Ours is `dramatis mcp`, the baseline a one-tool MCPServer of the same SDK; {rounds} runs"
        " of each, in turns.",
        rows,
    )


def _start(command: Command, era: Era, times: Times, data_root: Path) -> None:
    for until, milliseconds in _timed_start(command, era, data_root).items():
        times[command, era, until].append(milliseconds)


def _timed_start(command: Command, era: Era, data_root: Path) -> dict[str, float]:
    with spawned(command, data_root, era=era) as server:
        server.open()
        answered = server.since_spawn_ms()
        server.ask("tools/list")
        listed = server.since_spawn_ms()
        server.call(*CALLS[command])
        return {
            "answered": answered,
            "tools/list": listed,
            "tools/call": server.since_spawn_ms(),
        }


def _first_start() -> dict[str, float]:
    with (
        tempfile.TemporaryDirectory(prefix="dramatis-bench-") as folder,
        cleared(Path(folder) / "data") as data_root,
    ):
        return _timed_start(DRAMATIS, LEGACY, data_root)


def _row(times: Times, era: Era, until: str, *, judged: bool = True) -> Row:
    ours, bare = (Samples(tuple(times[command, era, until])) for command in (DRAMATIS, BARE))
    return at_most(
        f"{OPENINGS[era]}: spawn to {_named(era, until)}",
        ours.median_and_least(),
        bare.median_and_least(),
        ours.median / bare.median,
        GOAL if judged else None,
    )


def _named(era: Era, until: str) -> str:
    match until:
        case "answered":
            return f"{OPENINGS[era]} answered"
        case "tools/call":
            return "first tool call answered"
        case _:
            return f"{until} answered"
