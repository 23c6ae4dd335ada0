"""Tools that models call: what is recorded of them, told to the model, and stopped."""

import math
from hashlib import sha256
from typing import Any

import anyio
import pytest
from dirty_equals import IsDatetime, IsPositiveFloat
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot

from server.errors import NotFound
from server.jobs.model_choice import ModelConfig
from server.jobs.model_progress import doing
from server.jobs.model_tools import CALLS_AT_ONCE, UNFIT, WITHHELD, shortened
from server.jobs.models import MOST_REQUESTS
from server.jobs.running import BudgetSpent, Outcome, RunFailed
from server.jobs.tooling import RunTool
from tests.jobs.model_runs import SEARCH, Told, run
from tests.jobs.model_server import Calls, Says, serving_model

pytestmark = pytest.mark.anyio


async def read_standard(domain: str, topic: str) -> str:
    raise NotFound(f"There is no standard {topic} in {domain}.")


READ = RunTool("read_standard", "Read one.", read_standard)


async def test_tools_are_called_and_recorded():
    told = Told()
    script = [
        Calls([("search_standards", {"queries": ["leases"]})], usage=(100, 10)),
        Says(["Done."], usage=(150, 5)),
    ]

    async with serving_model(script) as server:
        outcome = await run(server, told, [SEARCH])

    assert outcome == Outcome("Done.", 250, 15, usd=None)
    assert server.requests[1].messages[-1]["content"] == "5 hits for leases"
    assert [step.model_dump() for step in told.steps] == snapshot(
        [
            {
                "attempt": 1,
                "kind": "model",
                "name": "played",
                "began_at": IsDatetime,
                "duration_ms": IsPositiveFloat,
                "error": None,
                "details": {"input_tokens": 100, "output_tokens": 10},
            },
            {
                "attempt": 1,
                "kind": "tool",
                "name": "search_standards",
                "began_at": IsDatetime,
                "duration_ms": IsPositiveFloat,
                "error": None,
                "details": {
                    "arguments": {"queries": ["leases"], "limit": 5},
                    "standards": ["api.md"],
                },
            },
            {
                "attempt": 1,
                "kind": "model",
                "name": "played",
                "began_at": IsDatetime,
                "duration_ms": IsPositiveFloat,
                "error": None,
                "details": {"input_tokens": 150, "output_tokens": 5},
            },
        ]
    )
    assert told.progressed == snapshot(
        [
            ("initializing", 2, "asking played"),
            ("searching", 12, "searching the standards"),
            ("analyzing", 44, "thinking about what it found"),
            ("generating", 60, "writing the answer"),
        ]
    )
    assert told.spends == snapshot(
        [
            {"in": 100, "out": 10, "usd": None, "estimated": False},
            {"in": 250, "out": 15, "usd": None, "estimated": False},
        ]
    )


async def test_what_was_said_before_a_tool_call_stands_apart():
    told = Told()
    calls = Calls([("search_standards", {"queries": ["x"]})], first="Let me look.")

    async with serving_model([calls, Says(["Found."])]) as server:
        outcome = await run(server, told, [SEARCH])

    assert "".join(told.texts) == "Let me look.\n\nFound."
    assert outcome.text == "Found."


async def test_a_refusal_of_ours_is_told_to_the_model_which_goes_on():
    told = Told()
    calls = Calls([("read_standard", {"domain": "api", "topic": "x"})])

    async with serving_model([calls, Says(["Without it."])]) as server:
        outcome = await run(server, told, [READ])

    assert outcome.text == "Without it."
    assert server.requests[1].messages[-1] == snapshot(
        {
            "role": "tool",
            "tool_call_id": "call_0",
            "content": '{"error":"There is no standard x in api."}',
        }
    )
    assert told.steps[1].error == "There is no standard x in api."


async def test_arguments_that_do_not_fit_are_said_to_the_model_a_few_times():
    told = Told()
    calls = Calls([("search_standards", {"queries": 3})])

    async with serving_model(lambda _: calls) as server:
        with pytest.raises(RunFailed, match="The model gave no usable answer") as raised:
            await run(server, told, [SEARCH])

    assert str(raised.value) == snapshot(
        "The model gave no usable answer: Tool 'search_standards' exceeded max retries count of 2."
    )
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("name", "arguments", "kept"),
    [
        ("nope", {"queries": ["x"]}, {"queries": ["x"]}),
        ("search_standards", {"queries": 3}, {"queries": 3}),
        ("search_standards", '{"queries": [', {"INVALID_JSON": '{"queries": ['}),
        ("search_standards", {"password": "hunter2-Q7x9Lm"}, {"password": WITHHELD}),
    ],
)
async def test_a_call_that_no_tool_could_take_is_recorded(
    name: str, arguments: dict[str, Any] | str, kept: dict[str, Any]
):
    told = Told()

    async with serving_model([Calls([(name, arguments)]), Says(["Done."])]) as server:
        await run(server, told, [SEARCH])

    (step,) = [step for step in told.steps if step.kind == "tool"]
    assert (step.name, step.error, step.details) == (name, UNFIT, {"arguments": kept})


