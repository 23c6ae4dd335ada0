"""A command as a process: what stays in its group ends with the run, also if the worker is killed."""

import math
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from tempfile import TemporaryFile

import anyio
from anyio.abc import ByteReceiveStream, Process

from server.jobs import watching
from server.jobs.running import RunnerMissing

POLL_S = 0.02
_TOLD_BYTES = 100


@dataclass(frozen=True, slots=True)
class CommandProcess:
    """A command that was started.

    Attributes:
        watcher: leads the group of the command and ends with it; it has the command's pipes, but
            only we hold their other ends.
        told: our end of the socket on which the watcher says how the command ended.
    """

    program: str
    watcher: Process
    told: socket.socket

    async def wait(self) -> int:
        """Wait until the command has ended, and end what it left running.

        Returns:
            Its exit code; that of a command that was killed is minus the signal.

        Raises:
            RunnerMissing: there was no such command to start.
        """
        code = await self.watcher.wait()
        # What was left running may hold the pipes open; what hid itself from us still can.
        await _end_group(self.watcher.pid)
        # Nobody is left who could say more, so this waits for nothing.
        lines = self.told.recv(_TOLD_BYTES).decode().splitlines()
        said = {name: int(number) for name, number in map(str.split, lines)}
        if "errno" in said:
            raise _missing(self.program, os.strerror(said["errno"]))
        # A watcher that was killed says nothing, and ended as its command did.
        return said.get("code", code)


class Output:
    """What a command prints into a pipe.

    Attributes:
        is_cut: whether it was given up before its end.
    """

    def __init__(self, pipe: ByteReceiveStream | None) -> None:
        assert pipe is not None
        self._pipe = pipe
        self._silence_s = math.inf
        self._reading = anyio.CancelScope()
        self.is_cut = False

    def end_when_silent(self, seconds: float) -> None:
        """Wait no longer than this for any further piece."""
        self._silence_s = seconds
        self._reading.deadline = anyio.current_time() + seconds

    async def read(self) -> bytes:
        """Return the next piece; an empty one at the end, or where none comes in time."""
        deadline = anyio.current_time() + self._silence_s
        with suppress(anyio.EndOfStream), anyio.CancelScope(deadline=deadline) as self._reading:
            return await self._pipe.receive()
        self.is_cut = self._reading.cancelled_caught
        return b""


@asynccontextmanager
async def started(
    command: Sequence[str], asked: str, folder: Path, environment: Mapping[str, str]
) -> AsyncGenerator[CommandProcess]:
    """Start a command in a group of processes of its own, and end all of it afterwards.

    Args:
        command: the program, by an absolute path or a name of the PATH, and its arguments.
        asked: what it reads from its standard input.

    Raises:
        RunnerMissing: it cannot be started at all.
    """
    program = Path(command[0]).name
    ours, watchers = socket.socketpair()
    with ours:
        with watchers:
            whole = [_found(command[0], environment), *command[1:]]
            process = await _watched(program, whole, asked, folder, environment, watchers)
        try:
            yield CommandProcess(program, process, ours)
        finally:
            with anyio.CancelScope(shield=True):
                await _end_group(process.pid)
                await process.aclose()


async def _watched(
    program: str,
    command: Sequence[str],
    asked: str,
    folder: Path,
    environment: Mapping[str, str],
    watchers: socket.socket,
) -> Process:
    python = [sys.executable, "-I", "-S", watching.__file__]
    arguments = [str(watchers.fileno()), environment.get("LC_CTYPE", "")]
    try:
        # Not a pipe: it need not read all of it, or anything.
        with TemporaryFile() as stdin:
            stdin.write(asked.encode())
            stdin.seek(0)
            return await anyio.open_process(
                [*python, *arguments, *command],
                stdin=stdin,
                cwd=folder,
                env=environment,
                start_new_session=True,
                pass_fds=[watchers.fileno()],
            )
    except OSError as error:
        raise _missing(program, error.strerror or "no reason was given") from error


def _found(program: str, environment: Mapping[str, str]) -> str:
    """Find a program by its name.

    A command begins in a project, whose files are nothing that the operator wants to run. So no
    folder counts that depends on where somebody is.
    """
    if Path(program).is_absolute():
        return program
    folders = environment.get("PATH", os.defpath).split(os.pathsep)
    fixed = [folder for folder in folders if Path(folder).is_absolute()]
    found = which(program, path=os.pathsep.join(fixed))
    if found is None or not Path(found).is_absolute():
        raise _missing(program, "no such program was found")
    return found


def _missing(program: str, reason: str) -> RunnerMissing:
    return RunnerMissing(
        f"{program} cannot be started on this worker: {reason}.",
        hint="DRAMATIS_RUNNER_COMMAND names a program that the worker's PATH has.",
    )


async def _end_group(group: int) -> None:
    """Ask every process of the group to end, and kill those that have not after a while."""
    if _signal(group, signal.SIGTERM):
        with anyio.move_on_after(watching.GRACE_S):
            # Nobody is told when a process ends that is not their own child.
            while _signal(group, 0):  # noqa: ASYNC110
                await anyio.sleep(POLL_S)
        _signal(group, signal.SIGKILL)


def _signal(group: int, sign: int) -> bool:
    """Send a signal, and tell whether the group has any process left that takes it."""
    try:
        os.killpg(group, sign)
    except (ProcessLookupError, PermissionError):
        return False
    return True
