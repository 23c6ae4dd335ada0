"""Standards indexed and searched, beside Postgres' own text search over the same passages."""

import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count, cycle
from pathlib import Path
from random import Random

import psutil

from server.app import open_app
from server.settings import Settings
from server.standards.indexer import index_standards
from server.standards.search import search_now, search_standards
from server.standards.shapes import SearchResult
from server.work import AGENT_SCOPES, App, Caller
from tests.benchmarks.distractors import NOUNS, write_distractors
from tests.benchmarks.quality import CORPUS, judged, questions
from tests.benchmarks.report import Row, Samples, Section, Verdict
from tests.benchmarks.textsearch import ANY, TextSearch, text_search
from tests.benchmarks.turns import Run, in_turns, plain
from tests.benchmarks.wire import DRAMATIS, PATIENCE_S, Wire, spawned
from tests.db.sessions import REPOSITORY

INDEX_GOAL_S = 3
SEARCHABLE_GOAL_MS = 2_000
QUERY_GOAL_MS = 20
# A change is rarer than a search, and takes longer.
CHANGES = 10


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many passages are generated: for the goal of indexing, and to be searched."""

    indexed: int
    searched: int


@dataclass(frozen=True, slots=True)
class Bench:
    """A project, an app in it, and the baseline."""

    root: Path
    app: App
    caller: Caller
    baseline: TextSearch

    @property
    def standards(self) -> Path:
        return self.root / ".agent-os" / "standards"

    async def index(self) -> int:
        return (await index_standards(self.app, self.caller)).passages

    async def search(self, *queries: str) -> SearchResult:
        return await search_standards(self.app, self.caller, queries)


async def measure(host: str, data_root: Path, sizes: Sizes, *, rounds: int) -> list[Section]:
    changes = min(CHANGES, rounds)
    async with bench(host, data_root) as small:
        write_distractors(small.standards, passages=sizes.indexed)
        rows = [await _first(small, INDEX_GOAL_S), *await _again(small, changes)]
    async with bench(host, data_root) as docs:
        for file in [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")]:
            shutil.copy(file, docs.standards)
        rows.append(await _first(docs))
        rows.append(await _searched(docs, "  then asked a question, in ms", rounds))
    async with bench(host, data_root) as large:
        write_distractors(large.standards, passages=sizes.searched)
        shutil.copytree(CORPUS, large.standards, dirs_exist_ok=True)
        rows.append(await _first(large))
        rows.append(await _searched(large, "  then asked a question, in ms", rounds))
        await large.baseline.connection.execute("VACUUM ANALYZE")
        with spawned(_serving(large.root), data_root) as server:
            server.open()
            searching = await _searching(large, server, rounds)
            rows.append(_followed(large, server, changes))
        quality = await judged(
            large.app, large.caller, large.baseline, f"Among {sizes.searched:,} other passages."
        )
    indexing = Section(
        "7a. Indexing standards",
        "The baseline makes a tsvector of the same passages, read from the database, and a GIN index.",
        rows,
    )
    return [indexing, searching, quality]


@asynccontextmanager
async def bench(host: str, data_root: Path) -> AsyncGenerator[Bench]:
    """Make a project without standards, and start an app in it."""
    with tempfile.TemporaryDirectory(prefix="dramatis-bench-") as folder:
        root = Path(folder).resolve()
        settings = Settings(data_root=data_root, project_root=root)
        async with open_app(settings) as app, text_search(host) as baseline:
            caller = Caller("agent", "benchmark", app.tenant_id, AGENT_SCOPES)
            made = Bench(root, app, caller, baseline)
            made.standards.mkdir(parents=True)
            yield made


def _serving(root: Path) -> tuple[str, ...]:
    return ("env", f"DRAMATIS_PROJECT_ROOT={root}", *DRAMATIS, "--toolsets", "standards")


async def _first(made: Bench, goal_s: float | None = None) -> Row:
    passages, ours_s = await _timed(made.index)
    _, raw_s = await _timed(lambda: made.baseline.index(made.root))
    what = f"{passages:,} passages in {len([*made.standards.rglob('*.md')])} files, in s"
    ratio = f"{ours_s / raw_s:.2f} x"
    goal, verdict = _at_most(ours_s, goal_s, "s")
    return Row(what, f"{ours_s:.2f}", f"{raw_s:.2f}", ratio, goal, verdict)


async def _again(made: Bench, changes: int) -> list[Row]:
    """Look for changes where there are none, then in one file; then save, and find at once."""
    words = (f"wyvern{number}" for number in count())
    file = next(made.standards.rglob("*.md"))

    def change() -> str:
        word = next(words)
        file.write_text(f"{file.read_text()}\n\nThis is a {word}.\n")
        return word

    async def replace_file() -> None:
        change()
        await made.index()

    async def find() -> None:
        result = await search_now(made.app, made.caller, change())
        assert result.hits

    unchanged, replaced, found = await in_turns(changes, made.index, replace_file, find)
    return [
        Row("  again, nothing changed, in ms", unchanged.p50_and_p95()),
        Row("  again, one file replaced, in ms", replaced.p50_and_p95()),
        Row("  one file saved, until it is found in process, in ms", found.p50_and_p95()),
    ]


async def _searched(made: Bench, what: str, rounds: int) -> Row:
    asked = _questions()
    ours, raw = await in_turns(rounds, *_pair(made, asked))
    return _beside(what, ours, raw)


async def _searching(made: Bench, server: Wire, rounds: int) -> Section:
    asked = _questions()
    passages = await made.index()
    tokens, sizes = list[float](), list[float]()

    def over_stdio(question: str) -> None:
        tokens.append(server.call("search_standards", {"queries": [question]})["tokens"])
        sizes.append(server.answer_bytes)

    same = next(asked)
    ours, raw, several, again, stdio, again_stdio = await in_turns(
        rounds,
        *_pair(made, asked),
        lambda: made.search(next(asked), next(asked), next(asked)),
        lambda: made.search(same),
        plain(lambda: over_stdio(next(asked))),
        plain(lambda: over_stdio(same)),
    )
    memory = psutil.Process(server.pid).memory_info().rss / 1024**2
    return Section(
        f"7b. Searching {passages:,} passages, in ms: p50 / p95",
        "No question twice, unless it says so. The baseline is ts_rank with OR between the words;"
        f" {rounds} of each, in turns. The goal is for the p95, the ratio that of the p50.",
        [
            _beside("a question, in process", ours, raw, QUERY_GOAL_MS),
            _beside("a question, over stdio", stdio, raw, QUERY_GOAL_MS),
            _beside("three wordings, in process", several, raw, QUERY_GOAL_MS),
            _beside("the same again, in process", again, raw),
            _beside("the same again, over stdio", again_stdio, raw),
            Row("an answer, in tokens", Samples(tuple(tokens)).p50_and_p95()),
            Row("an answer over stdio, in bytes", Samples(tuple(sizes)).p50_and_p95()),
            Row("memory of that server, in MB", f"{memory:.1f}"),
        ],
    )


def _pair(made: Bench, asked: Iterator[str]) -> tuple[Run, Run]:
    """Ask us and the baseline, each something new."""
    return (lambda: made.search(next(asked)), lambda: made.baseline.find(ANY, next(asked)))


def _questions() -> Iterator[str]:
    """Ask without end, and nothing twice: what was asked before is remembered."""
    random = Random(1)
    for one in cycle(questions()):
        yield " ".join([one.question, *random.sample(NOUNS, 2)])


def _followed(made: Bench, server: Wire, changes: int) -> Row:
    """Save a file, and ask the server that follows the folder until it finds it."""
    times: list[float] = []
    for number in range(changes):
        word = f"basilisk{number}"
        began = time.perf_counter()
        (made.standards / "testing" / "saved.md").write_text(f"# Saved\n\nThis is a {word}.\n")
        while not server.call("search_standards", {"queries": [word]})["hits"]:
            assert time.perf_counter() - began < PATIENCE_S, (
                "The server does not follow the folder."
            )
            time.sleep(0.01)
        times.append((time.perf_counter() - began) * 1000)
    samples = Samples(tuple(times))
    what = "  one file saved, until a server that follows it finds it, in ms"
    goal, verdict = _at_most(samples.p95, SEARCHABLE_GOAL_MS, "ms")
    return Row(what, samples.p50_and_p95(), goal=goal, verdict=verdict)


def _beside(what: str, ours: Samples, raw: Samples, goal_ms: float | None = None) -> Row:
    ratio = f"{ours.median / raw.median:.2f} x"
    goal, verdict = _at_most(ours.p95, goal_ms, "ms")
    return Row(what, ours.p50_and_p95(), raw.p50_and_p95(), ratio, goal, verdict)


def _at_most(value: float, goal: float | None, unit: str) -> tuple[str, Verdict]:
    if goal is None:
        return "", ""
    return f"<= {goal:g} {unit}", "met" if value <= goal else "missed"


async def _timed(run: Callable[[], Awaitable[object]]) -> tuple[object, float]:
    began = time.perf_counter()
    result = await run()
    return result, time.perf_counter() - began