async def test_what_the_model_is_told_of_a_call_that_does_not_fit_is_counted():
    told = Told()
    script = [
        Calls([("search_standards", {"queries": "x" * 4_000})], usage=(100, 20)),
        Says(["Done."], usage=None),
    ]

    async with serving_model(script) as server:
        await run(server, told, [SEARCH])

    assert told.spends[-1]["in"] == pytest.approx(2 * 100 + 20 + 1_000, rel=0.1)


async def test_few_of_the_tools_that_are_called_at_once_run_at_once():
    running, most, several = 0, 0, anyio.Event()

    async def wait() -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == CALLS_AT_ONCE:
            several.set()
        await several.wait()
        running -= 1
        return "Here."

    call: tuple[str, dict[str, Any]] = ("wait", {})

    async with serving_model([Calls([call] * 3 * CALLS_AT_ONCE), Says(["Done."])]) as server:
        await run(server, None, [RunTool("wait", "Wait.", wait)])

    assert most == CALLS_AT_ONCE


async def test_a_model_that_goes_round_in_circles_is_stopped():
    async with serving_model(lambda _: Calls([("search_standards", {"queries": []})])) as server:
        with pytest.raises(BudgetSpent, match="came to no answer"):
            await run(server, None, [SEARCH], tokens_limit=1_000_000)

    assert len(server.requests) == MOST_REQUESTS


async def test_a_tool_that_breaks_ends_the_run_with_its_own_error():
    async def broken() -> str:
        raise ZeroDivisionError

    told = Told()

    async with serving_model([Calls([("broken", {})])]) as server:
        with pytest.raises(ZeroDivisionError):
            await run(server, told, [RunTool("broken", "Break.", broken)])

    assert told.steps[1].error == "It did not finish."


async def test_a_tool_can_be_cancelled():
    told, began = Told(), anyio.Event()

    async def wait() -> str:
        began.set()
        await anyio.sleep_forever()
        return ""

    async with (
        serving_model([Calls([("wait", {})])]) as server,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(run, server, told, [RunTool("wait", "Wait.", wait)])
        with anyio.fail_after(5):
            await began.wait()
        tasks.cancel_scope.cancel()

    assert [(step.kind, step.error) for step in told.steps] == [
        ("model", None),
        ("tool", "It did not finish."),
    ]


async def test_a_slow_tool_is_not_the_silence_of_the_model():
    async def slow() -> str:
        await anyio.sleep(0.3)
        return "Here."

    async with serving_model([Calls([("slow", {})]), Says(["Done."])]) as server:
        outcome = await run(
            server, None, [RunTool("slow", "Wait.", slow)], ModelConfig(silence_s=0.2)
        )

    assert outcome.text == "Done."


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("search_standards", {"queries": ["x"]}, "searching the standards"),
        ("read_project_file", {"path": "app.py"}, "reading app.py"),
        ("read_standard", {"domain": "api", "topic": "retries"}, "reading retries"),
        ("propose_standard", {"topic": "retries"}, "proposing a standard"),
        ("think", {}, "using think"),
    ],
)
async def test_progress_says_what_a_tool_does(name: str, arguments: dict[str, Any], said: str):
    assert doing(name, arguments) == said


JSON = st.recursive(
    st.text() | st.integers() | st.text(min_size=201),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize(
    "arguments",
    [
        {"content": "# Keys\n\nUse AKIAIOSFODNN7EXAMPLQ.\n"},
        {"content": "# Keys\n\n" + "They rotate. " * 40 + 'password = "hunter2-Q7x9Lm"'},
        {"content": '{"text": "Use\\nAKIAIOSFODNN7EXAMPLQ'},
        {"password": "hunter2-Q7x9Lm"},
        {"evidence": [{"quote": "password: swordfish"}]},
    ],
)
def test_secrets_among_the_arguments_are_not_recorded(arguments: dict[str, Any]):
    kept = repr(shortened(arguments))

    assert WITHHELD in kept
    assert not any(word in kept for word in ("AKIA", "hunter2", "swordfish", "They rotate"))


def test_digests_and_numbers_that_are_none_can_be_recorded():
    arguments = {"base_sha256": sha256(b"").hexdigest(), "confidence": math.nan}

    assert shortened(arguments) == arguments | {"confidence": None}


@given(st.dictionaries(st.text(), JSON, max_size=3))
def test_arguments_in_the_record_are_short_and_keep_their_shape(arguments: dict[str, Any]):
    kept = shortened(arguments)

    assert kept.keys() == arguments.keys()
    assert all(len(value) <= 200 for value in kept.values() if isinstance(value, str))
    assert shortened(kept) == kept
