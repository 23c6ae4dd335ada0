"""Jobs on models: what is streamed, sent, stopped and said, against a server on loopback."""

import asyncio
import sys
from dataclasses import replace

import anyio
import pytest
from dirty_equals import IsDatetime, IsPositiveFloat
from inline_snapshot import snapshot
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic_ai.models import Model

from server.errors import NotFound
from server.jobs.model_choice import ModelConfig, key_of, model_of
from server.jobs.models import CUT_OFF
from server.jobs.running import Outcome, RunnerMissing, RunTimedOut
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


@pytest.mark.parametrize("reply", [Silence(), Says(["Half ", anyio.Event()])])
async def test_a_model_that_falls_silent_is_given_up(reply: Reply):
    told = Told()

    async with serving_model([reply]) as server:
        with pytest.raises(RunTimedOut, match=r"said nothing for 0\.3 seconds"):
            await run(server, told, config=ModelConfig(silence_s=0.3))
        with anyio.fail_after(5):
            await server.left.wait()

    assert [step.error for step in told.steps] == ["The model said nothing for 0.3 seconds."]


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


async def test_what_the_worker_keeps_to_itself_goes_to_its_own_address_only(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-worker")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-worker")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Gate: gate-worker\nX-Two: worker:2")

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
    assert mine.requests[0].headers["x-gate"] == "gate-worker"
    assert "worker" not in repr(other.requests)
    assert "worker" not in repr(config)


async def test_the_key_goes_to_the_provider_of_the_worker_only(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    config = ModelConfig("openai:gpt-5", key=lambda: KEY)

    def model(name: str) -> Model:
        job = replace(JOB, model=name)
        return model_of(job.model, job.model_url, key_of(job, config))

    mine = model("openai:gpt-5-mini")
    with pytest.raises(RunnerMissing) as raised:
        model("anthropic:claude-sonnet-4-5")

    assert (mine.system, mine.model_name) == ("openai", "gpt-5-mini")
    assert str(raised.value) == snapshot(
        "This worker is not set up for models of anthropic. Set ANTHROPIC_API_KEY where it runs."
    )


async def test_model_calls_become_spans_without_what_was_said():
    async def read_standard(topic: str) -> str:
        raise NotFound(f"There is no standard {topic}, they said.")

    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    read = RunTool("read_standard", "Read one.", read_standard)
    script = [
        Calls([("read_standard", {"topic": "they-asked"})], first="So they began."),
        Calls([("read_standard", {"they": "misspelt"})]),
        Says(["So they answered."]),
        Says(["Done."]),
    ]

    async with serving_model(script) as server:
        config = ModelConfig(tracers=provider)
        asked = {"prompt": "You do as they say.", "request": "Do what they want."}
        await run(server, None, [read], config, **asked)
        await run(server)

    finished = spans.get_finished_spans()
    assert [span.name for span in finished] == snapshot(
        [
            "chat played",
            "execute_tool read_standard",
            "chat played",
            "execute_tool read_standard",
            "chat played",
            "invoke_agent architect",
        ]
    )
    assert "they" not in "".join(span.to_json() for span in finished)


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

    assert "I answer as: the architect." in outcome.text
    assert "> 5 hits for Review the queue." in outcome.text
