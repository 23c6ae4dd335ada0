"""Fresh surroundings for every client: a data root and a home of its own, nothing left after."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psutil

from db.embedded import EmbeddedPostgres
from tests.conformance.report import Report

COMMAND = Path(sys.executable).with_name("dramatis")
# The first start of an embedded server initialises a cluster; a client needs seconds.
PATIENCE_S = 120
LEAVING_S = 15


@dataclass(frozen=True)
class Surroundings:
    home: Path
    variables: dict[str, str]
    """The settings of Dramatis."""

    @property
    def environment(self) -> dict[str, str]:
        """The caller's environment, without the settings of a Dramatis of the caller's own."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("DRAMATIS_")}
        inspector = {"MCP_INSPECTOR_SECRET_STORE": "memory"}
        return inherited | inspector | self.variables | {"HOME": str(self.home)}


@dataclass(frozen=True)
class Run:
    code: int
    out: str
    err: str

    @property
    def output(self) -> str:
        return f"exit code {self.code}\n{self.out}{self.err}"


@contextmanager
def fresh(report: Report, client: str) -> Generator[Surroundings]:
    """Surroundings that no process may outlive; one that does is ended and counts as a failure."""
    home = Path(tempfile.mkdtemp(prefix="dramatis-"))
    # Root's databases are elsewhere.
    database = EmbeddedPostgres(home / "data", linger=timedelta(0)).base
    variables = {"DRAMATIS_DATA_ROOT": str(home / "data"), "DRAMATIS_LINGER_S": "0"}
    try:
        yield Surroundings(home, variables)
    finally:
        left = _left_behind(home, database)
        report.check(f"{client}: leaves no process behind", "\n".join(left) or None)
        for folder in (database, home):
            shutil.rmtree(folder, ignore_errors=True)


def run(command: Sequence[str | Path], surroundings: Surroundings) -> Run:
    """Run a client to its end; one that takes too long is ended, together with its children."""
    process = subprocess.Popen(
        command,
        cwd=surroundings.home,
        env=surroundings.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        err += f"\nStill running after {PATIENCE_S} s."
    return Run(process.returncode, out, err)


def _left_behind(*folders: Path) -> list[str]:
    """Processes that still work in these folders when they have had time to leave."""
    deadline = time.monotonic() + LEAVING_S
    while (left := list(_working_in(folders))) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process, _ in left:
        process.kill()
    return [f"{process.pid}: {command}" for process, command in left]


def _working_in(folders: Sequence[Path]) -> Generator[tuple[psutil.Process, str]]:
    """Processes whose command or environment names one of the folders."""
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
            words = [*command, *process.environ().values()]
        except psutil.Error:
            # It ended meanwhile, or is another user's and none of ours.
            continue
        if any(str(folder) in word for folder in folders for word in words):
            yield process, " ".join(command)
