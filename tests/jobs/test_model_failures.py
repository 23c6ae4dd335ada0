"""What a run on a model says when the model, its server or its provider fails."""

import json

import pytest
from inline_snapshot import snapshot
from pydantic_ai.exceptions import ModelTimeoutError

from server.jobs.model_choice import ModelConfig, model_of
from server.jobs.model_failures import in_our_words
from server.jobs.running import RunFailed, RunnerMissing, RunThrottled, RunTimedOut
from tests.jobs.model_runs import KEY, Told, run
from tests.jobs.model_server import Answers, Reply, Says, serving_model

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("reply", "after_s", "sentence"),
    [
        (
            Answers(429, '{"error": {"message": "Too many."}}', {"Retry-After": "7"}),
            7,
            snapshot("The model provider asks to slow down: Too many."),
        ),
        (Answers(429), None, snapshot("The model provider asks to slow down: No.")),
        (Answers(503), None, snapshot("The model is overloaded: No.")),
        (
            Answers(529, headers={"Retry-After": "3"}),
            3,
            snapshot("The model is overloaded: No."),
        ),
    ],
)
async def test_a_model_that_is_busy_is_asked_again_later(
    reply: Answers, after_s: float | None, sentence: str
):
    async with serving_model([reply]) as server:
        with pytest.raises(RunThrottled) as raised:
            await run(server)

    assert (raised.value.after_s, str(raised.value)) == (after_s, sentence)
    assert len(server.requests) == 1


FAILURES: list[tuple[Reply, str]] = [
    (Answers(500), snapshot("The model provider answered 500: No.")),
    (
        Answers(500, "<h1>Oops</h1>", kind="text/html"),
        snapshot("The model provider answered 500: <h1>Oops</h1>."),
    ),
    (
        Answers(401, '{"error": {"message": "Bad key sk-work***6789."}}'),
        snapshot(
            "The model provider refused the key. Check DRAMATIS_MODEL_KEY or the provider's variable where the worker runs."
        ),
    ),
    (
        Answers(403),
        snapshot(
            "The model provider refused the key. Check DRAMATIS_MODEL_KEY or the provider's variable where the worker runs."
        ),
    ),
    (
        Answers(404, '{"error": {"message": "No model played."}}'),
        snapshot(
            "The model provider does not know the model: No model played. Check DRAMATIS_MODEL and DRAMATIS_MODEL_URL."
        ),
    ),
    (Answers(402), snapshot("The account at the model provider is used up: No.")),
    (
        Answers(400, '{"error": {"message": "Too long.", "code": "context_length_exceeded"}}'),
        snapshot(
            "The task and what was read for it are too long for the model. Give less context, or a model with a larger window."
        ),
    ),
    (
        Answers(400, json.dumps({"error": {"message": "bad\nline " * 100}})),
        snapshot(
            "The model provider answered 400: bad line bad line bad line bad line bad line bad line bad line bad line bad line bad line bad line bad line bad line bad line bad line bad line bad line bad line bad line bad line bad line bad line b…."
        ),
    ),
    (
        Answers(400, '{"error": {"message": "at http://me:pw@host/v1 in /srv/app/x.py"}}'),
        snapshot("The model provider answered 400: at … in …/x.py."),
    ),
    (
        Answers(400, '{"error": {"message": "No such thing as sk-worker-0123456789 here."}}'),
        snapshot("The model provider answered 400: No such thing as … here."),
    ),
    (
        Answers(400, '{"error": "password: hunter2-Q7x9Lm"}'),
        snapshot("The model provider answered 400: it repeats a secret, so it is not shown."),
    ),
    (
        Answers(200, "<h1>Hello</h1>", kind="text/html"),
        snapshot(
            "The model gave no usable answer: Streamed response ended without content or tool calls."
        ),
    ),
    (
        Answers(200, 'data: {"choices": 3}\n\n', kind="text/event-stream"),
        snapshot("What the model server sent is no answer that can be read."),
    ),
    (
        Answers(200, "data: {oops\n\n", kind="text/event-stream"),
        snapshot(
            "What the model server sent is no whole answer: Failed to decode response as JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)."
        ),
    ),
    (
        Answers(200, "", kind="text/event-stream"),
        snapshot(
            "The model gave no usable answer: Streamed response ended without content or tool calls."
        ),
    ),
    (
        Says(["Half "], torn=True),
        snapshot("The model server closed the connection before the answer was complete."),
    ),
    (
        Says(["Half "], finish=None),
        snapshot(
            "What the model server sent is no whole answer: Streamed response ended without a `finish_reason`."
        ),
    ),
    (Says([], refusal="I will not."), snapshot("The model refused to answer.")),
    (Says([], finish="content_filter"), snapshot("The model refused to answer.")),
    (
        Says([], finish="length"),
        snapshot("The limit of output tokens, of the model or of the run, came before an answer."),
    ),
    (Says(["\n", "\n"]), snapshot("The model answered with nothing but blanks.")),
]


