"""Who counts as a worker of this machine, and when one is started."""

import os
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from inline_snapshot import snapshot
from pydantic import SecretStr

from db import locks
from server.jobs import starting
from server.jobs.starting import (
    LOG_BYTES,
    Station,
    WorkerNotStarted,
    WorkerNotStopped,
    start_worker,
    stop_workers,
)
from server.settings import Settings
from tests.jobs.workers import eventually

DEAF = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"told\\n"))
print(flush=True)
sys.stdin.read()
"""
# As a worker does: it has the lock, signs it, and goes when it is told to.
OBEDIENT = """
import os, sys
from db import locks
from server.jobs.starting import sign
lock = locks.open_lock(sys.argv[1])
assert locks.take(lock)
print(flush=True)
sys.stdin.read()
sign(lock)
print(flush=True)
import signal
signal.pause()
"""
PIPES: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
NOWHERE = SecretStr("postgresql://nobody@/nothing?host=/nowhere")


def held(path: Path) -> int:
    """Have a lock as a worker has it that has not signed."""
    lock = locks.open_lock(path)
    assert locks.take(lock)
    return lock


@contextmanager
def signed_by_a_worker(
    lock: Path, *, when_told: bool = False
) -> Generator["subprocess.Popen[Any]"]:
    """Let a process have a lock, which signs it now or when its input ends."""
    with subprocess.Popen([sys.executable, "-c", OBEDIENT, lock], **PIPES) as worker:
        assert worker.stdout is not None
        assert worker.stdin is not None
        worker.stdout.readline()
        if not when_told:
            worker.stdin.close()
            worker.stdout.readline()
        yield worker


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


def test_no_worker_is_started_beside_one_that_is_here(station: Station, settings: Settings):
    attending = station.attend()
    start_worker(station, settings)
    os.close(attending)
    lock = held(station.on_demand)
    start_worker(station, settings)
    os.close(lock)

    assert not station.log.exists()


def test_no_worker_is_started_for_jobs_that_it_would_not_run(station: Station, settings: Settings):
    os.close(station.attend())
    other = station.queue[:-1] + ("0" if station.queue[-1] != "0" else "1")
    lock = held(station.folder / f"{other}.on-demand")

    start_worker(station, settings, ["jobs", "own-elsewhere-0123456789", other])
    os.close(lock)

    assert not station.log.exists()


def test_queues_are_abandoned_that_are_ours_and_have_no_worker(station: Station):
    os.close(station.attend())
    other, another = (f"{station.kin}-{digit * 10}" for digit in "ab")
    lock = held(station.folder / f"{other}.on-demand")
    unlike = f"{station.owner}-{'c' * 10}-{'d' * 10}"
    queues = [other, another, "jobs", unlike, f"{station.kin}-../../{'c' * 10}"]

    with station.looking():
        found = station.abandoned(queues)
    attending = station.attend()
    with station.looking():
        beside_an_operators = station.abandoned(queues)
    os.close(lock)
    os.close(attending)

    assert (found, beside_an_operators) == ({another}, set())


def test_every_worker_of_mine_is_told_to_go_and_no_other(station: Station):
    os.close(station.attend())
    queues = [
        station.queue,
        f"{station.owner}-{'a' * 10}-{'a' * 10}",
        f"own-{'b' * 10}-{'c' * 10}-{'c' * 10}",
    ]
    locks_of = [station.folder / f"{queue}.on-demand" for queue in queues]

    with ExitStack() as stack:
        workers = [stack.enter_context(signed_by_a_worker(lock)) for lock in locks_of]
        told = stop_workers(station)
        for worker in workers[:2]:
            worker.wait()
        other = workers[2].poll()
        workers[2].terminate()
    after = stop_workers(station)

    assert (told, other, after) == (2, None, 0)


def test_a_worker_that_was_just_started_is_told_to_go_once_it_has_signed(station: Station):
    os.close(station.attend())

    with signed_by_a_worker(station.on_demand, when_told=True) as worker:
        threading.Timer(0.1, lambda: worker.stdin and worker.stdin.close()).start()
        told = stop_workers(station)

    assert told == 1


@pytest.mark.parametrize("signs", [True, False])
def test_a_worker_that_does_not_hear_is_told_once_and_is_an_error(station: Station, signs: bool):
    os.close(station.attend())
    lock = held(station.on_demand)
    with subprocess.Popen([sys.executable, "-c", DEAF], **PIPES) as deaf:
        assert deaf.stdout is not None
        deaf.stdout.readline()
        if signs:
            station.on_demand.write_text(f"{deaf.pid}")

        with pytest.raises(WorkerNotStopped) as raised:
            stop_workers(station, patience_s=0.1)
        first = deaf.stdout.readline() if signs else b""
        rest, _ = deaf.communicate()
    os.close(lock)

    whom = "PID" if signs else "one that starts"
    assert str(raised.value).replace(str(deaf.pid), "PID") == (
        f"No answer from these workers: {whom}. Look at the processes, and end them."
    )
    assert (first, rest) == (b"told\n" if signs else b"", b"")


def test_whoever_is_frozen_while_they_look_keeps_nobody_waiting_for_ever(
    station: Station, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(starting, "PATIENCE_S", 0.05)
    os.close(station.attend())
    frozen = held(station.folder / "looking")

    with pytest.raises(WorkerNotStarted) as raised:
        start_worker(station, settings)
    os.close(frozen)

    assert str(raised.value) == snapshot(
        "No worker can be started here: Connection timed out. The job waits. Start one by hand with `dramatis worker`."
    )


def test_the_embedded_database_is_the_same_whatever_its_machine_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    embedded, external = (
        Settings(data_root=tmp_path),
        Settings(data_root=tmp_path, database_url=NOWHERE),
    )
    before = [Station.of(one).owner for one in (embedded, external)]
    monkeypatch.setattr(starting, "node", lambda: "renamed")
    after = [Station.of(one).owner for one in (embedded, external)]

    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False]


def test_what_is_left_of_workers_of_long_ago_is_removed(station: Station, settings: Settings):
    os.close(station.attend())
    long_ago, lately, busy = (f"{station.owner}-{digit * 10}" for digit in "abc")
    for queue in (long_ago, lately, busy):
        for ending in ("on-demand", "log"):
            station.folder.joinpath(f"{queue}.{ending}").touch()
    lock = held(station.folder / f"{busy}.on-demand")
    for queue in (long_ago, busy):
        os.utime(station.folder / f"{queue}.on-demand", (1, 1))

    with station.looking():
        station.tidy()
    os.close(lock)

    left = {file.stem for file in station.folder.glob(f"{station.owner}-*")}
    assert left == {lately, busy}


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
    assert station.on_demand.stat().st_mode & 0o777 == 0o600
