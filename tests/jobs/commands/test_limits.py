"""Commands that print, spend or take too much."""

import sys
from pathlib import Path

import pytest
from inline_snapshot import snapshot

from server.jobs.commands import OUTPUT_BYTES, OutputTooLong, command_runner
from server.jobs.running import BudgetSpent, PriceUnknown, RunJob, RunTimedOut
from tests.conftest import but
from tests.jobs.commands.conftest import LOCK, SLEEP, Heard, printing, ran, until_free

pytestmark = pytest.mark.anyio


async def test_a_command_that_prints_too_much_is_stopped_and_what_it_said_is_kept(
    job: RunJob, tmp_path: Path
):
    lock = tmp_path / "lock"
    heard = Heard()

    with pytest.raises(OutputTooLong, match=r"more than 1,000,000 bytes"):
        await ran(job, f"{LOCK}\nwhile True: print('x' * 999)", lock, heard=heard)

    assert len(heard.partial) == OUTPUT_BYTES
    await until_free(lock)


async def test_a_command_that_says_more_than_its_run_may_spend_is_stopped_and_that_is_kept(
    job: RunJob, tmp_path: Path
):
    lock = tmp_path / "lock"
    heard = Heard()
    code = f"{LOCK}\nprint('x' * 400, end='', flush=True)\n{SLEEP}"

    with pytest.raises(BudgetSpent) as spent:
        await ran(but(job, tokens_limit=100), code, lock, heard=heard)

    assert str(spent.value) == snapshot(
        "The run may spend 100 tokens, and would spend about 116. Give it a smaller task, or set DRAMATIS_RUN_TOKENS."
    )
    assert heard.partial == "x" * 400
    assert heard.spendings[-1]["output_tokens"] == 100
    await until_free(lock)


async def test_a_prompt_that_is_more_than_a_run_may_spend_is_never_told(job: RunJob):
    heard = Heard()

    with pytest.raises(BudgetSpent, match=r"may spend 15 tokens, and would spend about 16\."):
        await ran(but(job, tokens_limit=15), "", heard=heard)

    assert heard.messages == []


async def test_what_a_run_may_just_spend_is_not_too_much(job: RunJob):
    outcome = await ran(but(job, tokens_limit=17), printing("done"))

    assert outcome.text == "done"


async def test_a_limit_of_money_is_refused_because_nobody_knows_the_price(job: RunJob):
    heard = Heard()

    with pytest.raises(PriceUnknown) as unknown:
        await ran(but(job, usd_limit=1.0), "", heard=heard)

    program = Path(sys.executable).name
    assert (unknown.value.code, str(unknown.value).replace(program, "agent")) == snapshot(
        (
            "price_unknown",
            "What agent costs is not known, so a limit in USD cannot be kept. Unset DRAMATIS_RUN_USD, or set DRAMATIS_MODEL to a model whose price is known.",
        )
    )
    assert heard.messages == []


async def test_a_command_that_takes_too_long_is_stopped_and_what_it_said_is_kept(job: RunJob):
    heard = Heard()
    run = command_runner(["/bin/sh", "-c", "echo x; exec sleep 600"], seconds=1, environment={})

    with pytest.raises(RunTimedOut, match=r"^sh was stopped after 1 seconds\.$"):
        await run(job, heard)

    assert heard.partial == "x\n"
