"""Clients, servers and reapers that are killed at bad moments."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from db import binaries
from db.cluster import Cluster
from db.embedded import EmbeddedPostgres
from db.places import Places
from tests.db.sessions import (
    SESSION,
    ask,
    cleared,
    eventually,
    postmaster_of,
    processes_of,
    reapers_of,
    session,
    spawn_session,
)

AT_ONCE = timedelta(0)
SESSIONS = 40


@pytest.fixture
def root(tmp_path: Path) -> Generator[Path]:
    with cleared(tmp_path / "data") as folder:
        yield folder


@pytest.fixture
def server(root: Path) -> Generator[EmbeddedPostgres]:
    server = EmbeddedPostgres(root, linger=AT_ONCE)
    yield server
    server.release()


@pytest.fixture
def innocent() -> "Generator[subprocess.Popen[bytes]]":
    """A process of the account that runs the server, which has nothing to do with it."""
    account = binaries.unprivileged_account() if os.geteuid() == 0 else None
    user = account.uid if account else None
    with subprocess.Popen(["/bin/sleep", "600"], user=user) as process:
        yield process
        process.kill()


def test_the_server_of_a_killed_client_is_stopped(root: Path, server: EmbeddedPostgres) -> None:
    with session(root) as client:
        assert server.is_running()
        client.kill()

    eventually(lambda: not processes_of(server))


def test_sessions_that_race_and_are_killed_neither_fail_nor_leave_anything(
    root: Path, server: EmbeddedPostgres
) -> None:
    script = SESSION.replace(
        'print("attached", flush=True)',
        """import psycopg
