"""Workers that run only the jobs they were started for, each with the settings of who invoked."""

import random
import shlex
import sys

import anyio
import pytest

from server.access import add_tenant
from server.jobs.following import follow_job, take_up_jobs
from server.jobs.starting import Station, stop_workers
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


async def test_a_corrected_configuration_is_used_at_once_while_a_worker_with_another_is_idle(
    own_app: App, jobs: Jobs, agents: Agents, settings: Settings
):
    agents.let_go()
    stays = also(settings, worker_idle_s=60)
    before = Jobs(commanding(own_app, stays))
    await before.until(await before.invoke(), "complete")
    corrected = Jobs(commanding(own_app, also(stays, runner_command=OTHER_AGENT)))

    done = [await corrected.until(await corrected.invoke(), "complete") for _ in range(3)]
    again = await before.until(await before.invoke(), "complete")
    workers = on_demand_workers(settings.data_root)
    stop_workers(Station.of(settings))
    await until_none(settings.data_root)

    assert {one["result"] for one in done} == {"All is well."}
    assert again["result"].startswith("Thinking")
    assert len(workers) == 2


async def test_what_waits_is_run_with_the_settings_it_was_invoked_with(
    own_app: App, jobs: Jobs, agents: Agents, settings: Settings
):
    mine = [await jobs.invoke() for _ in range(3)]
    await agents.until(1)
    corrected = Jobs(commanding(own_app, also(settings, runner_command=OTHER_AGENT)))

    other = await corrected.until(await corrected.invoke(), "complete")
    meanwhile = [await jobs.status(job) for job in mine]
    agents.let_go()
    ended = [await jobs.until(job, "complete") for job in mine]
    await until_none(settings.data_root)

    assert other["result"] == "All is well."
    assert sorted(meanwhile) == ["pending", "pending", "running"]
    assert all(one["result"].startswith("Thinking") for one in ended)
    assert await jobs.rows("SELECT max(attempt), max(losses) FROM dramatis.persona_jobs") == [
        (1, 0)
    ]


async def test_who_looks_with_other_settings_starts_no_worker_beside_the_one_that_is_here(
    own_app: App, jobs: Jobs, agents: Agents, settings: Settings
):
    first, second = [await jobs.invoke() for _ in range(2)]
    await agents.until(1)
    before = on_demand_workers(settings.data_root)
    other = Jobs(commanding(own_app, also(settings, runner_command=OTHER_AGENT)))

    seen = await other.status(second)
    await follow_job(other.app, operator(own_app), second)
    await take_up_jobs(other.app, operator(own_app))
    after = on_demand_workers(settings.data_root)
    agents.let_go()
    for job in (first, second):
        await jobs.until(job, "complete")

    assert seen == "pending"
    assert after == before


async def test_a_worker_that_was_told_to_go_ends_its_job_and_leaves_no_other_behind(
    jobs: Jobs, agents: Agents, settings: Settings
):
    station = Station.of(settings)
    first = await jobs.invoke()
    await agents.until(1)
    second = await jobs.invoke()
    (worker,) = on_demand_workers(settings.data_root)

    told = stop_workers(station)

    async def unstaffed() -> bool:
        return not station.is_staffed()

    await eventually(unstaffed)
    draining = worker.is_running()
    agents.let_go()
    await until_none(settings.data_root)

    assert (told, draining) == (1, True)
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
