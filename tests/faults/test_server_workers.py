"""Workers that the real MCP server starts, and that outlive it."""

import anyio.to_thread
import pytest

from server.jobs.starting import Station
from server.settings import Settings
from tests.jobs.worker_processes import Agents, on_demand_workers, until_none
from tests.jobs.workers import Jobs, eventually
from tests.stdio import MODERN, Server

pytestmark = pytest.mark.anyio


def server_of(settings: Settings) -> Server:
    ours = {
        name: value
        for name, value in settings.environment().items()
        if name.startswith("DRAMATIS_")
    }
    return Server("--toolsets", "jobs", **ours)


async def test_the_next_server_starts_a_worker_for_a_job_whose_worker_was_killed(
    jobs: Jobs, agents: Agents, settings: Settings
):
    job = await jobs.invoke()
    await agents.until(1)
    await jobs.until_said(job)
    (worker,) = on_demand_workers(settings.data_root)
    worker.kill()

    async def unstaffed() -> bool:
        return not Station.of(settings).is_staffed()

    await eventually(unstaffed)
    await jobs.execute("UPDATE dramatis.persona_jobs SET lease_until = clock_timestamp()")

    with server_of(settings) as server:
        await anyio.to_thread.run_sync(server.initialize)
        await anyio.to_thread.run_sync(server.ask, "tools/list")
        await agents.until(2)
    agents.let_go()
    await jobs.until(job, "complete")
    await until_none(settings.data_root)

    assert await jobs.stored(job, "attempt", "losses") == (2, 1)


@pytest.mark.parametrize("modern", [False, True])
async def test_a_job_runs_although_the_client_left_as_soon_as_it_had_asked(
    jobs: Jobs, agents: Agents, settings: Settings, modern: bool
):
    agents.let_go()
    arguments = {"name": "invoke_persona", "arguments": {"persona": "architect", "task": "Look."}}

    async def complete() -> bool:
        return await jobs.rows("SELECT status FROM dramatis.persona_jobs") == [("complete",)]

    with server_of(settings) as server:
        if not modern:
            await anyio.to_thread.run_sync(server.initialize)
        server.send("tools/call", arguments | (MODERN if modern else {}))
        server.close_input()
        code = await anyio.to_thread.run_sync(server.process.wait)
    await eventually(complete)
    await until_none(settings.data_root)

    assert code == 0
