"""Commands on a terminal, where a person reads and types."""

import fcntl
import os
import pty
import struct
import subprocess
import termios
from dataclasses import dataclass

from tests.cli.conftest import DRAMATIS, Cli


@dataclass(frozen=True)
class Session:
    exit_code: int
    seen: str


def on_terminal(cli: Cli, *arguments: str, typed: str = "", columns: int = 80) -> Session:
    """Run a command whose input and outputs are one terminal, and return all that it showed."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    # A COLUMNS of ours would win over the terminal's.
    environment = cli.environment({"TERM": "dumb"})
    environment.pop("COLUMNS", None)
    with subprocess.Popen(
        [DRAMATIS, *arguments], stdin=its, stdout=its, stderr=its, env=environment
    ) as process:
        os.close(its)
        os.write(ours, typed.encode())
        seen = _all_of(ours)
    os.close(ours)
    return Session(process.returncode, seen.replace("\r\n", "\n"))


def _all_of(terminal: int) -> str:
    seen = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:
            # Linux says that the other end was closed with an error.
            part = b""
        if not part:
            return seen.decode()
        seen += part
