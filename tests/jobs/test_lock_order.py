"""Jobs are locked in the order of their ids, and before the days of personas: nobody waits in a ring."""

from collections.abc import Awaitable, Callable
from functools import partial
from uuid import UUID

import anyio
import pytest
from sqlalchemy import text

from server.jobs.ending import Spending, spend_late
from server.jobs.leases import renew
from server.jobs.retention import clean_jobs
from server.jobs.service import cancel_job, reset_jobs
from server.jobs.statistics import persona_usage
from server.work import App, Work
from tests.conftest import operator
from tests.jobs.conftest import aged, begun, invoked
from tests.jobs.workers import Jobs, eventually
from tests.standards.conftest import using

pytestmark = pytest.mark.anyio

RESET = partial(reset_jobs, confirm=True)

_LOCK_DAYS = text("""
SELECT persona FROM dramatis.persona_spending
WHERE persona = ANY(CAST(:personas AS text[])) FOR UPDATE SKIP LOCKED
""")
_WAITS = text("""
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
""")


async def until_waiting(app: App, count: int) -> None:
    """Wait until so many wait for what another has locked."""

    async def so_many() -> bool:
        return await using(app, operator(app), lambda work: work.session.scalar(_WAITS)) == count

    await eventually(so_many)


async def test_leases_are_renewed_in_the_order_in_which_jobs_are_locked(own_app: App):
    caller = operator(own_app)
    jobs = Jobs(own_app)
    first, *others = (UUID(int=number) for number in range(1, 4))
    for name in (*others, first):
        run = await begun(own_app, caller)
        rename = f"UPDATE dramatis.persona_jobs SET id = '{name}' WHERE id = '{run.job_id}'"
        await jobs.execute(rename)
    lock = "SELECT FROM dramatis.persona_jobs WHERE id = :id FOR UPDATE NOWAIT"

    async def renewing() -> None:
        async with own_app.work(caller) as work:
            # As where there are many: then rows need not come in the order of the index.
            for way in ("indexscan", "bitmapscan"):
                await work.session.execute(text(f"SET LOCAL enable_{way} = off"))
            await renew(work, dict.fromkeys((*others, first), 1))

    async with anyio.create_task_group() as tasks, own_app.work(caller) as work:
        await work.session.execute(text(lock), {"id": first})
        tasks.start_soon(renewing)
        await until_waiting(own_app, 1)
        for run in others:
            await work.session.execute(text(lock), {"id": run})


async def test_who_ends_several_jobs_takes_the_personas_days_one_after_another(own_app: App):
    caller = operator(own_app)
    personas = ["architect", "data", "engineer", "qa", "security", "sre"]
    for persona in reversed(personas):
        await invoked(own_app, caller, persona)

    free: list[str] = []
    async with anyio.create_task_group() as tasks, own_app.work(caller) as work:
        await work.session.execute(_LOCK_DAYS, {"personas": personas[:1]})
        tasks.start_soon(using, own_app, caller, RESET)
        await until_waiting(own_app, 1)
        free += await work.session.scalars(_LOCK_DAYS, {"personas": personas[1:]})

    assert sorted(free) == personas[1:]


@pytest.mark.parametrize("act", [RESET, clean_jobs])
async def test_what_is_spent_late_and_what_removes_jobs_do_not_wait_for_each_other(
    own_app: App, act: Callable[[Work], Awaitable[object]]
):
    caller = operator(own_app)
    run = await begun(own_app, caller)
    await using(own_app, caller, partial(cancel_job, job_id=str(run.job_id)))
    await aged(own_app, caller, run.job_id, 8 * 86_400)
    await aged(own_app, caller, await invoked(own_app, caller), 2 * 86_400)
    (day,) = await Jobs(own_app).stored(str(run.job_id), "spent_on")
    spend = partial(
        spend_late,
        job_id=run.job_id,
        attempt=run.attempt,
        persona="architect",
        day=day,
        late=Spending(10, 5),
    )

    async with anyio.create_task_group() as tasks, own_app.work(caller) as work:
        await work.session.execute(_LOCK_DAYS, {"personas": ["architect"]})
        tasks.start_soon(using, own_app, caller, act)
        await until_waiting(own_app, 1)
        tasks.start_soon(using, own_app, caller, spend)
        await until_waiting(own_app, 2)

    (usage,) = await using(own_app, caller, persona_usage)
    assert (usage.input_tokens, usage.output_tokens) == (10, 5)
