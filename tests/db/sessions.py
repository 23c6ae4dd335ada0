"""Sessions that use an embedded server, each in a process of its own, and what they leave."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psutil
import psycopg

from db.embedded import Connection, EmbeddedPostgres

REPOSITORY = Path(__file__).parents[2]
DEADLINE_S = 60.0

# Attaches, says so, and detaches when its input ends.
SESSION = """
import sys
from datetime import timedelta
from pathlib import Path
from db.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), linger=timedelta(0))
server.acquire()
print("attached", flush=True)
sys.stdin.read()
server.release()
"""


def eventually(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds, and fail if that takes longer than any machine needs."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "It did not happen in time."
        time.sleep(0.01)


def processes_of(server: EmbeddedPostgres) -> dict[int, str]:
    """List what runs for a cluster: its server and its reaper, by process id."""
    found: dict[int, str] = {}
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(server.data) in line:
            found[process.pid] = line
    return found


def reapers_of(server: EmbeddedPostgres) -> list[int]:
    return [pid for pid, line in processes_of(server).items() if "reaper.py" in line]


def postmaster_of(server: EmbeddedPostgres) -> int:
    return int((server.data / "postmaster.pid").read_text().split()[0])


def ask(connection: Connection, query: bytes, user: str = "dramatis_app") -> object:
    """Return the single value of a query."""
    with psycopg.connect(host=connection.host, user=user, dbname="dramatis", port=5432) as client:
        row = client.execute(query).fetchone()
    assert row
    return row[0]


def spawn_session(
    root: Path, *, script: str = SESSION, env: dict[str, str] | None = None
) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", script, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env=os.environ | (env or {}),
    )


@contextmanager
def session(root: Path, *, env: dict[str, str] | None = None) -> "Generator[subprocess.Popen[str]]":
    """Run a session, attached when this returns, which detaches at the end unless it is killed."""
    with spawn_session(root, env=env) as process:
        assert process.stdout
        assert process.stderr
        if process.stdout.readline() != "attached\n":
            raise AssertionError(process.stderr.read())
        yield process


@contextmanager
def cleared(root: Path) -> Generator[Path]:
    """Stop and remove whatever a test has left below and for `root`."""
    try:
        yield root
    finally:
        servers = [EmbeddedPostgres(root, linger=timedelta(0), major=major) for major in (16, 18)]
        for server in servers:
            server.stop()
            # The reaper of a test may linger for hours; it has nothing left to do.
            for pid in reapers_of(server):
                psutil.Process(pid).kill()
        for server in servers:
            eventually(lambda stopped=server: not processes_of(stopped))
            for folder in (server.base, server.socket_dir):
                shutil.rmtree(folder, ignore_errors=True)
