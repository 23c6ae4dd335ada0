"""What workers do for jobs that are not theirs: of dead workers, of other tenants, of long ago."""

import anyio
import psycopg
import pytest

from server import access
from server.jobs.leases import claim
from tests.conftest import but, operator
from tests.jobs.workers import QUICK, Jobs, at_once, eventually, working

pytestmark = pytest.mark.anyio

# As long as somebody waits for a lock, and not as long as a lease is.
SOON_S = 30
LOST = "UPDATE dramatis.persona_jobs SET lease_until = clock_timestamp()"


async def begun_by_a_dead_worker(jobs: Jobs) -> str:
    job = await jobs.invoke()
    (delivery_id,) = await jobs.stored(job, "delivery_id")
    await jobs.using(lambda work: claim(work, delivery_id, "dead"))
    await jobs.execute(LOST)
    return job


async def of_another_tenant(jobs: Jobs) -> Jobs:
    async with jobs.app.work(operator(jobs.app)) as work:
        tenant = await access.add_tenant(work, "other")
    return Jobs(but(jobs.app, tenant_id=tenant.id))


async def test_a_job_of_a_dead_worker_is_run_again_also_where_its_delivery_is_gone(jobs: Jobs):
    job = await begun_by_a_dead_worker(jobs)
    await jobs.execute("DELETE FROM procrastinate_jobs")

    async with working(jobs.app, at_once):
        await jobs.until(job, "complete")

    assert await jobs.stored(job, "attempt", "losses") == (2, 1)


async def test_a_database_that_is_only_busy_keeps_no_job_with_its_dead_worker(
    jobs: Jobs, owner: psycopg.Connection, caplog: pytest.LogCaptureFixture
):
    async def busy() -> bool:
        return "removing old jobs: Somebody else is changing the same thing" in caplog.text

    async with working(jobs.app, at_once, pace=but(QUICK, clean_s=0.05)):
        with owner.transaction():
            owner.execute("LOCK TABLE dramatis.job_cleanups")
            await eventually(busy)
        job = await begun_by_a_dead_worker(jobs)
        with anyio.fail_after(SOON_S):
            await jobs.until(job, "complete")


async def test_a_tenant_whose_jobs_cannot_be_looked_after_keeps_no_other_waiting(
    jobs: Jobs, owner: psycopg.Connection
):
    others = await of_another_tenant(jobs)
    mine, theirs = await jobs.invoke(), await others.invoke()
    (delivery_id,) = await jobs.stored(mine, "delivery_id")
    # As a fetcher leaves them that dies before it claims the job.
    await jobs.execute("UPDATE procrastinate_jobs SET status = 'doing'")

    async with working(jobs.app, at_once):
        with owner.transaction():
            owner.execute(
                "SELECT FROM dramatis_queue.procrastinate_jobs WHERE id = %s FOR UPDATE",
                [delivery_id],
            )
            with anyio.fail_after(SOON_S):
                await others.until(theirs, "complete")
        await jobs.until(mine, "complete")


async def test_a_tenant_whose_old_jobs_cannot_be_removed_keeps_no_others(
    jobs: Jobs, owner: psycopg.Connection
):
    others = await of_another_tenant(jobs)
    await jobs.execute("INSERT INTO dramatis.job_cleanups (cleaned_at) VALUES ('2020-01-01')")

    with owner.transaction():
        owner.execute("SELECT set_config('app.tenant_id', %s, true)", [str(jobs.app.tenant_id)])
        owner.execute("SELECT FROM dramatis.job_cleanups FOR UPDATE")
        async with working(jobs.app, at_once):
            with anyio.fail_after(SOON_S):
                await eventually(lambda: others.rows("SELECT 1 FROM dramatis.job_cleanups"))
