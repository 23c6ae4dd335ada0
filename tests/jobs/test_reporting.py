"""What runs tell, and how it is kept."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.jobs.ending import Spending
from server.jobs.reporting import JobReporting, NotOurs
from server.jobs.service import cancel_job
from server.jobs.shapes import Step, keepable
from server.work import App, Caller, DatabaseUnavailable
from tests.conftest import Databases, but, operator
from tests.jobs.conftest import begun, taken
from tests.jobs.workers import Jobs, Outages, given_up

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def step(name: str, kind: Literal["tool", "model", "note"] = "tool", **details: Any) -> Step:
    return Step(attempt=1, kind=kind, name=name, began_at=NOW, duration_ms=2.5, details=details)


@pytest.fixture
async def reporting(app: App, caller: Caller) -> JobReporting:
    return await begun(app, caller)


async def kept(reporting: JobReporting, *names: str) -> tuple[Any, ...]:
    return await Jobs(reporting.app).stored(str(reporting.job_id), *names)


async def cancel(reporting: JobReporting) -> None:
    async with reporting.app.work(reporting.caller) as work:
        await cancel_job(work, str(reporting.job_id))


async def test_words_that_follow_one_another_soon_are_kept_together(reporting: JobReporting):
    patient = but(reporting, together_s=3600)

    await patient.text("One ")
    await patient.flush()
    for word in ("two ", "three"):
        await patient.text(word)
    before = await kept(patient, "partial")
    await patient.flush()

    assert before == ("One ",)
    assert await kept(patient, "partial") == ("One two three",)


async def test_a_character_that_comes_in_two_halves_is_kept_whole(reporting: JobReporting):
    for piece in ("Fine \ud83d", "\ude00", "!\ud83d", "?"):
        await reporting.text(piece)
        await reporting.flush()

    assert await kept(reporting, "partial") == (
        "Fine \N{GRINNING FACE}!\N{REPLACEMENT CHARACTER}?",
    )


@pytest.mark.parametrize(
    ("told", "shown"),
    [([5, 40, 30, 60], [5, 40, 40, 60]), ([99, 100, 250], [99, 99, 99]), ([0, -5], [0, 0])],
)
async def test_progress_never_falls_and_is_whole_only_at_the_end(
    reporting: JobReporting, told: Sequence[int], shown: Sequence[int]
):
    seen: list[int] = []
    for percent in told:
        await reporting.progress("analyzing", percent, f"at {percent}")
        seen += await kept(reporting, "percent")

    assert seen == shown
    assert await kept(reporting, "phase", "message") == ("analyzing", f"at {told[-1]}")


async def test_steps_are_kept_in_order_and_those_of_tools_are_counted(reporting: JobReporting):
    steps = [
        step("unsandboxed", "note", program="agent"),
        step("read_file", file="a.py"),
        step("test", "model", input_tokens=5),
        step("read_file", file="b.py"),
    ]

    for one in steps:
        await reporting.step(one)

    assert (await Jobs(reporting.app).record(str(reporting.job_id))).steps == steps
    assert await kept(reporting, "tool_calls", "unsandboxed") == (2, True)


async def test_characters_that_postgres_cannot_hold_are_replaced(reporting: JobReporting):
    await reporting.text("a\0b\ud800c")
    await reporting.step(step("x", "note", **{"k\0": ["\ud83d\ude00", {"a": "\udc00"}, 1]}))
    await reporting.progress("searching", 5, "reading \0")

    assert await kept(reporting, "partial", "message") == ("a�b�c", "reading �")
    (told,) = (await Jobs(reporting.app).record(str(reporting.job_id))).steps
    assert told.details == {"k�": ["😀", {"a": "�"}, 1]}


@given(st.text(st.characters() | st.sampled_from("\0\ud83d\ude00\udc00")))
def test_every_text_can_be_made_one_that_postgres_holds(told: str):
    made = keepable(told)

    assert "\0" not in made
    assert made.encode().decode() == keepable(made) == made


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_a_text_that_postgres_holds_stays_as_it_is(told: str):
    assert keepable(told) == told


@pytest.mark.parametrize(
    ("before", "usd", "cost"),
    [(None, None, None), (None, 0.5, 0.5), (Decimal("0.25"), None, 0.25), (Decimal(1), 0.1, 1.1)],
)
async def test_what_earlier_attempts_spent_is_added(
    app: App, caller: Caller, before: Decimal | None, usd: float | None, cost: float | None
):
    first = await begun(app, caller)
    earlier = Spending(100, 50, before, estimated=True)
    second = JobReporting(app, caller, first.job_id, first.attempt, earlier)

    await second.spent(input_tokens=10, output_tokens=5, usd=usd)

    stored = await kept(second, "input_tokens", "output_tokens", "spend_estimated", "usd")
    assert stored[:3] == (110, 55, True)
    assert stored[3] == (cost if cost is None else Decimal(str(cost)))
    assert second.written == second.spending


async def test_what_is_spent_is_known_also_when_the_job_is_lost(reporting: JobReporting):
    await reporting.spent(input_tokens=10, output_tokens=5, usd=0.5)
    await cancel(reporting)

    with pytest.raises(NotOurs):
        await reporting.spent(input_tokens=30, output_tokens=6, usd=0.75, estimated=True)

    late = reporting.spending.beyond(reporting.written)
    assert late == Spending(20, 1, Decimal("0.25"), estimated=True)


async def test_what_is_said_again_is_not_kept_again(reporting: JobReporting):
    await reporting.spent(input_tokens=10, output_tokens=5, usd=0.5)
    await cancel(reporting)

    # To write it would be refused by now.
    await reporting.spent(input_tokens=10, output_tokens=5, usd=0.5)

    assert await kept(reporting, "input_tokens", "output_tokens") == (10, 5)


async def test_words_that_may_have_been_kept_already_are_not_kept_twice(
    app: App, caller: Caller, reporting: JobReporting
):
    again = JobReporting(app, caller, reporting.job_id, reporting.attempt, Spending())

    await reporting.text("Whose answer ")
    await again.text("Whose answer was lost.")

    assert await kept(reporting, "partial") == ("Whose answer was lost.",)


async def test_steps_that_may_have_been_kept_already_are_not_kept_twice(
    app: App, caller: Caller, reporting: JobReporting
):
    again = JobReporting(app, caller, reporting.job_id, reporting.attempt, Spending())

    await reporting.step(step("Its answer was lost."))
    for name in ("Its answer was lost.", "next"):
        await again.step(step(name))

    record = await Jobs(app).record(str(reporting.job_id))
    assert record.steps == [step("Its answer was lost."), step("next")]


async def test_the_steps_of_each_attempt_are_kept(jobs: Jobs):
    first = await begun(jobs.app, operator(jobs.app))
    await first.step(step("read_file"))
    await given_up(jobs, str(first.job_id))
    second = await taken(jobs.app, first.caller, first.job_id)

    await second.step(step("read_file"))

    record = await jobs.record(str(first.job_id))
    assert [(one.attempt, one.name) for one in record.steps] == [(1, "read_file"), (2, "read_file")]


async def test_an_earlier_attempt_is_what_one_sees_until_the_next_one_says_something(
    app: App, caller: Caller, reporting: JobReporting
):
    await reporting.text("Half of it.")
    await reporting.step(step("read_file"))
    again = JobReporting(app, caller, reporting.job_id, reporting.attempt, Spending())

    await again.progress("initializing", 0, "starting")
    before = await kept(reporting, "partial", "tool_calls")
    await again.text("All.")
    await again.flush()

    assert before == ("Half of it.", 1)
    assert await kept(reporting, "partial", "tool_calls") == ("All.", 1)


TELLS: list[Callable[[JobReporting], Awaitable[None]]] = [
    lambda run: run.progress("analyzing", 50, "thinking"),
    lambda run: run.text("More."),
    lambda run: run.step(step("read_file")),
    lambda run: run.spent(input_tokens=1, output_tokens=1, usd=None),
]


@pytest.mark.parametrize("tell", TELLS, ids=["progress", "text", "step", "spent"])
async def test_whoever_lost_their_job_is_told_when_they_tell_anything(
    reporting: JobReporting, tell: Callable[[JobReporting], Awaitable[None]]
):
    await cancel(reporting)

    with pytest.raises(NotOurs):
        await tell(reporting)

    assert await kept(reporting, "partial", "percent", "tool_calls", "input_tokens") == (
        "",
        0,
        0,
        0,
    )


async def test_an_earlier_attempt_tells_nothing(app: App, caller: Caller, reporting: JobReporting):
    stale = JobReporting(app, caller, reporting.job_id, reporting.attempt - 1, Spending())

    with pytest.raises(NotOurs):
        await stale.text("Old news.")

    assert await kept(reporting, "partial") == ("",)


async def test_what_was_told_while_the_database_was_away_is_kept_with_what_comes_next(
    own_app: App, databases: Databases
):
    caller = Caller("operator", "tester", own_app.tenant_id, frozenset(("jobs:write",)))
    reporting = await begun(own_app, caller)
    await reporting.text("Before, ")

    async with Outages.of(own_app, databases).away():
        await reporting.progress("analyzing", 40, "thinking")
        await reporting.step(step("read_file"))
        await reporting.step(step("list_files"))
        await reporting.text("meanwhile, ")
        with pytest.raises(DatabaseUnavailable):
            await reporting.write()
    await reporting.text("after.")
    await reporting.progress("generating", 50, "writing")

    record = await Jobs(own_app).record(str(reporting.job_id))
    assert record.steps == [step("read_file"), step("list_files")]
    assert await kept(reporting, "partial", "percent", "tool_calls") == (
        "Before, meanwhile, after.",
        50,
        2,
    )


async def test_what_is_told_from_several_sides_at_once_is_kept_once(own_app: App):
    caller = Caller("operator", "tester", own_app.tenant_id, frozenset(("jobs:write",)))
    reporting = await begun(own_app, caller)

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            await reporting.text(f"{number} ")
            tasks.start_soon(reporting.flush)
            tasks.start_soon(reporting.step, step(f"tool {number}"))
            tasks.start_soon(reporting.write)

    record = await Jobs(own_app).record(str(reporting.job_id))
    assert sorted(one.name for one in record.steps) == sorted(f"tool {n}" for n in range(20))
    assert await kept(reporting, "partial", "tool_calls") == (
        "".join(f"{number} " for number in range(20)),
        20,
    )
