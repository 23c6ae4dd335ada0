"""Jobs of another tenant are as if they were not, and neither keeps the other waiting."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from server.jobs import queries as jobs
from server.jobs import statistics
from server.jobs.following import follow_job, followed_job
from server.jobs.record import run_record
from server.jobs.retention import clean_jobs
from server.jobs.service import cancel_job, invoke_persona, reset_jobs, retry_job
from server.jobs.shapes import JobPending
from server.work import App, Caller, JobLimits, Work
from tests.conftest import but
from tests.isolation.conftest import Tenants, in_project_of
from tests.jobs.conftest import aged

pytestmark = pytest.mark.anyio


async def job_of(app: App, caller: Caller) -> str:
    async with app.work(caller) as work:
        query = text("SELECT id FROM dramatis.persona_jobs ORDER BY created_at LIMIT 1")
        return str(await work.session.scalar(query))


def on_job(verb: Callable[[Work, str], Awaitable[object]]) -> Callable[[App, Caller, str], Any]:
    async def act(app: App, caller: Caller, job_id: str) -> object:
        async with app.work(caller) as work:
            return await verb(work, job_id)

    return act


JOB_USES: dict[str, Callable[[App, Caller, str], Awaitable[object]]] = {
    "check": on_job(jobs.check_job),
    "find": on_job(jobs.find_job),
    "record": on_job(run_record),
    "cancel": on_job(cancel_job),
    "retry": retry_job,
    "follow": follow_job,
    "follow once": followed_job,
}


@pytest.mark.parametrize("use", JOB_USES.values(), ids=JOB_USES)
async def test_a_job_of_another_tenant_is_one_that_does_not_exist(
    two_tenants: Tenants, use: Callable[[App, Caller, str], Awaitable[object]]
):
    app, first, second = two_tenants
    theirs = await job_of(in_project_of(second, app), second)

    said: list[str] = []
    for job_id in (theirs, str(UUID(int=1))):
        # In their folder too, where only the tenant is another.
        for caller in (first, second):
            try:
                answer = str(await use(in_project_of(caller, app), first, job_id))
            except jobs.NoSuchJob as error:
                answer = str(error)
            said.append(answer.replace(job_id, "JOB"))
    assert len(set(said)) == 1
    assert await job_of(app, second) == theirs


async def test_jobs_of_two_tenants_know_nothing_of_each_other(two_tenants: Tenants):
    app, *callers = two_tenants

    for caller in callers:
        here = in_project_of(caller, app)
        async with here.work(caller) as work:
            listed = await jobs.list_jobs(work)
            counts = await statistics.job_statistics(work)
            usage = await statistics.persona_usage(work)
        assert [job.task for job in listed.jobs] == [f"Work for {caller.name}."]
        assert (listed.total_count, counts.jobs_by_status) == (1, {"failed": 1})
        assert [(one.persona, one.runs) for one in usage] == [(listed.jobs[0].persona, 1)]


async def test_in_the_folder_of_another_tenant_there_are_no_jobs(two_tenants: Tenants):
    app, first, second = two_tenants

    async with in_project_of(second, app).work(first) as work:
        listed = await jobs.list_jobs(work)

    assert (listed.jobs, listed.total_count, listed.filtered_count) == ([], 0, 0)


async def test_what_a_tenant_resets_and_cleans_is_its_own(own_tenants: Tenants):
    app, first, second = own_tenants
    theirs = await job_of(app, second)
    await aged(app, second, UUID(theirs), 100 * 86_400)

    for here in (in_project_of(first, app), in_project_of(second, app)):
        async with here.work(first) as work:
            await clean_jobs(work)
            await reset_jobs(work, confirm=True)

    assert await job_of(app, second) == theirs


async def test_in_the_queue_no_tenant_waits_for_another(own_tenants: Tenants):
    app, first, second = own_tenants
    app = but(app, jobs=but(app.jobs, limits=JobLimits(queue_length=1, per_minute=2)))
    await invoke_persona(app, second, "architect", "Review this.", priority="high")

    job = await invoke_persona(app, first, "architect", "Review this.", priority="low")

    async with app.work(first) as work:
        pending = await jobs.check_job(work, str(job.job_id))
    assert isinstance(pending, JobPending)
    assert pending.position == 1
