"""What runs on models cost, and how they are kept to their limits."""

import itertools
import json
from dataclasses import replace

import anyio
import pytest
from inline_snapshot import snapshot
from pydantic_ai.usage import RequestUsage

from server.jobs.model_choice import ModelConfig, model_of, price_of
from server.jobs.model_spending import LEAST_ANSWER
from server.jobs.running import BudgetSpent, Outcome, PriceUnknown
from server.markdown import BYTES_PER_TOKEN
from tests.jobs.model_runs import JOB, KEY, SEARCH, Told, run
from tests.jobs.model_server import Calls, Says, serving_model

pytestmark = pytest.mark.anyio


async def test_a_server_that_does_not_count_is_counted_by_the_texts():
    told = Told()

    async with serving_model([Says(["Use a lease."], usage=None)]) as server:
        outcome = await run(server, told)

    assert outcome == Outcome("Use a lease.", 11, 3, usd=None, estimated=True)
    assert told.steps[0].details == {"input_tokens": 11, "output_tokens": 3, "estimated": True}


async def test_the_tools_that_go_along_with_every_request_are_counted():
    described = replace(SEARCH, description="Find passages of the standards. " * 40)
    script = [
        Calls([("search_standards", {"queries": ["x"]})], usage=None),
        Says(["Done."], usage=None),
    ]
    told = Told()

    async with serving_model(script) as server:
        await run(server, told, [described])

    sent = [len(json.dumps(request.body)) / BYTES_PER_TOKEN for request in server.requests]
    assert [step.details["input_tokens"] for step in told.steps if step.kind == "model"] == [
        pytest.approx(size, rel=0.3) for size in sent
    ]


async def test_thoughts_that_are_not_shown_are_not_sent_again():
    calls = Calls([("search_standards", {"queries": ["x"]})], usage=(100, 5_000), hidden=4_950)

    async with serving_model([calls, Says(["Done."], usage=(150, 20))]) as server:
        outcome = await run(server, None, [SEARCH])

    assert outcome == Outcome("Done.", 250, 5_020, usd=None)


@pytest.mark.parametrize(
    ("limits", "most"),
    [
        ({"tokens_limit": 11 + 4_096}, None),
        ({"tokens_limit": 11 + 4_095}, 4_095),
        ({"tokens_limit": 11 + 3}, LEAST_ANSWER),
        ({"usd_limit": 0.05}, None),
        ({"usd_limit": 0.01}, 997),
    ],
)
async def test_the_last_answer_is_asked_to_keep_to_what_is_left(
    limits: dict[str, float], most: int | None
):
    async with serving_model([Says(["Done."], usage=(11, 2))]) as server:
        config = ModelConfig("played", server.url, price=(2.0, 10.0))
        await run(server, None, (), config, **limits)

    assert server.requests[0].body.get("max_tokens") == most


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


async def test_a_price_is_that_of_the_model_it_was_set_for():
    job = replace(JOB, model="openai:nobody-knows-it", usd_limit=1.0)
    config = ModelConfig("openai:gpt-5", key=lambda: KEY, price=(2.0, 10.0))

    with pytest.raises(PriceUnknown):
        price_of(job, config, model_of(job.model, job.model_url, KEY.get_secret_value()))


async def test_providers_have_prices():
    job = replace(JOB, model="openai:gpt-5", usd_limit=1.0)
    config = ModelConfig("openai:gpt-5", key=lambda: KEY)

    price = price_of(job, config, model_of(job.model, job.model_url, KEY.get_secret_value()))

    million = price(RequestUsage(input_tokens=1_000_000))
    cached = price(RequestUsage(input_tokens=1_000_000, cache_read_tokens=900_000))
    odd = price(RequestUsage(input_tokens=1_000_000, cache_read_tokens=2_000_000))
    assert million
    assert cached
    assert cached < million == odd
