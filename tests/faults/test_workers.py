"""Workers that are killed, frozen, told to go, or lose their database, as real processes."""

import shutil
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from time import monotonic

import pytest
from inline_snapshot import snapshot

from db.embedded import EmbeddedPostgres
from db.migrate import upgrade
from server.app import open_app
from server.jobs.execution import BROKEN
from server.work import App
from tests.conftest import Databases, external
from tests.jobs.worker_processes import (
    QUICK_WORKER,
    WORKER,
    Agents,
    commanding,
    environment,
    is_alive,
    process,
    until_ended,
    until_logged,
)
from tests.jobs.workers import Jobs, configured

pytestmark = pytest.mark.anyio

TOLD_AT_THE_END = f"""
import atexit, os, signal

atexit.register(os.kill, os.getpid(), signal.SIGTERM)
{QUICK_WORKER}
"""
QUICK = ["-c", QUICK_WORKER]


@pytest.fixture
def jobs(own_app: App) -> Jobs:
    return Jobs(commanding(own_app))


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Agents]:
    agents = Agents.below(tmp_path)
    yield agents
    # Those of killed workers end when they are told to, if not before.
    agents.let_go()


@pytest.fixture
def env(jobs: Jobs, agents: Agents, databases: Databases, tmp_path: Path) -> dict[str, str]:
    database = jobs.app.database.engine.url.database
    assert database
    return environment(agents, tmp_path / "data", database_url=databases.url(database))


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path / "own", linger=timedelta(0))
    upgrade(server.acquire().url("dramatis_owner"))
    yield server
    server.stop()
    server.release()
    shutil.rmtree(server.base, ignore_errors=True)


async def test_the_job_of_a_killed_worker_is_taken_up_again_within_a_minute(
    jobs: Jobs, agents: Agents, env: dict[str, str]
):
    job = await jobs.invoke()
    with process(WORKER, env) as worker:
        await agents.until(1)
        await jobs.until_said(job)
        worker.send_signal(signal.SIGKILL)
    killed_at = monotonic()

    with process(WORKER, env):
        await agents.until(2)
        took_s = monotonic() - killed_at
        agents.let_go()
        done = await jobs.until(job, "complete")

    assert took_s < 60
    assert done["result"].startswith("Thinking")
    assert await jobs.stored(job, "attempt", "losses") == (2, 1)
    await agents.until_gone()


async def test_a_job_whose_worker_dies_three_times_fails_with_that_reason(
    jobs: Jobs, agents: Agents, env: dict[str, str]
):
    job = await jobs.invoke()
    for death in (1, 2, 3):
        with process(QUICK, env) as worker:
            await agents.until(death)
            worker.send_signal(signal.SIGKILL)
    with process(QUICK, env):
        failed = await jobs.until(job, "failed")

    assert failed["error"] == snapshot(
        "The worker that ran it died, three times: the job may be what kills it, for example by taking all memory."
    )
    assert await jobs.stored(job, "attempt", "error_code") == (3, "worker_lost")
    assert len(agents.pids()) == 3


async def test_what_a_worker_says_that_was_frozen_for_longer_than_its_lease_counts_no_more(
    jobs: Jobs, agents: Agents, env: dict[str, str]
):
    job = await jobs.invoke()
    with process(QUICK, env) as frozen:
        (first,) = await agents.until(1)
        frozen.send_signal(signal.SIGSTOP)
        with process(QUICK, env):
            (second,) = {*await agents.until(2)} - {first}
            agents.let_go(second)
            done = await jobs.until(job, "complete")
        talking = is_alive(first)
        frozen.send_signal(signal.SIGCONT)
        await agents.until_gone()

        # It is as good a worker as before.
        agents.let_go()
        await jobs.until(await jobs.invoke(), "complete")

    assert talking
    assert done["result"].endswith(f"Done by {second}.")
    assert await jobs.shown(job) == done
    assert await jobs.stored(job, "attempt", "losses") == (2, 1)


async def test_what_a_frozen_worker_had_locked_is_free_after_a_while(jobs: Jobs):
    assert await jobs.rows("SHOW idle_in_transaction_session_timeout") == [("30s",)]


async def test_a_worker_that_is_told_to_go_ends_its_job_first_and_takes_no_other(
    jobs: Jobs, agents: Agents, env: dict[str, str], tmp_path: Path
):
    log = tmp_path / "log"
    first = await jobs.invoke()
    with process([*WORKER, "--jobs", "2"], env, log) as worker:
        await agents.until(1)
        worker.send_signal(signal.SIGTERM)
        await until_logged(log, "SIGTERM: stopping")
        second = await jobs.invoke()
        agents.let_go()
        code = await until_ended(worker)

    assert code == 0
    assert [await jobs.status(job) for job in (first, second)] == ["complete", "pending"]
    assert await jobs.stored(first, "attempt") == (1,)


async def test_a_worker_that_is_told_to_go_twice_hands_its_job_back_at_once(
    jobs: Jobs, agents: Agents, env: dict[str, str], tmp_path: Path
):
    log = tmp_path / "log"
    job = await jobs.invoke()
    with process(WORKER, env, log) as worker:
        await agents.until(1)
        await jobs.until_said(job)
        worker.send_signal(signal.SIGTERM)
        await until_logged(log, "SIGTERM: stopping")
        worker.send_signal(signal.SIGTERM)
        code = await until_ended(worker)
        await agents.until_gone()

    assert code == 0
    assert await jobs.stored(job, "status", "attempt", "losses") == ("pending", 1, 0)


async def test_a_worker_that_is_told_again_while_it_goes_ends_well(
    env: dict[str, str], tmp_path: Path
):
    log = tmp_path / "log"
    with process(["-c", TOLD_AT_THE_END], env, log) as worker:
        await until_logged(log, "Starting worker")
        worker.send_signal(signal.SIGTERM)
        code = await until_ended(worker)

    assert code == 0


async def test_libraries_that_break_fail_the_job_and_leave_the_worker(
    jobs: Jobs, env: dict[str, str], tmp_path: Path
):
    log = tmp_path / "log"
    broken = tmp_path / "broken" / "pydantic_ai"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('It needs another version.')")
    env = {**env, "DRAMATIS_MODEL": "test", "PYTHONPATH": str(broken.parent)}

    with process(WORKER, env, log) as worker:
        await until_logged(log, "It needs another version.")
        modelled = Jobs(configured(jobs.app))
        failed = await modelled.until(await modelled.invoke(), "failed")
        worker.send_signal(signal.SIGTERM)
        code = await until_ended(worker)

    assert failed["error"] == BROKEN
    assert code == 0


async def test_a_run_outlives_a_restart_of_the_database_and_loses_no_word(
    own_postgres: EmbeddedPostgres, agents: Agents, tmp_path: Path
):
    url = own_postgres.acquire().url()
    env = environment(agents, tmp_path / "data", database_url=url)
    async with open_app(external(url, tmp_path)) as app:
        jobs = Jobs(commanding(app))
        job = await jobs.invoke()
        with process(QUICK, env):
            (agent,) = await agents.until(1)
            await jobs.until_said(job)
            own_postgres.stop()
            own_postgres.ensure_running()
            agents.let_go()
            done = await jobs.until(job, "complete")

        (partial,) = await jobs.stored(job, "partial")
        assert done["result"].endswith(f"Done by {agent}.")
        assert partial.strip() == done["result"]
        assert await jobs.stored(job, "attempt", "losses") == (1, 0)
