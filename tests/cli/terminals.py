"""Commands on a terminal, where a person reads and types."""

import fcntl
import os
import pty
import select
import shlex
import signal
import struct
import subprocess
import termios
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tests.cli.conftest import DRAMATIS, Cli


@dataclass(frozen=True)
class Session:
    exit_code: int
    seen: str


# A command that waits for an answer that no test gives is not waited for.
PATIENCE_S = 30
# The first terminal that a new session opens is its own. Of no other does a process know whether it
# has the foreground.
_HAVE_AND_RUN = ': <"$0"; exec "$@"'


class Talk:
    """A command on a terminal that is answered as it asks."""

    def __init__(self, terminal: int, process: "subprocess.Popen[bytes]") -> None:
        self._terminal = terminal
        self._process = process
        self._seen = b""

    def wait_for(self, text: str) -> str:
        """Read until a text stands at the end, and return what came since it was last waited."""
        while not _text(self._seen).endswith(text):
            part = _part_of(self._terminal)
            assert part, f"{text!r} did not come after:\n{_text(self._seen)}"
            self._seen += part
        seen, self._seen = _text(self._seen), b""
        return seen

    def answer(self, question: str, typed: str) -> str:
        """Wait for a question, and type an answer and Enter; return what came with the question."""
        seen = self.wait_for(question)
        self.press(f"{typed}\n")
        return seen

    def press(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def interrupt(self) -> None:
        """Do what a terminal does on Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def end(self) -> Session:
        """Wait for the end, and return what came since it was last waited."""
        seen = _text(self._seen + _all_of(self._terminal))
        return Session(self._process.wait(), seen)


def on_terminal(cli: Cli, *arguments: str, typed: str = "", columns: int = 80) -> Session:
    """Run a command whose input and outputs are one terminal, and return all that it showed."""
    return _to_its_end(cli, [str(DRAMATIS), *arguments], typed, columns)


def in_background(cli: Cli, *arguments: str, columns: int = 80) -> Session:
    """Run a command as a shell's background job, and return all that its terminal showed."""
    line = shlex.join([str(DRAMATIS), *arguments])
    return _to_its_end(cli, ["bash", "-c", f"set -m; {line} & wait $!"], "", columns)


def _to_its_end(cli: Cli, command: Sequence[str], typed: str, columns: int) -> Session:
    with _started(cli, command, columns) as (terminal, process):
        os.write(terminal, typed.encode())
        seen = _all_of(terminal)
    return Session(process.returncode, _text(seen))


@contextmanager
def talking_to(cli: Cli, *arguments: str, columns: int = 80) -> Generator[Talk]:
    """Run a command on a terminal, and answer what it asks when it asks."""
    with _started(cli, [str(DRAMATIS), *arguments], columns) as (terminal, process):
        yield Talk(terminal, process)


@contextmanager
def _started(
    cli: Cli, command: Sequence[str], columns: int
) -> "Generator[tuple[int, subprocess.Popen[bytes]]]":
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    # A COLUMNS of ours would win over the terminal's.
    environment = cli.environment({"TERM": "dumb"})
    environment.pop("COLUMNS", None)
    with subprocess.Popen(
        ["sh", "-c", _HAVE_AND_RUN, os.ttyname(its), *command],
        stdin=its,
        stdout=its,
        stderr=its,
        env=environment,
        start_new_session=True,
    ) as process:
        os.close(its)
        try:
            yield ours, process
        except BaseException:
            process.kill()
            raise
    os.close(ours)


def _all_of(terminal: int) -> bytes:
    seen = b""
    while part := _part_of(terminal):
        seen += part
    return seen


def _part_of(terminal: int) -> bytes:
    readable, _, _ = select.select([terminal], [], [], PATIENCE_S)
    assert readable, "It shows nothing more, and does not end."
    try:
        return os.read(terminal, 65536)
    except OSError:
        # Linux says that the other end was closed with an error.
        return b""


def _text(seen: bytes) -> str:
    # Of what is still coming, the last character may be there in part.
    return seen.decode(errors="replace").replace("\r\n", "\n")
