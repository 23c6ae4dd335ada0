"""Jobs on models: what is streamed, spent, refused and said, against a server on loopback."""

import asyncio
import itertools
import sys
from dataclasses import replace
from typing import Any

import anyio
import pytest
from dirty_equals import IsDatetime, IsPositiveFloat
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic_ai.models import Model
from pydantic_ai.usage import RequestUsage

from server.errors import NotFound
from server.jobs.model_choice import ModelConfig, PriceUnknown, key_of, model_of, price_of
from server.jobs.model_progress import doing
from server.jobs.model_tools import shortened
from server.jobs.models import CUT_OFF, MOST_REQUESTS
from server.jobs.running import (
    BudgetSpent,
    Outcome,
    RunFailed,
    RunnerMissing,
    RunTimedOut,
)
from server.jobs.tooling import RunTool
from tests.jobs.model_runs import JOB, KEY, SEARCH, Told, run
from tests.jobs.model_server import (
    Calls,
    ModelServer,
    Reply,
    Request,
    Says,
    Silence,
    serving_model,
)

pytestmark = pytest.mark.anyio


async def read_standard(domain: str, topic: str) -> str:
    raise NotFound(f"There is no standard {topic} in {domain}.")


READ = RunTool("read_standard", "Read one.", read_standard)


async def test_an_answer_is_streamed_and_counted():
    told = Told()

    async with serving_model([Says(["Use ", "a ", "lease."], usage=(120, 8))]) as server:
        outcome = await run(server, told)

    assert outcome == Outcome("Use a lease.", 120, 8, usd=None)
    assert told.texts == ["Use ", "a ", "lease."]
    assert told.progressed == snapshot(
        [("initializing", 2, "asking played"), ("generating", 60, "writing the answer")]
    )
    assert [step.model_dump() for step in told.steps] == snapshot(
        [
            {
                "attempt": 1,
                "kind": "model",
                "name": "played",
                "began_at": IsDatetime,
                "duration_ms": IsPositiveFloat,
                "error": None,
                "details": {"input_tokens": 120, "output_tokens": 8},
            }
        ]
    )
    assert told.spends == snapshot([{"in": 120, "out": 8, "usd": None, "estimated": False}])


async def test_text_is_reported_while_the_model_still_writes():
    told, gate = Told(), anyio.Event()
    early: list[str] = []

    async with (
        serving_model([Says(["Use ", gate, "a lease."])]) as server,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(run, server, told)
        with anyio.fail_after(5):
            await told.wrote.wait()
        early.extend(told.texts)
        gate.set()

    assert (early, told.texts) == (["Use "], ["Use ", "a lease."])


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


@pytest.mark.parametrize("odd", ["\0", "\ud800"])
async def test_characters_that_no_text_should_have_do_not_end_a_run(odd: str):
    async with serving_model([Says(["a", f"b{odd}"])]) as server:
        outcome = await run(server)

    assert outcome.text == f"ab{odd}"


async def test_a_model_that_thinks_says_so():
    told = Told()

    async with serving_model([Says(["Done."], thought=["Hm", "m."], usage=None)]) as server:
        outcome = await run(server, told)

    assert outcome == Outcome("Done.", 11, 3, usd=None, estimated=True)
    assert told.progressed[1] == ("analyzing", 5, "thinking")


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


async def test_a_server_that_does_not_count_is_counted_by_the_texts():
    told = Told()

    async with serving_model([Says(["Use a lease."], usage=None)]) as server:
        outcome = await run(server, told)

    assert outcome == Outcome("Use a lease.", 11, 3, usd=None, estimated=True)
    assert told.steps[0].details == {"input_tokens": 11, "output_tokens": 3, "estimated": True}


async def test_a_cancelled_run_stops_at_once_and_keeps_what_it_was_told():
    told = Told()

    async with serving_model([Says(["Half ", anyio.Event()])]) as server:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, server, told)
            with anyio.fail_after(5):
                await told.wrote.wait()
            tasks.cancel_scope.cancel()
        with anyio.fail_after(5):
            await server.left.wait()

    assert told.texts == ["Half "]
    assert [step.error for step in told.steps] == ["It was interrupted."]
    assert told.spends == [{"in": 11, "out": 2, "usd": None, "estimated": True}]


async def test_a_run_whose_task_is_cancelled_stops_too():
    told = Told()

    async with serving_model([Says(["Half ", anyio.Event()])]) as server:
        task = asyncio.create_task(run(server, told))
        with anyio.fail_after(5):
            await told.wrote.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await server.left.wait()

    assert told.spends == [{"in": 11, "out": 2, "usd": None, "estimated": True}]


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


