"""Real programs: most are a few lines of Python, given to the interpreter that runs the tests."""

import fcntl
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import anyio.to_thread
import pytest

from server.jobs.commands import GRACE_S, command_runner
from server.jobs.running import Outcome, RunJob
from server.jobs.shapes import Phase, Step
from server.work import App, Place
from tests.standards.conftest import agent_of

DEADLINE_S = 20
SLEEP = "import time; time.sleep(600)"
# The lock is held for as long as the program, or what it started, is alive.
LOCK = """
import fcntl, signal, subprocess, sys, time
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
"""


class Heard:
    """What a run reported, and an event for its first words."""

    def __init__(self) -> None:
        self.messages: list[tuple[Phase, int, str]] = []
        self.partial = ""
        self.steps: list[Step] = []
        self.spendings: list[Mapping[str, Any]] = []
        self.spoke = anyio.Event()

    async def progress(self, phase: Phase, percent: int, message: str) -> None:
        self.messages.append((phase, percent, message))

    async def text(self, more: str) -> None:
        self.partial += more
        self.spoke.set()

    async def step(self, step: Step) -> None:
        self.steps.append(step)

    async def spent(self, **amounts: Any) -> None:
        self.spendings.append(amounts)


@pytest.fixture
def job(app: App, tmp_path: Path) -> RunJob:
    root = tmp_path.resolve()
    return RunJob(
        id=UUID(int=1),
        attempt=2,
        persona="architect",
        prompt="You are an architect.",
        request="Review this.",
        model="",
        model_url=None,
        tokens_limit=1_000_000_000,
        usd_limit=None,
        place=Place("", root, root / "standards", None),
        app=app,
        caller=agent_of(app),
    )


async def ran(
    job: RunJob,
    code: str,
    *arguments: object,
    heard: Heard | None = None,
    seconds: float = DEADLINE_S,
    environment: Mapping[str, str] | None = None,
    grace_s: float = GRACE_S,
) -> Outcome:
    """Run a program on a job."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    run = command_runner(command, seconds=seconds, environment=environment or {}, grace_s=grace_s)
    with anyio.fail_after(2 * DEADLINE_S):
        return await run(job, heard or Heard())


async def until_free(lock: Path) -> None:
    """Wait until nobody is left who could hold the lock."""
    with lock.open() as file, anyio.fail_after(DEADLINE_S):
        await anyio.to_thread.run_sync(fcntl.flock, file, fcntl.LOCK_EX, abandon_on_cancel=True)


def printing(*texts: str | bytes) -> str:
    """Write a program that prints these, each for itself."""
    pieces = [text.encode() if isinstance(text, str) else text for text in texts]
    return f"import sys\nfor one in {pieces!r}: sys.stdout.buffer.raw.write(one)"
