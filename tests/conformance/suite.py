"""The official conformance suite, against our server with the suite's fixtures over HTTP."""

import re
import select
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import anyio
import yaml
from mcp import Client
from pydantic import BaseModel, TypeAdapter

from tests.conformance.installation import ROOT, Tools
from tests.conformance.report import CannotCheck, Report
from tests.conformance.surroundings import PATIENCE_S, Run, Surroundings, fresh, run

REVISIONS = ("2026-07-28", "2025-11-25")
SKILLS = ("sep-2640-skills-enumeration", "sep-2640-skills-manifest")
# Without tasks-status-notifications, which the suite has not written yet and skips for everybody.
TASKS = (
    "tasks-lifecycle",
    "tasks-capability-negotiation",
    "tasks-wire-fields",
    "tasks-request-state-removal",
    "tasks-mrtr-input",
    "tasks-request-headers",
    "tasks-dispatch-and-envelope",
    "tasks-required-task-error",
    "tasks-mrtr-composition",
)
STOPPING_S = 10
MORE_THAN_A_PAGE = 60

# What resources/list says of a SKILL.md. We list a persona's files there under persona:// only;
# the address of its SKILL.md comes from skills/list.
NOT_LISTED = ("sep-2640-skillmd-metadata-name", "sep-2640-skillmd-metadata-description")

RESULTS = re.compile(r"server-(?P<scenario>.+)-\d{4}-\d\d-\d\dT[\d-]+Z")


class Check(BaseModel):
    id: str
    status: Literal["SUCCESS", "FAILURE", "WARNING", "SKIPPED", "INFO"]
    errorMessage: str = ""  # noqa: N815

    @property
    def counts_against_us(self) -> bool:
        """Whether it failed, warned or was skipped.

        The suite lets the last two pass. With our fixtures everything required can be tried, and
        what a server only should do, this one does.
        """
        if self.id in NOT_LISTED and self.errorMessage.startswith("Not testable"):
            return False
        return self.status not in ("SUCCESS", "INFO")


class Requirements(BaseModel):
    """The part of a revision's requirements that is for servers."""

    server: list[str]


CHECKS = TypeAdapter(list[Check])


def check(report: Report, tools: Tools) -> None:
    suite = tools.modules / "@modelcontextprotocol/conformance"
    with fresh(report, "suite") as surroundings, _serving(report, surroundings) as url:
        anyio.run(_register_some, url)
        command = (tools.node, suite / "dist/index.js", "server", "--url", url)
        for revision in REVISIONS:
            required = yaml.safe_load((suite / f"requirements/{revision}.yaml").read_text())
            scenarios = Requirements.model_validate(required).server
            results = surroundings.home / revision
            ended = run([*command, "--requirements", revision, "-o", results], surroundings)
            _judge(report, f"suite, {revision}", scenarios, results, ended)
        for scenario in (*SKILLS, *TASKS):
            results = surroundings.home / scenario
            ended = run([*command, "--scenario", scenario, "-o", results], surroundings)
            _judge(report, "suite, extension", [scenario], results, ended)


def _judge(report: Report, part: str, scenarios: list[str], results: Path, ended: Run) -> None:
    folders = {
        match["scenario"]: folder
        for folder in results.glob("*")
        if (match := RESULTS.fullmatch(folder.name))
    }
    for scenario in scenarios:
        folder = folders.get(scenario)
        problem = _problem(folder) if folder else f"It was not run.\n{ended.output}"
        report.check(f"{part}: {scenario}", problem)
    report.check(f"{part}: passes in the suite's own eyes", ended.output if ended.code else None)


def _problem(results: Path) -> str | None:
    """What a scenario found; `None` when there is nothing to complain of."""
    checks = CHECKS.validate_json((results / "checks.json").read_bytes())
    lines = [
        f"{check.status} {check.id}: {check.errorMessage}"
        for check in checks
        if check.counts_against_us
    ]
    if not any(check.status == "SUCCESS" for check in checks):
        lines.append("Nothing was checked.")
    return "\n".join(lines) or None


@contextmanager
def _serving(report: Report, surroundings: Surroundings) -> Generator[str]:
    """Serve for as long as the suite runs.

    Raises:
        CannotCheck: the server did not start, with what it said.
    """
    log = surroundings.home / "server.log"
    with log.open("w") as stderr:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.conformance.app"],
            cwd=ROOT,
            env=surroundings.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        yield _address(server, log)
    finally:
        stopped = _stop(server)
    report.check("suite: the server ends on SIGTERM", None if stopped else log.read_text())


def _address(server: subprocess.Popen[str], log: Path) -> str:
    """The line a server prints when it listens."""
    assert server.stdout is not None
    ready, _, _ = select.select([server.stdout], [], [], PATIENCE_S)
    if address := server.stdout.readline().strip() if ready else "":
        return address
    raise CannotCheck(f"The server did not start.\n{log.read_text()}")


def _stop(server: subprocess.Popen[str]) -> bool:
    """End the server; whether it went when asked."""
    server.terminate()
    try:
        # uvicorn raises the signal again when it has shut down.
        return server.wait(STOPPING_S) in (0, -signal.SIGTERM)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
        return False


async def _register_some(url: str) -> None:
    """Give the scenarios that list, cache and read skills something to find, and to page through.

    Raises:
        CannotCheck: a registration was refused.
    """
    async with Client(url) as client:
        for name in ("Con", "王芳", *(f"Number {number}" for number in range(MORE_THAN_A_PAGE))):
            answer = await client.call_tool("register_persona", {"name": name, "role": "developer"})
            if answer.is_error:
                raise CannotCheck(f"Registering {name} was refused: {answer.content}")
