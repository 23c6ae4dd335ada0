"""Personas that run on a little program instead of a model, for commands."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from server.access import login_name
from tests.cli.conftest import DRAMATIS, Cli
from tests.cli.standards import in_project

# What the line of progress ends with when a program waits.
WAITS = "12 characters so far"
# What it does is the first word of its task.
PROGRAM = r"""
import sys

request = sys.stdin.read().rpartition("# Your task\n\n")[2]
match request.split()[0]:
    case "fail":
        sys.exit("I have no idea.")
    case "wait":
        print("First part.", flush=True)
        open(sys.argv[1]).read()
        print("Second part.")
    case "repeat":
        print(request)
    case "colour":
        print("\x1b[31mred")
    case _:
        print("All is well.")
"""


def in_shop(cli: Cli) -> Cli:
    """Let commands start in a project, where personas run on the program."""
    in_project(cli)
    program = cli.folder / "program.py"
    program.write_text(PROGRAM)
    gate = cli.folder / "gate"
    os.mkfifo(gate)
    command = [sys.executable, str(program), str(gate)]
    cli.env["DRAMATIS_RUNNER_COMMAND"] = shlex.join(command)
    cli.env["DRAMATIS_START_WORKER"] = "false"
    return cli


def let_go_on(cli: Cli) -> None:
    """Let a program that waits go on; waits until it does."""
    (cli.folder / "gate").write_text("on")


def invoked(cli: Cli, task: str = "answer", *more: str, persona: str = "architect") -> str:
    """Invoke a persona, and return the id of its job."""
    return str(cli.answer("invoke", persona, task, *more)["job_id"])


def ran(cli: Cli, task: str = "answer", *more: str) -> str:
    """Let a job run to its end, whatever that is, and return its id."""
    job_id = invoked(cli, task, *more)
    cli.run("job", "tail", job_id)
    return job_id


def state_of(cli: Cli, job_id: str) -> Any:
    return cli.answer("job", "show", job_id)


@contextmanager
def worker_of(cli: Cli, *arguments: str) -> "Generator[subprocess.Popen[bytes]]":
    """Run a worker until the end of the block."""
    with (
        (cli.folder / "worker.log").open("wb") as log,
        subprocess.Popen(
            [DRAMATIS, "worker", "--drain", "0", *arguments],
            env=cli.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        ) as worker,
    ):
        try:
            yield worker
        finally:
            worker.terminate()


def stable(said: str) -> str:
    """Leave out what differs from run to run."""
    said = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", said)
    said = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\dZ", "TIME", said)
    said = re.sub(r"\d\d:\d\d:\d\d", "TIME", said)
    said = re.sub(r"\d{4}-\d\d-\d\d", "DAY", said)
    said = re.sub(r"\b[0-9a-f]{12}\b", "DIGEST", said)
    said = re.sub(r"\b[0-9a-f]{8}\b", "SHORT", said)
    said = re.sub(r"\b\d+\.\d\d MB", "N MB", said)
    said = re.sub(r"\b\d+(\.\d)? s(econds)?\b", "N s", said)
    said = said.replace(", about N s left", "")
    said = re.sub(r"\b[\d,]+ tokens in\b", "N tokens in", said)
    said = re.sub(r"(?<=\S) {2,}", "  ", said)
    return said.replace(login_name(), "ada")
