"""Workers that run only the jobs they were started for, with the settings of who invoked last."""

import random
import shlex
import sys

import anyio
import pytest

from server.access import add_tenant
from server.jobs.service import look_for_worker
from server.jobs.starting import Station, stop_worker
from server.settings import Settings
from server.work import App
from tests.conftest import but, operator
from tests.faults.conftest import IDLE_S
from tests.jobs.worker_processes import (
    Agents,
    commanding,
    on_demand_workers,
    starting_none,
    until_none,
)
from tests.jobs.workers import Jobs, eventually

pytestmark = pytest.mark.anyio

OTHER_AGENT = shlex.join([sys.executable, "-c", "print('All is well.')"])


def also(settings: Settings, **changed: object) -> Settings:
    return settings.model_validate({**settings.model_dump(exclude_unset=True), **changed})


async def test_a_worker_on_demand_runs_no_job_of_another_tenant(
    own_app: App, jobs: Jobs, agents: Agents, settings: Settings
):
    agents.let_go()
    async with own_app.work(operator(own_app)) as work:
        acme = await add_tenant(work, "acme")
    theirs = commanding(but(own_app, tenant_id=acme.id), also(settings, tenant="acme"))
    other = await starting_none(Jobs(theirs)).invoke()

    # It was there first, so whoever took care of both would have run it by then.
    job = await jobs.invoke()
    await jobs.until(job, "complete")
    waiting = await Jobs(theirs).status(other)
    another = await Jobs(theirs).invoke()
    for one in (other, another):
        await Jobs(theirs).until(one, "complete")

    assert waiting == "pending"
    (mine,) = await jobs.stored(job, "worker")
    names = {(await Jobs(theirs).stored(one, "worker"))[0] for one in (other, another)}
    assert mine not in names
    assert len(names) == 1


async def test_a_corrected_configuration_is_used_at_once_and_what_runs_ends_as_it_began(
    own_app: App, jobs: Jobs, agents: Agents, settings: Settings
):
    first = await jobs.invoke()
    await agents.until(1)
    corrected = Jobs(commanding(own_app, also(settings, runner_command=OTHER_AGENT)))

    second = await corrected.invoke()
    done = await corrected.until(second, "complete")
    draining = await jobs.status(first)
    agents.let_go()
    ended = await jobs.until(first, "complete")
    await until_none(settings.data_root)

    assert (done["result"], draining) == ("All is well.", "running")
    assert ended["result"].startswith("Thinking")
    assert await jobs.stored(first, "attempt", "losses") == (1, 0)


async def test_who_only_looks_for_a_worker_leaves_one_with_other_settings_alone(
    own_app: App, jobs: Jobs, agents: Agents, settings: Settings
):
    job = await jobs.invoke()
    await agents.until(1)
    before = on_demand_workers(settings.data_root)

    await look_for_worker(commanding(own_app, also(settings, runner_command=OTHER_AGENT)))
    after = on_demand_workers(settings.data_root)
    staffed = Station.of(settings).is_staffed()
    agents.let_go()
    await jobs.until(job, "complete")

    assert (after, staffed) == (before, True)


async def test_a_worker_that_was_told_to_go_ends_its_job_and_leaves_no_other_behind(
    jobs: Jobs, agents: Agents, settings: Settings
):
    station = Station.of(settings)
    first = await jobs.invoke()
    await agents.until(1)
    second = await jobs.invoke()
    (worker,) = on_demand_workers(settings.data_root)

    told = stop_worker(station)

    async def unstaffed() -> bool:
        return not station.is_staffed()

    await eventually(unstaffed)
    draining = worker.is_running()
    agents.let_go()
    await until_none(settings.data_root)

    assert (told, draining) == (True, True)
    assert [await jobs.status(job) for job in (first, second)] == ["complete", "pending"]


async def test_no_job_is_forgotten_while_workers_take_turns(
    own_app: App, agents: Agents, settings: Settings
):
    agents.let_go()
    sides = [
        Jobs(commanding(own_app, also(settings, worker_jobs=number, worker_idle_s=IDLE_S)))
        for number in (2, 3)
    ]
    invoked: list[str] = []

    async def invoke(side: Jobs, numbers: random.Random) -> None:
        for _ in range(5):
            await anyio.sleep(numbers.uniform(0, 2))
            invoked.append(await side.invoke())

    async with anyio.create_task_group() as tasks:
        for seed in range(4):
            tasks.start_soon(invoke, sides[seed % 2], random.Random(seed))

    for job in invoked:
        await sides[0].until(job, "complete")
    await until_none(settings.data_root)

    assert len(invoked) == 20
    assert await sides[0].rows("SELECT max(attempt), max(losses) FROM dramatis.persona_jobs") == [
        (1, 0)
    ]
