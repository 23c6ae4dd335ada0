"""What a run costs the database, whatever the machine is doing at the moment."""

from pathlib import Path

import pytest

from server.jobs.running import Outcome, Reporting, RunJob, Runner
from server.work import App, Place
from tests.benchmarks.raw import recorded
from tests.conftest import but
from tests.jobs.workers import Jobs, configured, execution_of

pytestmark = pytest.mark.anyio

BEGINS = b"app.tenant_id"


async def silent(job: RunJob, reporting: Reporting) -> Outcome:
    return Outcome("Done.", 0, 0, None)


async def accounting(job: RunJob, reporting: Reporting) -> Outcome:
    await reporting.spent(input_tokens=10, output_tokens=5, usd=0.25)
    return Outcome("Done.", 10, 5, 0.25)


@pytest.mark.parametrize(
    ("runner", "transactions"),
    [
        pytest.param(silent, 2, id="nothing to report"),
        pytest.param(accounting, 3, id="what it spent"),
    ],
)
async def test_a_run_is_claimed_reported_and_ended_in_one_transaction_each(
    app: App, tmp_path: Path, runner: Runner, transactions: int
) -> None:
    project = Place("", tmp_path, tmp_path / "standards", None)
    jobs = Jobs(but(configured(app), place=project))
    job = await jobs.invoke()
    (delivery,) = await jobs.stored(job, "delivery_id")
    execution = execution_of(jobs.app, runner)

    with recorded(jobs.app.database.engine) as statements:
        await execution.run(jobs.app.tenant_id, delivery)

    assert await jobs.status(job) == "complete"
    assert sum(BEGINS in statement.text for statement in statements) == transactions