@pytest.mark.parametrize(("reply", "sentence"), FAILURES)
async def test_a_failure_is_one_plain_sentence(reply: Reply, sentence: str):
    async with serving_model(lambda _: reply) as server:
        config = ModelConfig(url=server.url, key=lambda: KEY)
        with pytest.raises(RunFailed) as raised:
            await run(server, config=config)

    assert type(raised.value) is RunFailed
    assert str(raised.value) == sentence


async def test_a_refused_request_costs_nothing_and_a_torn_answer_does():
    refused, silent, torn, away = Told(), Told(), Told(), Told()
    script = [Answers(500), Says([], torn=True), Says(["Half "], torn=True)]

    async with serving_model(script) as server:
        for told in (refused, silent, torn):
            with pytest.raises(RunFailed):
                await run(server, told)
    with pytest.raises(RunFailed):
        await run(server, away)

    free = {"in": 0, "out": 0, "usd": None, "estimated": False}
    assert (refused.spends, away.spends) == ([free], [free])
    assert silent.spends == [{"in": 11, "out": 0, "usd": None, "estimated": True}]
    assert torn.spends == [{"in": 11, "out": 2, "usd": None, "estimated": True}]
    assert (torn.texts, torn.steps[0].error) == (
        ["Half "],
        "The model server closed the connection before the answer was complete.",
    )


async def test_a_server_that_is_not_there_does_not_answer():
    async with serving_model([]) as server:
        pass

    with pytest.raises(RunFailed) as raised:
        await run(server)

    assert str(raised.value) == snapshot(
        "The model server does not answer. Check DRAMATIS_MODEL_URL, and that it runs."
    )


@pytest.mark.parametrize(
    ("name", "kind", "sentence"),
    [
        (
            "groq:llama",
            RunnerMissing,
            snapshot(
                "This worker lacks the package for models of groq. Install the extra `groq` of pydantic-ai-slim beside it."
            ),
        ),
        (
            "nobody:model",
            RunFailed,
            snapshot(
                "There is no model provider 'nobody'. DRAMATIS_MODEL is `provider:name`, for example `openai:gpt-5`, or a name at the server of DRAMATIS_MODEL_URL."
            ),
        ),
        (
            "test",
            RunFailed,
            snapshot(
                "The model test is of no provider. DRAMATIS_MODEL is `provider:name`, for example `openai:gpt-5`, or a name at the server of DRAMATIS_MODEL_URL."
            ),
        ),
        (
            "openai:gpt-5",
            RunnerMissing,
            snapshot(
                "This worker is not set up for models of openai. Set OPENAI_API_KEY where it runs."
            ),
        ),
        (
            "gpt-5",
            RunFailed,
            snapshot(
                "The model gpt-5 is of no provider. DRAMATIS_MODEL is `provider:name`, for example `openai:gpt-5`, or a name at the server of DRAMATIS_MODEL_URL."
            ),
        ),
    ],
)
async def test_a_model_that_cannot_be_had_says_what_is_missing(
    name: str, kind: type[RunFailed], sentence: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    with pytest.raises(kind) as raised:
        model_of(name, None, None)

    assert (type(raised.value), str(raised.value)) == (kind, sentence)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "openrouter:nope",
            snapshot(
                "The model openrouter:nope cannot be used: OpenRouter model names must be prefixed with the upstream provider, e.g. 'openai/nope', not 'nope'."
            ),
        ),
        (
            "openai-codex:gpt-5",
            snapshot(
                "The model openai-codex:gpt-5 cannot be used: No Codex CLI credentials found at `…`."
            ),
        ),
    ],
)
async def test_a_model_that_cannot_be_used_says_why_without_a_path(
    name: str, sentence: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CODEX_HOME", "/nowhere")

    with pytest.raises(RunFailed) as raised:
        model_of(name, None, "some-key")

    assert str(raised.value) == sentence


def test_a_timeout_of_the_library_is_one_of_ours():
    with pytest.raises(RunTimedOut, match="took too long"), in_our_words(None):
        raise ModelTimeoutError("played", "", phase="read")