psycopg.connect(server.acquire().url().replace("+psycopg", ""), connect_timeout=30).close()
print("attached", flush=True)""",
    )
    chance = random.Random(20)
    patience = [chance.uniform(0, 0.8) if number % 2 else None for number in range(SESSIONS)]

    def run(kill_after_s: float | None) -> str:
        with spawn_session(root, script=script) as client:
            assert client.stdout
            if kill_after_s is None:
                client.stdout.readline()
                return client.communicate()[1]
            try:
                # Its input stays open, so it does not end by itself.
                client.wait(kill_after_s)
            except subprocess.TimeoutExpired:
                client.kill()
                return ""
            return client.communicate()[1]

    with ThreadPoolExecutor(8) as pool:
        complaints = list(pool.map(run, patience))

    assert complaints == [""] * SESSIONS
    eventually(lambda: not processes_of(server))


def test_stopping_a_server_that_the_reaper_has_just_stopped_is_no_failure(
    server: EmbeddedPostgres,
) -> None:
    server.acquire()
    server.release()
    eventually(lambda: not processes_of(server))

    Cluster.at(Places(server.base, 18)).stop()

    assert not server.stop()


def test_a_client_that_is_killed_while_it_starts_the_server_leaves_none(
    root: Path, server: EmbeddedPostgres
) -> None:
    with session(root):
        pass
    eventually(lambda: not processes_of(server))

    with spawn_session(root) as client:
        eventually(lambda: bool(processes_of(server)))
        client.kill()

    eventually(lambda: not processes_of(server))
    assert not server.is_running()


def test_a_cluster_is_never_half_made(root: Path, server: EmbeddedPostgres) -> None:
    with spawn_session(root) as client:
        eventually(lambda: any(server.base.glob("pg18.new-*/PG_VERSION")))
        client.kill()
    assert not server.data.exists()

    connection = server.acquire()

    assert ask(connection, b"SELECT 42") == 42
    server.release()
    eventually(lambda: not processes_of(server))
    server.acquire()
    assert not list(server.base.glob("pg18.new-*"))


def test_what_a_killed_client_left_undone_is_done_by_the_next(
    root: Path, server: EmbeddedPostgres
) -> None:
    connection = server.acquire()
    with psycopg.connect(host=connection.host, user="postgres", autocommit=True) as superuser:
        superuser.execute("DROP DATABASE dramatis")
        superuser.execute("DROP ROLE dramatis_app")
    (server.base / "pg18.ready").unlink()

    with session(root):
        assert ask(connection, b"SELECT current_user") == "dramatis_app"


def test_a_server_that_was_killed_is_started_again(server: EmbeddedPostgres) -> None:
    connection = server.acquire()
    with psycopg.connect(host=connection.host, user="dramatis_app", dbname="dramatis"):
        os.kill(postmaster_of(server), signal.SIGKILL)
        eventually(lambda: not server.is_running())

        server.ensure_running()

    assert ask(connection, b"SELECT 42") == 42
    server.release()
    eventually(lambda: not processes_of(server))


def test_a_reaper_that_was_killed_is_replaced_by_the_next_client(
    root: Path, server: EmbeddedPostgres
) -> None:
    server.acquire()
    [reaper] = reapers_of(server)
    os.kill(reaper, signal.SIGKILL)
    eventually(lambda: not reapers_of(server))

    with session(root):
        [replacement] = reapers_of(server)
        assert replacement != reaper

    server.release()
    eventually(lambda: not processes_of(server))


@pytest.mark.parametrize("content", ["whole", "empty"])
def test_an_old_lock_file_neither_stops_the_server_nor_harms_an_innocent_process(
    server: EmbeddedPostgres, innocent: "subprocess.Popen[bytes]", content: str
) -> None:
    server.acquire()
    lock_files = [server.data / "postmaster.pid", server.socket_dir / ".s.PGSQL.5432.lock"]
    texts = [path.read_text() for path in lock_files]
    owner = server.data.stat()
    server.release()
    eventually(lambda: not processes_of(server))
    for path, text in zip(lock_files, texts, strict=True):
        rest = text.partition("\n")[2]
        path.write_text(f"{innocent.pid}\n{rest}" if content == "whole" else "")
        os.chown(path, owner.st_uid, owner.st_gid)

    connection = server.acquire()

    assert ask(connection, b"SELECT 42") == 42
    server.release()
    eventually(lambda: not processes_of(server))
    assert innocent.poll() is None


def test_a_reaper_without_a_server_signals_nobody(
    server: EmbeddedPostgres, innocent: "subprocess.Popen[bytes]"
) -> None:
    server.acquire()
    lock_file = server.data / "postmaster.pid"
    rest = lock_file.read_text().partition("\n")[2]
    os.kill(postmaster_of(server), signal.SIGKILL)
    eventually(lambda: not server.is_running())
    lock_file.write_text(f"{innocent.pid}\n{rest}")

    server.release()

    eventually(lambda: not processes_of(server))
    assert innocent.poll() is None


def test_a_client_leaves_no_process_and_no_descriptor_of_its_own(root: Path) -> None:
    script = """
import os, sys
from datetime import timedelta
from pathlib import Path
from db.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), linger=timedelta(0))
before = set(os.listdir("/dev/fd"))
server.acquire()
server.release()
print(sorted(set(os.listdir("/dev/fd")) - before))
try:
    print(os.waitpid(-1, os.WNOHANG))
except ChildProcessError:
    print("childless")
"""

    with spawn_session(root, script=script, env={"PYTHONWARNINGS": "error"}) as process:
        assert process.communicate() == ("[]\nchildless\n", "")


def test_root_makes_one_account_when_two_try(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("Only root makes accounts.")
    name = f"dramatis-test-{os.getpid()}"
    monkeypatch.setattr(binaries, "ACCOUNT", name)
    try:
        with ThreadPoolExecutor(4) as pool:
            made = [pool.submit(binaries.unprivileged_account) for _ in range(4)]
            accounts = {account.result() for account in made}
    finally:
        subprocess.run(["/usr/sbin/userdel", name], check=True)

    assert len(accounts) == 1
