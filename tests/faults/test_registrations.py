"""Registration when many do it at once, when a process dies, and when the database goes away."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import psycopg
import pytest
from dirty_equals import IsStr

from db.embedded import EmbeddedPostgres
from db.migrate import upgrade
from tests.conftest import Databases
from tests.stdio import Server
from tests.test_migrations import plain

PROCESSES = 20

# Each process says that it is ready and registers when it is told to, so that all do at once.
REGISTER = """
import sys, anyio
from server.app import open_app
from server.personas.service import register_persona
from server.settings import Settings
from server.work import OPERATOR_SCOPES, Caller

async def main():
    async with open_app(Settings()) as app:
        print("ready", flush=True)
        sys.stdin.readline()
        caller = Caller("operator", "racer", app.tenant_id, OPERATOR_SCOPES)
        print((await register_persona(app, caller, name="Con", role="Developer")).slug)

anyio.run(main)
"""


@pytest.fixture
def database(databases: Databases) -> Iterator[str]:
    name = databases.migrated()
    yield name
    databases.drop(name)


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path / "own", linger=timedelta(0))
    upgrade(server.acquire().url("dramatis_owner"))
    yield server
    server.stop()
    server.release()
    shutil.rmtree(server.base, ignore_errors=True)


def environment(databases: Databases, database: str, data_root: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "DRAMATIS_DATABASE_URL": databases.url(database),
        "DRAMATIS_DATA_ROOT": str(data_root),
        "DRAMATIS_POOL_SIZE": "1",
    }


def test_twenty_processes_register_into_a_role_that_does_not_exist_yet(
    databases: Databases, database: str, tmp_path: Path
):
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", REGISTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(databases, database, tmp_path),
        )
        for _ in range(PROCESSES)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    slugs = [racer.communicate(timeout=60)[0].strip() for racer in racers]

    with psycopg.connect(plain(databases.url(database, "postgres"))) as connection:
        roles = connection.execute("SELECT name, label FROM dramatis.roles").fetchall()
    assert roles == [("developer", "Developer")]
    assert sorted(slugs) == sorted(f"developer-con-{n}" for n in range(1, PROCESSES + 1))
    assert {path.name for path in (tmp_path / "personas").iterdir()} == set(slugs)


def test_a_process_killed_between_commit_and_files_leaves_a_persona_to_repair(
    databases: Databases, database: str, tmp_path: Path
):
    templates = tmp_path / "templates" / "assets"
    templates.mkdir(parents=True)
    # Rendering does not come to an end: the row is committed and no file is there yet.
    (templates / "skill.md").write_text("{% for _ in range(10**12) %}{% endfor %}")
    settings = environment(databases, database, tmp_path / "data")
    with Server(**settings, DRAMATIS_TEMPLATES=str(templates.parent)) as server:
        server.initialize()
        server.send(
            "tools/call",
            {"name": "register_persona", "arguments": {"name": "Con", "role": "developer"}},
        )
        wait_for_a_persona(plain(databases.url(database, "postgres")))
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(10)

    with Server(**settings) as server:
        server.initialize()
        listed = server.call("list_personas")["structuredContent"]["personas"]
        repaired = server.call("repair_persona_assets", persona="con")["structuredContent"]
        again = server.call("repair_persona_assets", persona="con")["structuredContent"]

    assert [persona["assets"]["skill"] for persona in listed] == [False]
    assert repaired["created"] == ["skill.md", "experience.md"]
    assert again["created"] == []
    assert again["assets"] == {"directory": True, "skill": True, "experience": True}


def test_a_database_that_stops_and_starts_again_costs_an_error_and_no_restart(
    own_postgres: EmbeddedPostgres, tmp_path: Path
):
    url = own_postgres.acquire().url()
    with Server(DRAMATIS_DATABASE_URL=url, DRAMATIS_DATA_ROOT=str(tmp_path)) as server:
        server.initialize()
        server.call("register_persona", name="Con", role="developer")

        own_postgres.stop()
        refused = server.call("get_persona", persona="con")
        own_postgres.ensure_running()
        found = server.call("get_persona", persona="con")

    assert refused["isError"] is True
    assert refused["content"][0]["text"] == IsStr(
        regex=r"Error executing tool get_persona: database_unavailable: The database does not"
        r" answer\. .*"
    )
    assert str(own_postgres.socket_dir) not in refused["content"][0]["text"]
    assert found["structuredContent"]["persona"]["slug"] == "developer-con-1"


def test_a_database_restarted_between_two_calls_is_not_noticed(
    own_postgres: EmbeddedPostgres, tmp_path: Path
):
    url = own_postgres.acquire().url()
    with Server(DRAMATIS_DATABASE_URL=url, DRAMATIS_DATA_ROOT=str(tmp_path)) as server:
        server.initialize()
        server.call("register_persona", name="Con", role="developer")

        own_postgres.stop()
        own_postgres.ensure_running()
        found = server.call("get_persona", persona="con")

    assert found["isError"] is False


def test_variables_that_mean_another_server_are_not_followed(tmp_path: Path):
    others = {
        "PGHOSTADDR": "127.0.0.1",
        "PGSERVICE": "shop",
        "PGOPTIONS": "-c default_transaction_read_only=on",
        "PGCLIENTENCODING": "LATIN1",
        "PGSSLMODE": "bogus",
        "PGTZ": "nonsense/zone",
        "DATABASE_URL": "postgresql://me@localhost:1/shop",
    }
    settings = {"DRAMATIS_DATA_ROOT": str(tmp_path / "data"), "DRAMATIS_LINGER_S": "0"}
    try:
        with Server(**settings, **others) as server:
            server.initialize()
            persona = server.call("register_persona", name="Con", role="developer")
    finally:
        beside = EmbeddedPostgres(tmp_path / "data", linger=timedelta(0))
        beside.acquire()
        beside.stop()
        beside.release()
        shutil.rmtree(beside.base, ignore_errors=True)

    assert persona["structuredContent"]["slug"] == "developer-con-1"


def test_an_embedded_server_that_was_killed_is_started_again(tmp_path: Path):
    settings = {"DRAMATIS_DATA_ROOT": str(tmp_path / "data"), "DRAMATIS_LINGER_S": "0"}
    beside = EmbeddedPostgres(tmp_path / "data", linger=timedelta(0))
    try:
        with Server(**settings) as server:
            server.initialize()
            server.call("register_persona", name="Con", role="developer")

            postmaster = int((beside.data / "postmaster.pid").read_text().split()[0])
            os.kill(postmaster, signal.SIGKILL)
            # The first may meet the dead one, and starting takes its time on a busy machine.
            answers = [server.call("get_persona", persona="con") for _ in range(4)]
    finally:
        beside.acquire()
        beside.stop()
        beside.release()
        shutil.rmtree(beside.base, ignore_errors=True)

    assert answers[-1]["structuredContent"]["persona"]["slug"] == "developer-con-1"


def test_a_frozen_database_is_an_error_within_ten_seconds(
    own_postgres: EmbeddedPostgres, tmp_path: Path
):
    url = own_postgres.acquire().url()
    postmaster = int((own_postgres.data / "postmaster.pid").read_text().split()[0])
    with Server(DRAMATIS_DATABASE_URL=url, DRAMATIS_DATA_ROOT=str(tmp_path)) as server:
        server.initialize()
        server.call("register_persona", name="Con", role="developer")
        frozen = [postmaster, *children(postmaster)]
        for process in frozen:
            os.kill(process, signal.SIGSTOP)
        try:
            number = server.send(
                "tools/call", {"name": "get_persona", "arguments": {"persona": "con"}}
            )
            answer = server.receive(timeout_s=10)
        finally:
            for process in frozen:
                os.kill(process, signal.SIGCONT)
        found = server.call("get_persona", persona="con")

    assert answer["id"] == number
    assert "database_unavailable" in answer["result"]["content"][0]["text"]
    assert found["isError"] is False


def wait_for_a_persona(url: str) -> None:
    deadline = time.monotonic() + 30
    with psycopg.connect(url, autocommit=True) as connection:
        while not connection.execute("SELECT FROM dramatis.personas").fetchall():
            assert time.monotonic() < deadline


def children(process: int) -> list[int]:
    return [child.pid for child in psutil.Process(process).children()]
