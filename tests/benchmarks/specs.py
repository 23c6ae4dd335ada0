"""Specs written, published and run, beside their own statements in psycopg."""

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from server.app import open_app
from server.personas.queries import the_persona
from server.personas.service import register_persona
from server.settings import Settings
from server.specs.becoming import become_persona
from server.specs.examples import example_text
from server.specs.notation import as_yaml, parse_text, read_spec, stored_spec
from server.specs.publishing import publish_spec
from server.specs.queries import active_row, get_spec
from server.specs.runtime import runtime_prompt
from server.specs.service import create_spec
from server.work import OPERATOR_SCOPES, App, Caller, Work
from tests.benchmarks.large_spec import INTENTS, QUERY, large_spec
from tests.benchmarks.raw import Connection, Replay, Statement, pool, recorded
from tests.benchmarks.report import Row, Samples, Section, Verdict, at_most
from tests.benchmarks.turns import Run, in_turns, plain
from tests.benchmarks.wire import DRAMATIS, Wire, spawned

# As for the other verb that writes, a registration.
PUBLISH_GOAL = 2
RETRIEVAL_GOAL_MS = 5
ORDINARY = "developer"
VERSIONS = ("1.0.0", "1.0.1")
SERVER = (*DRAMATIS, "--toolsets", "personas,specs")
STORING = b"INSERT INTO dramatis.persona_specs"

Verb = Callable[[Work], Awaitable[object]]
Document = str | Mapping[str, Any]


