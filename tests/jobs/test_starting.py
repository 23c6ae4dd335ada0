"""Who counts as a worker of this machine, and when one is started."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from inline_snapshot import snapshot
from pydantic import SecretStr

from db import locks
from server.jobs.starting import (
    LOG_BYTES,
    Station,
    WorkerNotStarted,
    renew_worker,
    start_worker,
    stop_worker,
)
from server.settings import Settings
from tests.jobs.workers import eventually

DEAF = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: print("told", flush=True))
print(flush=True)
sys.stdin.read()
"""
PIPES: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
NOWHERE = SecretStr("postgresql://nobody@/nothing?host=/nowhere")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_root=tmp_path, database_url=NOWHERE, runner_command=("true",))


@pytest.fixture
def station(settings: Settings) -> Station:
    return Station.of(settings)


@pytest.mark.parametrize(
    ("mine", "theirs", "same_database"),
    [
        ({}, {"tenant": "acme"}, True),
        ({}, {"database_url": NOWHERE}, False),
        (
            {"database_url": "postgresql://ada@db/one"},
            {"database_url": "postgresql://ada@db/two"},
            False,
        ),
    ],
)
def test_every_database_and_tenant_has_a_queue_of_its_own(
    tmp_path: Path, mine: dict[str, Any], theirs: dict[str, Any], same_database: bool
):
    ours, other = (
        Station.of(Settings.model_validate({"data_root": tmp_path, **more}))
        for more in (mine, theirs)
    )

    assert ours.queue != other.queue
    assert ours.on_demand != other.on_demand
    assert (ours.present == other.present) is same_database


def test_a_station_is_the_same_whatever_password_and_spelling_lead_to_it(tmp_path: Path):
    urls = ["postgresql://ada:secret@db/one", "postgres://ada:changed@db/one"]

    first, second = (
        Station.of(Settings(data_root=tmp_path, database_url=SecretStr(url), tenant=tenant))
        for url, tenant in zip(urls, ("acme", " ACME"), strict=True)
    )

    assert first == second


def test_a_url_that_cannot_be_read_has_a_station_too(tmp_path: Path):
    unreadable = Settings(data_root=tmp_path, database_url=SecretStr("nonsense"))

    assert Station.of(unreadable).folder == tmp_path / "workers"


def test_a_station_is_staffed_while_somebody_attends(station: Station):
    seen = [station.is_staffed()]

    first, second = station.attend(), station.attend()
    seen.append(station.is_staffed())
    os.close(first)
    seen.append(station.is_staffed())
    os.close(second)
    seen.append(station.is_staffed())

    assert seen == [False, True, True, False]


def test_a_station_is_staffed_while_a_worker_is_on_its_way(station: Station):
    os.close(station.attend())
    lock = locks.open_lock(station.on_demand)
    assert locks.take(lock)

    on_its_way = station.is_staffed()
    os.close(lock)

    assert (on_its_way, station.is_staffed()) == (True, False)


def test_many_who_look_at_once_do_not_take_each_other_for_a_worker(station: Station):
    os.close(station.attend())
    seen: list[bool] = []

    def look() -> None:
        seen.extend(station.is_staffed() for _ in range(200))

    lookers = [threading.Thread(target=look) for _ in range(4)]
    for looker in lookers:
        looker.start()
    for looker in lookers:
        looker.join()

    assert seen == [False] * 800


@pytest.mark.parametrize("start", [start_worker, renew_worker])
def test_no_worker_is_started_beside_one_that_is_here(
    station: Station, settings: Settings, start: Any
):
    attending = station.attend()
    start(station, settings)
    os.close(attending)
    lock = locks.open_lock(station.on_demand)
    locks.take(lock)
    start(station, settings)
    os.close(lock)

    assert not station.log.exists()


def test_who_was_started_by_nobody_known_is_not_told_to_go(station: Station):
    before = stop_worker(station)
    os.close(station.attend())
    lock = locks.open_lock(station.on_demand)
    locks.take(lock)
    station.record.write_text("")
    unknown = stop_worker(station)
    os.close(lock)

    assert (before, unknown) == (False, False)


def test_what_is_noted_of_a_worker_that_has_gone_does_no_harm(station: Station):
    os.close(station.attend())
    station.record.write_text(f"{os.getpid()} digest\n")

    assert stop_worker(station) is False


def test_a_worker_with_other_settings_that_does_not_go_is_told_once_and_is_an_error(
    station: Station, settings: Settings
):
    os.close(station.attend())
    lock = locks.open_lock(station.on_demand)
    locks.take(lock)
    with subprocess.Popen([sys.executable, "-c", DEAF], **PIPES) as deaf:
        assert deaf.stdout is not None
        deaf.stdout.readline()
        station.record.write_text(f"{deaf.pid} another\n")

        with pytest.raises(WorkerNotStarted) as raised:
            renew_worker(station, settings, patience_s=0.05)
        stopped = stop_worker(station, patience_s=0.05)
        said, _ = deaf.communicate()
    os.close(lock)

    assert str(raised.value).replace(str(deaf.pid), "PID") == snapshot(
        "The worker that is here has other settings, and does not go. The job waits. End the process PID, and start one with `dramatis worker`."
    )
    assert stopped
    assert said == b"told\n"


def test_a_worker_that_goes_by_itself_meanwhile_is_no_error(station: Station):
    os.close(station.attend())
    lock = locks.open_lock(station.on_demand)
    locks.take(lock)
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    station.record.write_text(f"{gone.pid} another\n")

    stopped = stop_worker(station, patience_s=0.05)
    os.close(lock)

    assert stopped


def test_a_machine_that_refuses_is_an_error_that_says_what_to_do(settings: Settings):
    (settings.data_root / "workers").write_text("in the way")

    with pytest.raises(WorkerNotStarted) as raised:
        start_worker(Station.of(settings), settings)

    assert str(raised.value) == snapshot(
        "No worker can be started here: File exists. The job waits. Start one by hand with `dramatis worker`."
    )


@pytest.mark.anyio
async def test_a_worker_that_cannot_work_says_why_in_a_log_that_does_not_grow_for_ever(
    station: Station, settings: Settings
):
    station.folder.mkdir()
    station.log.write_bytes(b"-" * (LOG_BYTES + 1))
    start_worker(station, settings)

    async def ended() -> bool:
        return not station.is_staffed()

    await eventually(ended)

    assert station.log.read_text() == snapshot(
        "Error: The database does not answer. Is it running? `dramatis doctor` looks.\n"
    )
    assert station.record.stat().st_mode & 0o777 == 0o600
