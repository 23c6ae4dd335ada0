"""Workers that are processes, and the agent that their jobs run on."""

import os
import shlex
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from server.app import jobs_of
from server.settings import Settings
from server.work import App, JobLimits, JobSettings, ModelChoice
from tests.conftest import but
from tests.db.sessions import REPOSITORY
from tests.jobs.workers import Jobs, eventually

# It goes on talking until it is told to come to an end, or nobody listens any more.
AGENT = """
import os, sys, time
from pathlib import Path
folder, me = Path(sys.argv[1]), str(os.getpid())
sys.stdin.read()
print("Thinking", flush=True)
(folder / me).touch()
while not (folder / f"{me}.go").exists() and not (folder / "go").exists():
    time.sleep(0.05)
    print(".", end="", flush=True)
print(f" Done by {me}.", flush=True)
"""
# The worker that people start has a lease of half a minute; this one is given up much sooner.
QUICK_WORKER = """
from datetime import timedelta
from server.jobs.leases import Pace
from server.app import jobs_of
from server.settings import Settings
from server.working import work

work(Settings(), pace=Pace(timedelta(seconds=4), beat_s=0.2, sweep_s=0.2, poll_s=0.1))
"""
WORKER = ["-P", "-c", "from server.cli import main; main()", "worker"]


@dataclass(frozen=True)
class Agents:
    """The agent as a command, and the processes in which it runs or ran."""

    folder: Path

    @classmethod
    def below(cls, folder: Path) -> "Agents":
        (folder / "agents").mkdir()
        (folder / "agent.py").write_text(AGENT)
        return cls(folder / "agents")

    @property
    def command(self) -> str:
        return shlex.join(
            [sys.executable, str(self.folder.with_name("agent.py")), str(self.folder)]
        )

    def pids(self) -> list[int]:
        return [int(file.name) for file in self.folder.iterdir() if file.name.isdigit()]

    async def until(self, count: int) -> list[int]:
        """Wait until so many have begun, and return all."""

        async def so_many() -> bool:
            return len(self.pids()) >= count

        await eventually(so_many)
        return self.pids()

    def let_go(self, pid: int | None = None) -> None:
        """Let one come to an end, or all, and those that are still to come."""
        self.folder.joinpath("go" if pid is None else f"{pid}.go").touch()

    async def until_gone(self) -> None:
        async def gone() -> bool:
            return not any(is_alive(pid) for pid in self.pids())

        await eventually(gone)


def is_alive(pid: int) -> bool:
    """Tell whether a process is there that is more than an end nobody has asked for."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def environment(agents: Agents, data_root: Path, **settings: str) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {
        **inherited,
        "DRAMATIS_DATA_ROOT": str(data_root),
        "DRAMATIS_RUNNER_COMMAND": agents.command,
        "DRAMATIS_LOG_LEVEL": "INFO",
        **{f"DRAMATIS_{name.upper()}": value for name, value in settings.items()},
    }


@contextmanager
def process(
    arguments: list[str], env: dict[str, str], log: Path | None = None
) -> Generator["subprocess.Popen[bytes]"]:
    """Run Python, and kill it at the end if it is still there."""
    with (
        (log or Path(os.devnull)).open("wb") as errors,
        subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=env,
            cwd=REPOSITORY,
        ) as running,
    ):
        try:
            yield running
        finally:
            running.kill()


async def until_ended(running: "subprocess.Popen[bytes]") -> int:
    async def ended() -> bool:
        return running.poll() is not None

    await eventually(ended)
    return running.wait()


async def until_logged(log: Path, words: str) -> None:
    async def logged() -> bool:
        return words in log.read_text()

    await eventually(logged)


def commanding(app: App, settings: Settings | None = None) -> App:
    """Give an app the agent to run personas on, and what starts workers for it."""
    if settings is not None:
        return but(app, place=None, jobs=jobs_of(settings))
    choice = ModelChoice("", None, command=True)
    return but(app, place=None, jobs=JobSettings(choice, JobLimits()))


def starting_none(jobs: Jobs) -> Jobs:
    """Leave it to others to start the worker."""
    return Jobs(but(jobs.app, jobs=but(jobs.app.jobs, start_worker=None)))


def on_demand_workers(data_root: Path) -> list[psutil.Process]:
    """List the workers of a data root that were started for a job."""
    found: list[psutil.Process] = []
    for one in psutil.process_iter():
        try:
            if "--on-demand" in one.cmdline() and Path(one.cwd()) == data_root:
                found.append(one)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            # It has just ended, or is nobody's business of ours.
            continue
    return found


async def until_none(data_root: Path) -> None:
    async def none() -> bool:
        return not on_demand_workers(data_root)

    await eventually(none)


@contextmanager
def left_behind(data_root: Path) -> Generator[None]:
    """Kill the workers that a failed test leaves."""
    try:
        yield
    finally:
        for one in on_demand_workers(data_root):
            one.kill()
