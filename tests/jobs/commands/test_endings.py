"""However a command ends, all that it started ends with it."""

import os
import sys
from pathlib import Path

import anyio
import pytest

from server.errors import Conflict
from server.jobs.running import RunFailed, RunJob
from tests.db.sessions import REPOSITORY
from tests.jobs.commands.conftest import DEADLINE_S, LOCK, SLEEP, Heard, ran, until_free

pytestmark = pytest.mark.anyio

START = f"""
subprocess.Popen([sys.executable, "-c", {SLEEP!r}], pass_fds=[lock.fileno()])
"""
IGNORE = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
# A worker that has nothing but a command, and passes on what it says.
WORKER = """
import sys
from pathlib import Path
import anyio
from server.jobs.command_process import started

async def main():
    async with started(sys.argv[1:], "", Path.cwd(), {}) as command:
        async for piece in command.watcher.stdout:
            print(piece.decode(), end="", flush=True)

anyio.run(main)
"""


class Refusing(Heard):
    """What a worker hears that has lost its job to another one."""

    async def text(self, more: str) -> None:
        raise Conflict("The job is another worker's now.")


class Slow(Heard):
    """What a worker hears whose database answers only after the command and its grace are over."""

    def __init__(self, lock: Path) -> None:
        super().__init__()
        self._lock = lock

    async def text(self, more: str) -> None:
        await until_free(self._lock)
        await anyio.sleep(1)
        await super().text(more)


def hiding(code: str) -> str:
    """Write a program that starts another one out of reach, which knows its number, and says which."""
    return (
        "import os, subprocess, sys; hidden = subprocess.Popen("
        f"[sys.executable, '-c', {code!r}, str(os.getpid())], start_new_session=True);"
        "print(hidden.pid)"
    )


def is_child(pid: int) -> bool:
    """Tell whether a process is a child of this one, which it stays until it was waited for."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


@pytest.mark.parametrize("manners", ["", IGNORE])
async def test_a_command_whose_worker_is_killed_ends_with_all_it_started(
    tmp_path: Path, manners: str
):
    lock = tmp_path / "lock"
    code = f"{LOCK}{manners}{START}print('half', flush=True)\n{SLEEP}"
    command = [sys.executable, "-c", code, str(lock)]
    worker = await anyio.open_process(
        [sys.executable, "-P", "-c", WORKER, *command],
        stderr=None,
        env={"PYTHONPATH": str(REPOSITORY)},
    )
    assert worker.stdout is not None

    async with worker:
        with anyio.fail_after(DEADLINE_S):
            said = await worker.stdout.receive()
        worker.kill()
        await until_free(lock)

    assert said == b"half\n"


async def test_a_command_whose_watcher_is_killed_ends_with_it(job: RunJob, tmp_path: Path):
    lock = tmp_path / "lock"
    code = f"{LOCK}{START}\nimport os; os.kill(os.getppid(), 9)\n{SLEEP}"

    with pytest.raises(RunFailed, match=r"was ended by signal 9\.$"):
        await ran(job, code, lock)

    await until_free(lock)


@pytest.mark.parametrize("manners", ["", IGNORE])
async def test_a_command_that_is_cancelled_ends_with_all_it_started(
    job: RunJob, tmp_path: Path, manners: str
):
    lock = tmp_path / "lock"
    heard = Heard()
    code = f"{LOCK}{manners}{START}print('half', flush=True)\n{SLEEP}"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: ran(job, code, lock, heard=heard))
        with anyio.fail_after(DEADLINE_S):
            await heard.spoke.wait()
        tasks.cancel_scope.cancel()

    assert heard.partial == "half\n"
    await until_free(lock)


async def test_what_a_command_leaves_running_does_not_outlive_it(job: RunJob, tmp_path: Path):
    lock = tmp_path / "lock"

    outcome = await ran(job, f"{LOCK}{START}print('done')", lock)

    assert outcome.text == "done"
    await until_free(lock)


async def test_what_a_command_hides_keeps_nobody_waiting_and_may_have_had_more_to_say(job: RunJob):
    heard = Heard()

    with pytest.raises(RunFailed, match=r" ended, but what it started keeps its output open"):
        await ran(job, hiding(SLEEP), heard=heard, grace_s=0.2)

    os.kill(int(heard.partial), 9)


async def test_what_a_command_hides_can_finish_its_answer(job: RunJob):
    code = "import os, time\nwhile os.getppid() == int(sys.argv[1]): time.sleep(0.01)\nprint('.')"

    outcome = await ran(job, hiding(f"import sys; {code}"))

    assert outcome.text.endswith("\n.")


async def test_an_answer_is_whole_however_long_it_takes_to_report_it(job: RunJob, tmp_path: Path):
    lock = tmp_path / "lock"
    code = f"{LOCK}\nprint('x' * 100_000, 'end', sep='')"

    outcome = await ran(job, code, lock, heard=Slow(lock), grace_s=0.5)

    assert len(outcome.text) == 100_003
    assert outcome.text.endswith("end")


async def test_no_zombie_is_left(job: RunJob):
    outcome = await ran(job, "import os; print(os.getpid(), os.getppid())")

    assert [is_child(int(pid)) for pid in outcome.text.split()] == [False, False]


async def test_a_report_that_is_refused_ends_the_command_with_its_own_reason(
    job: RunJob, tmp_path: Path
):
    lock = tmp_path / "lock"

    with pytest.raises(Conflict, match="another worker's"):
        await ran(job, f"{LOCK}\nprint('x', flush=True)\n{SLEEP}", lock, heard=Refusing())

    await until_free(lock)
