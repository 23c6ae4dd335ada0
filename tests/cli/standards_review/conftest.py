"""A project with proposals to review, and what became of them."""

import json
from typing import Any

import pytest

from tests.cli.conftest import Cli
from tests.cli.standards import FLAKY, RETRIES, in_project, proposal, propose

REVIEW = ("standards", "review")


@pytest.fixture
def shop(cli: Cli) -> Cli:
    """A project with two proposals of a persona's. On its terminals sits Grace."""
    in_project(cli)
    cli.said("persona", "register", "Tessa", "--role", "qa")
    propose(cli, "flaky-tests", FLAKY, "--persona", "tessa")
    propose(cli, "retries", RETRIES, "--persona", "tessa")
    cli.env["LOGNAME"] = "grace"
    return cli


def statuses(cli: Cli) -> list[str]:
    page = cli.answer("standards", "proposals", "--status", "all")
    return [one["status"] for one in reversed(page["proposals"])]


def decisions(cli: Cli, number: int = 1) -> list[tuple[str, str | None]]:
    return [(one["verdict"], one["feedback"]) for one in proposal(cli, number)["decisions"]]


def document(seen: str) -> Any:
    return json.loads(seen[seen.index("{\n") :])
