"""Workers that are started by whoever invokes a persona, and outlive them."""

import signal
from datetime import timedelta
from pathlib import Path

import anyio
import psycopg
import pytest
from psycopg.rows import tuple_row

from db.embedded import EmbeddedPostgres
from server.app import open_app
from server.jobs.service import look_for_worker
from server.jobs.starting import Station
from server.settings import Settings
from tests.conftest import Databases
from tests.db.sessions import processes_of
from tests.faults.conftest import IDLE_S
from tests.jobs.worker_processes import (
    Agents,
    environment,
    on_demand_workers,
    process,
    starting_none,
    until_ended,
    until_none,
)
from tests.jobs.workers import Jobs, eventually
from tests.test_migrations import plain

pytestmark = pytest.mark.anyio

LEAVING = """
SELECT FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%unregister_worker%'
"""
INVOKE = """
import sys, anyio
from server.app import open_app
from server.jobs.service import invoke_persona
from server.settings import Settings
from server.work import OPERATOR_SCOPES, Caller

async def main():
    async with open_app(Settings()) as app:
        caller = Caller("operator", "tester", app.tenant_id, OPERATOR_SCOPES)
        print((await invoke_persona(app, caller, "architect", "Look.")).job_id, flush=True)
        sys.stdin.read()

anyio.run(main)
"""


async def test_five_invocations_at_once_start_one_worker_that_leaves_when_it_is_idle(
    jobs: Jobs, agents: Agents, data_root: Path
):
    ids: list[str] = []

    async def invoke() -> None:
        ids.append(await jobs.invoke())

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(invoke)
    await agents.until(1)
    workers = on_demand_workers(data_root)
    agents.let_go()
    for job in ids:
        await jobs.until(job, "complete")
    await until_none(data_root)

    assert len(workers) == 1
    assert await jobs.rows("SELECT count(DISTINCT worker) FROM dramatis.persona_jobs") == [(1,)]
    (log,) = (data_root / "workers").glob("*.log")
    assert "dramatis worker: INFO" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


async def test_a_job_outlives_the_process_that_invoked_and_so_does_its_database(
    agents: Agents, data_root: Path
):
    env = environment(agents, data_root, worker_idle_s=str(IDLE_S), linger_s="0")
    server = EmbeddedPostgres(data_root, linger=timedelta(0))

    with process(["-c", INVOKE], env) as client:
        assert client.stdout is not None
        job = (await anyio.to_thread.run_sync(client.stdout.readline)).decode().strip()
        await agents.until(1)
        client.send_signal(signal.SIGKILL)
        await until_ended(client)
    still_there = server.is_running()
    agents.let_go()
    await until_none(data_root)

    async def stopped() -> bool:
        return not processes_of(server)

    await eventually(stopped)
    settings = Settings.model_validate({"data_root": data_root, "linger_s": 0})
    async with open_app(settings) as app:
        done = await Jobs(app).shown(job)
    assert still_there
    assert done["status"] == "complete"
    assert done["result"].startswith("Thinking")


async def test_a_status_check_starts_another_worker_for_one_that_was_killed(
    jobs: Jobs, agents: Agents, settings: Settings, data_root: Path
):
    async def unstaffed() -> bool:
        return not Station.of(settings).is_staffed()

    await jobs.invoke()
    waiting = await jobs.invoke()
    await agents.until(1)
    (worker,) = on_demand_workers(data_root)
    worker.kill()
    # A killed process is seen no more before the kernel has let its locks go.
    await eventually(unstaffed)

    await look_for_worker(jobs.app)
    await agents.until(2)
    (another,) = on_demand_workers(data_root)
    agents.let_go()
    await jobs.until(waiting, "complete")

    assert another.pid != worker.pid


async def test_a_worker_that_leaves_starts_another_for_a_job_that_came_meanwhile(
    jobs: Jobs, agents: Agents, databases: Databases, data_root: Path
):
    agents.let_go()
    quiet = starting_none(jobs)
    database = jobs.app.database.engine.url.database
    assert database

    async def at_work() -> bool:
        return await jobs.rows("SELECT 1 FROM procrastinate_workers") != []

    async def leaving() -> bool:
        return await jobs.rows(LEAVING) != []

    async with await psycopg.AsyncConnection.connect(
        plain(databases.url(database, "postgres")), row_factory=tuple_row
    ) as holder:
        await look_for_worker(jobs.app)
        await eventually(at_work)
        (leaver,) = on_demand_workers(data_root)
        # The last thing that it does before it goes has to wait for this.
        await holder.execute("SELECT FROM dramatis_queue.procrastinate_workers FOR UPDATE")
        await eventually(leaving)
        job = await quiet.invoke()
    done = await jobs.until(job, "complete")
    (worker,) = await jobs.stored(job, "worker")
    await until_none(data_root)

    assert done["result"].startswith("Thinking")
    assert not worker.endswith(f":{leaver.pid}")


async def test_a_worker_that_an_operator_started_is_enough(
    jobs: Jobs, agents: Agents, settings: Settings, data_root: Path
):
    agents.let_go()
    assert settings.database_url is not None
    url = settings.database_url.get_secret_value()
    env = environment(agents, data_root, database_url=url)

    with process(["-P", "-c", "from server.cli import main; main()", "worker"], env) as worker:
        first = await starting_none(jobs).invoke()
        await jobs.until(first, "complete")
        second = await jobs.invoke()
        await jobs.until(second, "complete")
        beside = on_demand_workers(data_root)
        name = f":{worker.pid}"

    assert beside == []
    assert [(await jobs.stored(job, "worker"))[0].endswith(name) for job in (first, second)] == [
        True,
        True,
    ]
