"""The whole command on a real database: in process, and as the process that people start."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from server.cli import main
from tests.conftest import Databases

DRAMATIS = Path(sys.executable).with_name("dramatis")


class Cli:
    """Runs command lines for one person: a home folder, a data root, a database."""

    def __init__(self, folder: Path, database_url: str | None) -> None:
        self.folder = folder
        self.data_root = folder / "data"
        self.home = folder / "home"
        self.home.mkdir()
        self.database_url = database_url
        settings = {
            "DATA_ROOT": str(self.data_root),
            "DATABASE_URL": database_url,
            "LINGER_S": "0",
        }
        ours = {name: None for name in os.environ if name.startswith("DRAMATIS_")}
        self.env: dict[str, str | None] = {
            **ours,
            **{f"DRAMATIS_{name}": value for name, value in settings.items()},
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": None,
            "EDITOR": None,
            "VISUAL": None,
        }

    def run(
        self, *arguments: str, stdin: str | bytes = "", env: dict[str, str] | None = None
    ) -> Result:
        """Run a command line in this process."""
        return CliRunner(env={**self.env, **(env or {})}).invoke(
            main, arguments, input=stdin, catch_exceptions=False
        )

    def said(
        self, *arguments: str, stdin: str | bytes = "", env: dict[str, str] | None = None
    ) -> str:
        """Return what a command that succeeds prints for a person."""
        result = self.run(*arguments, stdin=stdin, env=env)
        assert (result.exit_code, result.stderr) == (0, "")
        return result.stdout

    def answer(
        self, *arguments: str, stdin: str | bytes = "", env: dict[str, str] | None = None
    ) -> Any:
        """Return the document of a command that succeeds, without its schema version."""
        document = json.loads(self.said(*arguments, "--json", stdin=stdin, env=env))
        assert document.pop("schemaVersion") == 1
        return document

    def refusal(
        self, *arguments: str, stdin: str | bytes = "", env: dict[str, str] | None = None
    ) -> tuple[int, str, str]:
        """Return exit code, error code and message, which people and programs get alike."""
        told = self.run(*arguments, stdin=stdin, env=env)
        result = self.run(*arguments, "--json", stdin=stdin, env=env)
        error = json.loads(result.stdout)["error"]
        hint = f" {error['hint']}" if error["hint"] else ""
        assert told.exit_code == result.exit_code
        assert told.stderr == f"Error: {error['message']}{hint}\n"
        return result.exit_code, error["code"], error["message"]

    def process(
        self, *arguments: str, stdin: bytes = b"", env: dict[str, str] | None = None
    ) -> "subprocess.CompletedProcess[bytes]":
        """Run the installed command in a process of its own."""
        return subprocess.run(
            [DRAMATIS, *arguments],
            input=stdin,
            capture_output=True,
            env=self.environment(env),
            check=False,
        )

    def environment(self, more: dict[str, str] | None = None) -> dict[str, str]:
        whole = {**os.environ, **self.env, **(more or {})}
        return {name: value for name, value in whole.items() if value is not None}


@pytest.fixture
def cli(databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    """The command on a migrated database of its own, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    # Remembered by the first test that needs it, whatever TMPDIR says later.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    name = databases.migrated()
    yield Cli(tmp_path, databases.url(name))
    databases.drop(name)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command on a database that is not there."""
    monkeypatch.chdir(tmp_path)
    return Cli(tmp_path, "postgresql://someone:secret@localhost:1/nowhere")
