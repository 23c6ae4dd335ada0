"""The compiler alone: beside joining the same lines, and as a spec grows."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from server.markdown import size_bytes
from server.specs.compiler import compile_spec
from server.specs.notation import canonical, read_spec
from server.specs.shapes import PromptPlan
from tests.benchmarks.large_spec import INTENTS, LENGTHS, QUERY, grown_spec, large_spec
from tests.benchmarks.report import Row, Samples, Section, at_most
from tests.benchmarks.turns import in_turns, plain

# Linear, but for the noise of a busy machine.
LINEAR_GOAL = 1.5
BUDGET = 8_000
ASKED: dict[str, dict[str, Any]] = {
    "everything": {},
    "one intent and a query": {"intent": INTENTS[0], "query": QUERY},
    f"a budget of {BUDGET:,} tokens": {"budget": BUDGET},
    "compact": {"variant": "compact"},
}


async def measure(factors: Sequence[int], *, rounds: int) -> list[Section]:
    return [await _large(rounds), await _growth(factors, rounds)]


async def _large(rounds: int) -> Section:
    spec = read_spec(large_spec())
    rows: list[Row] = []
    for what, arguments in ASKED.items():
        compiling = partial(compile_spec, spec, **arguments)
        plan = compiling()
        lines = plan.text.split("\n")
        ours, joining = await in_turns(rounds, plain(compiling), plain(partial("\n".join, lines)))
        rows.append(
            at_most(
                f"{what}: {_kilobytes(plan):.0f} kB, {plan.total_tokens:,} tokens",
                _microseconds(ours),
                _microseconds(joining),
                ours.median / joining.median,
                None,
            )
        )
    return Section(
        "6a. Compiling a large spec, in µs: p50 / p95",
        f"{LENGTHS}: {size_bytes(canonical(spec)) / 1000:.0f} kB as stored. The baseline is the"
        f" floor, joining the lines of the same text; {rounds} of each, in turns.",
        rows,
    )


async def _growth(factors: Sequence[int], rounds: int) -> Section:
    """Compile all sizes in turns; of each the least counts, for the largest takes its time."""
    specs = [read_spec(grown_spec(factor)) for factor in factors]
    plans = [compile_spec(spec) for spec in specs]
    runs = [plain(partial(compile_spec, spec)) for spec in specs]
    fitted = [
        plain(partial(compile_spec, spec, budget=plan.total_tokens // 2))
        for spec, plan in zip(specs, plans, strict=True)
    ]
    whole = _per_kilobyte(await in_turns(rounds, *runs), plans)
    halved = _per_kilobyte(await in_turns(rounds, *fitted), plans)
    rows = [
        at_most(
            f"{factor} x{what}: {_kilobytes(plan):,.0f} kB",
            f"{cost:.1f}",
            f"{costs[0]:.1f}",
            cost / costs[0],
            LINEAR_GOAL if factor == factors[-1] else None,
        )
        for what, costs in (("", whole), (", half of it dropped for a budget", halved))
        for factor, plan, cost in zip(factors, plans, costs, strict=True)
    ]
    return Section(
        "6b. Compiling as a spec grows, in µs per kB of its text",
        "1 x is 10 modules and a few lines of everything else but examples, which are bounded."
        f" The baseline is 1 x; of the fastest of {rounds}, in turns.",
        rows,
    )


def _per_kilobyte(samples: Sequence[Samples], plans: Sequence[PromptPlan]) -> list[float]:
    return [
        min(one.values) * 1000 / _kilobytes(plan) for one, plan in zip(samples, plans, strict=True)
    ]


def _kilobytes(plan: PromptPlan) -> float:
    return size_bytes(plan.text) / 1000


def _microseconds(samples: Samples) -> str:
    return f"{samples.median * 1000:,.0f} / {samples.p95 * 1000:,.0f}"