@pytest.mark.parametrize("reply", [Silence(), Says(["Half ", anyio.Event()])])
async def test_a_model_that_falls_silent_is_given_up(reply: Reply):
    told = Told()

    async with serving_model([reply]) as server:
        with pytest.raises(RunTimedOut, match=r"said nothing for 0\.3 seconds"):
            await run(server, told, config=ModelConfig(silence_s=0.3))
        with anyio.fail_after(5):
            await server.left.wait()

    assert [step.error for step in told.steps] == ["The model said nothing for 0.3 seconds."]


async def test_a_slow_tool_is_not_the_silence_of_the_model():
    async def slow() -> str:
        await anyio.sleep(0.3)
        return "Here."

    async with serving_model([Calls([("slow", {})]), Says(["Done."])]) as server:
        outcome = await run(
            server, None, [RunTool("slow", "Wait.", slow)], ModelConfig(silence_s=0.2)
        )

    assert outcome.text == "Done."


async def test_a_run_that_would_exceed_its_tokens_asks_nothing():
    async with serving_model([]) as server:
        with pytest.raises(BudgetSpent) as raised:
            await run(server, tokens_limit=9)

    assert (str(raised.value), server.requests) == (
        snapshot(
            "The run may spend 9 tokens, and would spend about 11. Give it a smaller task, or set DRAMATIS_RUN_TOKENS."
        ),
        [],
    )


async def test_tokens_are_checked_before_each_further_request():
    script = [Calls([("search_standards", {"queries": ["x"]})], usage=(9_000, 900))]

    async with serving_model(script) as server:
        with pytest.raises(BudgetSpent, match="may spend 10,000 tokens"):
            await run(server, None, [SEARCH])

    assert len(server.requests) == 1


async def test_an_answer_without_end_is_stopped_at_the_limit():
    told = Told()

    async with serving_model([Says(itertools.repeat("word "))]) as server:
        with pytest.raises(BudgetSpent):
            await run(server, told, tokens_limit=200)
        with anyio.fail_after(5):
            await server.left.wait()

    assert told.spends[0]["out"] == 190
    assert told.steps[0].error == snapshot(
        "The run may spend 200 tokens, and would spend about 201. Give it a smaller task, or set DRAMATIS_RUN_TOKENS."
    )


async def test_an_answer_that_is_complete_is_kept_although_it_cost_more():
    async with serving_model([Says(["Done."], usage=(9_000, 2_000))]) as server:
        outcome = await run(server)

    assert outcome == Outcome("Done.", 9_000, 2_000, usd=None)


async def test_the_price_of_the_worker_counts_for_its_own_model():
    script = [
        Calls([("search_standards", {"queries": ["x"]})], usage=(1_000, 100)),
        Says(["Done."], usage=(2_000, 200)),
    ]
    told = Told()

    async with serving_model(script) as server:
        config = ModelConfig("played", server.url, price=(2.0, 10.0))
        outcome = await run(server, told, [SEARCH], config, usd_limit=1.0)

    assert [spend["usd"] for spend in told.spends] == pytest.approx([0.003, 0.009])
    assert outcome.usd == pytest.approx(0.009)


async def test_money_is_checked_before_each_further_request():
    script = [Calls([("search_standards", {"queries": ["x"]})], usage=(1_000, 100))]

    async with serving_model(script) as server:
        config = ModelConfig("played", server.url, price=(2.0, 10.0))
        with pytest.raises(BudgetSpent) as raised:
            await run(server, None, [SEARCH], config, usd_limit=0.004)

    assert (str(raised.value), len(server.requests)) == (
        snapshot(
            "The run may spend 0.004 USD, and would spend about 0.0052. Give it a smaller task, or set DRAMATIS_RUN_USD."
        ),
        1,
    )


@pytest.mark.parametrize("name", ["played", "gpt-4o"])
async def test_a_limit_in_money_needs_a_price(name: str):
    async with serving_model([]) as server:
        with pytest.raises(PriceUnknown) as raised:
            await run(server, model=name, usd_limit=1.0)

    assert (str(raised.value), server.requests) == (
        (
            f"The price of {name} is not known, so a limit in USD cannot be kept. Set DRAMATIS_MODEL_PRICE to `input/output` in USD per million tokens."
        ),
        [],
    )


async def test_an_answer_that_was_cut_off_says_so():
    told = Told()

    async with serving_model([Says(["Half a"], finish="length")]) as server:
        outcome = await run(server, told)

    assert outcome.text == f"Half a{CUT_OFF}" == "".join(told.texts)


