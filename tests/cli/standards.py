"""A project with standards, for commands."""

import re
from pathlib import Path
from typing import Any

from server.access import login_name
from tests.cli.conftest import Cli

FLAKY = """\
# Flaky tests

## Pattern

Pass the clock in. A test that reads the time twice fails around midnight.
"""
RETRIES = """\
# Retries

## Pattern

Retry only what is idempotent, with back-off and jitter.
"""
BELOW = ".agent-os/standards"
ASKED = "[q]uit [?]: "


def in_project(cli: Cli) -> Cli:
    """Let commands start in a project."""
    root = cli.folder / "shop"
    (root / ".git").mkdir(parents=True)
    cli.env["DRAMATIS_PROJECT_ROOT"] = str(root)
    return cli


def standards_of(cli: Cli) -> Path:
    return cli.folder / "shop" / BELOW


def save(cli: Cli, path: str, text: str = FLAKY) -> Path:
    """Save a standard by hand."""
    file = standards_of(cli) / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def save_others(cli: Cli) -> None:
    """Save standards on other things, from which one on the same thing stands out."""
    for number in range(5):
        words = " ".join(f"word{number}x{other}" for other in range(60))
        save(cli, f"data/topic-{number}.md", f"# Topic {number}\n\n{words}\n")


def propose(cli: Cli, topic: str = "flaky-tests", text: str = FLAKY, *more: str) -> Any:
    """Propose a standard on testing."""
    line = ("standards", "propose", "testing", topic, "-", "--reason", "Seen in three suites.")
    return cli.answer(*line, *more, stdin=text)


def proposal(cli: Cli, number: int = 1) -> Any:
    return cli.answer("standards", "proposals", str(number))


def files_of(cli: Cli) -> list[str]:
    below = standards_of(cli)
    return sorted(str(file.relative_to(below)) for file in below.rglob("*") if file.is_file())


def stable(said: str) -> str:
    """Leave out what differs from run to run."""
    said = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\dZ", "TIME", said)
    said = re.sub(r"in \d+\.\d ms", "in MS", said)
    # Columns that are as wide as what stood there.
    return re.sub(r"(?<=\S) {2,}", "  ", said).replace(login_name(), "ada")