async def measure(host: str, data_root: Path, *, rounds: int) -> list[Section]:
    """Measure with specs that are active, and were read before in both processes."""
    with spawned(SERVER, data_root) as server:
        server.open()
        async with open_app(Settings(data_root=data_root)) as app, pool(host, 1) as idle:
            caller = Caller("operator", "benchmark", app.tenant_id, OPERATOR_SCOPES)
            ada, bea = [
                (await register_persona(app, caller, name=name, role="developer")).slug
                for name in ("Ada", "Bea")
            ]
            async with idle.connection() as connection:
                large = _Bench(app, caller, ada, connection, server, rounds)
                for version in VERSIONS:
                    await large.creating({"version": version, **large_spec()})()
                    await large.publishing(version)()
                ordinary = replace(large, slug=bea)
                await ordinary.creating(example_text(ORDINARY))()
                await ordinary.publishing(VERSIONS[0])()
                return [
                    await _retrieval(large, ordinary),
                    await _publishing(large),
                    await _creating(replace(large, rounds=max(1, rounds // 5))),
                ]


@dataclass(frozen=True, slots=True)
class _Bench:
    app: App
    caller: Caller
    slug: str
    connection: Connection
    server: Wire
    rounds: int

    def working(self, verb: Verb) -> Run:
        async def run() -> None:
            async with self.app.work(self.caller) as work:
                await verb(work)

        return run

    def creating(self, document: Document) -> Run:
        return self.working(lambda work: create_spec(work, self.slug, document))

    def publishing(self, version: str) -> Run:
        return self.working(
            lambda work: publish_spec(work, self.slug, version, note="To be measured.")
        )

    async def recorded(self, run: Run) -> list[Statement]:
        with recorded(self.app.database.engine) as statements:
            await run()
        return list(statements)

    async def replaying(self, run: Run) -> Run:
        return partial(Replay(await self.recorded(run), None).run, self.connection)


async def _retrieval(large: _Bench, ordinary: _Bench) -> Section:
    rows = [
        row
        for name, bench in (("large", large), ("ordinary", ordinary))
        for retrieval in _retrievals(bench.slug)
        for row in await _retrieved(bench, name, retrieval)
    ]
    return Section(
        "6c. The prompt of a running agent, in ms: p50 / p95",
        f"The large spec, and the shipped one of a {ORDINARY}, got and compiled each time; become_persona"
        f" brings the large one under {large.app.prompt_tokens:,} tokens. The goal is for the p50."
        f" The baseline sends the same statements in psycopg; {large.rounds} of each, in turns.",
        [*rows, await _first_of_a_version(large)],
    )


@dataclass(frozen=True, slots=True)
class _Retrieval:
    what: str
    verb: Verb
    tool: str
    arguments: dict[str, Any]


def _retrievals(slug: str) -> list[_Retrieval]:
    intent = INTENTS[0]
    compiling, becoming = "compile_persona_prompt", "become_persona"
    return [
        _Retrieval(
            "runtime_prompt", lambda work: runtime_prompt(work, slug), compiling, {"persona": slug}
        ),
        _Retrieval(
            "runtime_prompt with an intent and a query",
            lambda work: runtime_prompt(work, slug, intent=intent, query=QUERY),
            compiling,
            {"persona": slug, "intent": intent, "query": QUERY},
        ),
        _Retrieval(
            "become_persona with a task",
            lambda work: become_persona(work, slug, QUERY),
            becoming,
            {"persona": slug, "task": QUERY},
        ),
    ]


async def _retrieved(bench: _Bench, spec: str, retrieval: _Retrieval) -> list[Row]:
    run = bench.working(retrieval.verb)
    ours, raw, stdio = await in_turns(
        bench.rounds,
        run,
        await bench.replaying(run),
        plain(partial(bench.server.call, retrieval.tool, retrieval.arguments)),
    )
    what = f"{spec}: {retrieval.what}"
    verdict: Verdict = "met" if ours.median <= RETRIEVAL_GOAL_MS else "missed"
    judged = replace(
        _beside(f"{what}, in process", ours, raw),
        goal=f"<= {RETRIEVAL_GOAL_MS} ms",
        verdict=verdict,
    )
    return [judged, _beside(f"{what}, over stdio", stdio, raw)]


async def _first_of_a_version(bench: _Bench) -> Row:
    """Read the document too, as each process does once for a version."""
    run = bench.working(lambda work: runtime_prompt(work, bench.slug))

    async def first() -> None:
        stored_spec.cache_clear()
        await run()

    ours, raw = await in_turns(bench.rounds, first, await bench.replaying(run))
    return _beside("large: runtime_prompt, in process, first of a version", ours, raw)


async def _publishing(bench: _Bench) -> Section:
    """Let two versions change places: what ours publishes, the baseline takes back."""
    first, second = map(bench.publishing, VERSIONS)
    published, raw = await in_turns(bench.rounds, second, await bench.replaying(first))
    rows = [_beside("publish_spec", published, raw, PUBLISH_GOAL)]

    async def active(work: Work) -> object:
        return await active_row(work, await the_persona(work, bench.slug))

    getting: dict[str, Verb] = {
        "active_row": active,
        "get_spec, the active one": lambda work: get_spec(work, bench.slug),
    }
    for what, verb in getting.items():
        run = bench.working(verb)
        ours, raw = await in_turns(bench.rounds, run, await bench.replaying(run))
        rows.append(_beside(what, ours, raw))
    return Section(
        "6d. Publishing and getting the large spec, in ms: p50 / p95",
        "The baseline sends the same statements in psycopg; what ours publishes, it takes back."
        f" {bench.rounds} of each, in turns. The ratio is that of the p50.",
        rows,
    )


async def _creating(bench: _Bench) -> Section:
    mapping = large_spec()
    as_text = as_yaml(read_spec(mapping))
    documents: dict[str, Document] = {
        "YAML": as_text,
        "JSON": json.dumps(mapping, ensure_ascii=False),
        "a mapping": mapping,
    }
    patches = count()
    created: dict[str, Samples] = {}
    rows: list[Row] = []
    for what, document in documents.items():
        run = bench.creating(document)
        statements = await bench.recorded(run)
        storing = partial(_store_again, bench.connection, statements, patches)
        created[what], raw = await in_turns(bench.rounds, run, storing)
        rows.append(_beside(f"create_spec from {what}", created[what], raw))
    (parsed,) = await in_turns(bench.rounds, plain(partial(parse_text, as_text)))
    share = parsed.median / created["YAML"].median
    rows.append(Row("parsing the YAML alone", parsed.p50_and_p95(), "", f"{share:.0%} of it"))
    return Section(
        "6e. Creating the large spec, in ms: p50 / p95",
        f"Written in {len(as_text) / 1000:.0f} kB of YAML. The baseline sends the same statements in"
        f" psycopg; {bench.rounds} of each, in turns. The ratio is that of the p50.",
        rows,
    )


async def _store_again(
    connection: Connection, statements: list[Statement], patches: Iterator[int]
) -> None:
    """Store under a version nobody has, and lower than all, so that ours goes on from its own."""
    unused = {"major": 0, "minor": 0, "patch": next(patches)}
    renumbered = [
        replace(statement, parameters={**statement.parameters, **unused})
        if statement.text.startswith(STORING)
        else statement
        for statement in statements
    ]
    await Replay(renumbered, None).run(connection)


def _beside(what: str, ours: Samples, raw: Samples, goal: float | None = None) -> Row:
    return at_most(what, ours.p50_and_p95(), raw.p50_and_p95(), ours.median / raw.median, goal)