async def test_strict_servers_understand_what_they_are_sent():
    async with serving_model([Says(["Done."])]) as server:
        await run(server, None, [SEARCH])

    request = server.requests[0]
    assert request.path == "/v1/chat/completions"
    assert request.body == snapshot(
        {
            "model": "played",
            "stream": True,
            "messages": [
                {"role": "system", "content": "You are the architect."},
                {"role": "user", "content": "Review the queue."},
            ],
            "stream_options": {"include_usage": True},
            "tool_choice": "auto",
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "search_standards",
                        "description": "Find passages.",
                        "parameters": {
                            "additionalProperties": False,
                            "properties": {
                                "queries": {"items": {"type": "string"}, "type": "array"},
                                "limit": {"default": 5, "type": "integer"},
                            },
                            "required": ["queries"],
                            "type": "object",
                        },
                    },
                }
            ],
        }
    )


async def test_the_key_goes_to_the_address_it_was_made_for_and_nowhere_else():
    def done(_: Request) -> Reply:
        return Says(["Done."])

    async with serving_model(done) as mine, serving_model(done) as other:
        config = ModelConfig(url=mine.url, key=lambda: KEY)
        for server in (mine, other):
            await run(server, config=config)
        await run(mine, config=replace(config, key=lambda: None))

    assert [request.headers["authorization"] for request in mine.requests] == [
        "Bearer sk-worker-0123456789",
        "Bearer none",
    ]
    assert "0123456789" not in repr(other.requests)
    assert "0123456789" not in repr(config)


async def test_the_key_goes_to_the_provider_of_the_worker_only(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    config = ModelConfig("openai:gpt-5", key=lambda: KEY)

    def model(name: str) -> Model:
        job = replace(JOB, model=name)
        return model_of(job, key_of(job, config))

    mine = model("openai:gpt-5-mini")
    with pytest.raises(RunnerMissing) as raised:
        model("anthropic:claude-sonnet-4-5")

    assert (mine.system, mine.model_name) == ("openai", "gpt-5-mini")
    assert str(raised.value) == snapshot(
        "This worker is not set up for models of anthropic. Set ANTHROPIC_API_KEY where it runs."
    )


async def test_a_price_is_that_of_the_model_it_was_set_for():
    job = replace(JOB, model="openai:nobody-knows-it", usd_limit=1.0)
    config = ModelConfig("openai:gpt-5", key=lambda: KEY, price=(2.0, 10.0))

    with pytest.raises(PriceUnknown):
        price_of(job, config, model_of(job, KEY.get_secret_value()))


async def test_providers_have_prices():
    job = replace(JOB, model="openai:gpt-5", usd_limit=1.0)
    config = ModelConfig("openai:gpt-5", key=lambda: KEY)

    price = price_of(job, config, model_of(job, KEY.get_secret_value()))

    million = price(RequestUsage(input_tokens=1_000_000))
    cached = price(RequestUsage(input_tokens=1_000_000, cache_read_tokens=900_000))
    odd = price(RequestUsage(input_tokens=1_000_000, cache_read_tokens=2_000_000))
    assert million
    assert cached
    assert cached < million == odd


async def test_model_calls_become_spans_without_what_was_said():
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))

    async with serving_model(lambda _: Says(["Use a lease."])) as server:
        await run(server, config=ModelConfig(tracers=provider))
        await run(server)

    finished = spans.get_finished_spans()
    assert [span.name for span in finished] == snapshot(["chat played", "invoke_agent architect"])
    assert "lease" not in repr([dict(span.attributes or {}) for span in finished])


async def test_the_server_runs_by_itself_and_plays_a_persona():
    command = [sys.executable, "-m", "tests.jobs.model_server"]
    async with await anyio.open_process(command, stderr=None) as process:
        try:
            with anyio.fail_after(20):
                assert process.stdout
                url = (await process.stdout.receive()).decode().strip()
                outcome = await run(ModelServer(lambda _: Silence(), url), None, [SEARCH])
        finally:
            process.terminate()

    assert "I answer as: You are the architect" in outcome.text
    assert "> 5 hits for Review the queue." in outcome.text


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


@given(st.dictionaries(st.text(), JSON, max_size=3))
def test_arguments_in_the_record_are_short_and_keep_their_shape(arguments: dict[str, Any]):
    kept = shortened(arguments)

    assert kept.keys() == arguments.keys()
    assert all(len(value) <= 200 for value in kept.values() if isinstance(value, str))
    assert shortened(kept) == kept
