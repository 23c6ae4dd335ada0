"""The how-tos, each from its first line to its last, as somebody who types what it says."""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from server.access import login_name
from server.cli import main
from server.specs.checks import read_checks
from server.specs.notation import read_spec
from tests.cli.conftest import DRAMATIS, Cli
from tests.cli.terminals import talking_to

DOCS = Path(__file__).parent.parent.parent / "docs"
HOWTOS = ["specs.md", "standards.md"]
BLOCK = re.compile(r"^(`{3,})(\w+)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
# What the how-to says its reader changes in the editor.
EDITOR = """\
import pathlib, sys
file = pathlib.Path(sys.argv[-1])
file.write_text(file.read_text().replace("calm and plain", "dry"))
"""
# Stands for a client: says how it was started.
CLIENT = """\
#!{python}
import sys
print(sys.argv[0].rpartition("/")[2], *sys.argv[1:])
"""


# A question of ours, and what the how-to says its reader answers.
ANSWERED = re.compile(r"^(.*(?:\[\?\]|editor\)):) (.+)$")


@dataclass(frozen=True, slots=True)
class Block:
    """A block of the how-to, and the file that the paragraph before calls it."""

    language: str
    text: str
    file: str | None


def blocks(howto: str) -> list[Block]:
    text = (DOCS / howto).read_text(encoding="utf-8")
    found: list[Block] = []
    for match in BLOCK.finditer(text):
        before = text[: match.start()].rstrip().rpartition("\n\n")[2]
        named = re.findall(r"`([\w.-]+\.(?:yaml|md))`", before)
        found.append(Block(match[2], match[3], named[-1] if named else None))
    return found


@pytest.fixture
def reader(cli: Cli) -> Cli:
    """Somebody with an editor and a client, on a fresh database in an empty folder."""
    (cli.folder / "editor.py").write_text(EDITOR)
    clients = cli.folder / "bin"
    clients.mkdir()
    for name in ("claude", "codex"):
        (clients / name).write_text(CLIENT.format(python=sys.executable))
        (clients / name).chmod(0o755)
    cli.env |= {
        "EDITOR": f"{sys.executable} {cli.folder / 'editor.py'}",
        "PATH": f"{DRAMATIS.parent}:{clients}:/usr/bin:/bin",
        "COLUMNS": "100",
        "NO_COLOR": "1",
    }
    return cli


@pytest.mark.parametrize("howto", HOWTOS)
def test_what_the_howto_says_happens(reader: Cli, howto: str):
    said = ""
    for block in blocks(howto):
        match block.language:
            case "yaml" | "markdown":
                assert block.file, block.text
                (reader.folder / block.file).write_text(block.text, encoding="utf-8")
            case "sh":
                said = "".join(output(reader, line) for line in block.text.splitlines())
            case "console":
                said, text = talk(reader, block.text)
                assert_shown(said, text)
            case "text" if not block.text.startswith("DRAMATIS_"):
                assert_shown(said, block.text)
            case _:
                assert block.language in ("json", "mermaid", "text")


def assert_shown(said: str, shown: str) -> None:
    if not re.fullmatch(pattern(shown), settled(said)):
        assert lines_of(said) == lines_of(shown)


def talk(reader: Cli, shown: str) -> tuple[str, str]:
    """Type the command of a session on a terminal, and the answers that it shows.

    Returns:
        What the terminal showed, and what it should have.
    """
    command, _, rest = shown.partition("\n")
    words = command.removeprefix("$ dramatis ").split()
    said = ""
    with talking_to(reader, *words, columns=100) as session:
        for line in rest.splitlines():
            if answer := ANSWERED.match(line):
                said += session.answer(f"{answer[1]} ", answer[2])
        said += session.end().seen
    return said, rest


def output(reader: Cli, line: str) -> str:
    """Type a line; a comment after it may say how it fails."""
    expected = re.search(r"# exit code (\d+)", line)
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=reader.folder,
        env=reader.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    said = done.stdout.decode()
    assert done.returncode == (int(expected[1]) if expected else 0), f"{line}\n{said}"
    return said


def pattern(shown: str) -> str:
    """Match what is shown; a line of three dots stands for any lines."""
    lines = (r"(?:.*\n)*?" if line == "…" else re.escape(line) + r"\n" for line in lines_of(shown))
    return "".join(lines)


def settled(text: str) -> str:
    return "".join(f"{line}\n" for line in lines_of(text))


def lines_of(text: str) -> list[str]:
    """Leave out what differs from run to run: digests, times, names, widths of columns."""
    text = re.sub(r"\b[0-9a-f]{12,64}\b", "DIGEST", text.replace(login_name(), "ada"))
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\dZ", "TIME", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:]+Z", "INSTANT", text)
    text = re.sub(r"\b[\d.]+ ms\b", "1 ms", text)
    return [re.sub(r"(?<=\S) {2,}", "  ", line.rstrip()) for line in text.strip().splitlines()]


@pytest.mark.parametrize(
    "block", [block for block in blocks("specs.md") if block.language == "yaml"]
)
def test_what_the_howto_writes_is_valid(block: Block):
    assert block.file
    read = read_checks if block.file.startswith("checks") else read_spec

    assert read(block.text)


@pytest.mark.parametrize(("howto", "group"), [("specs.md", "spec"), ("standards.md", "standards")])
def test_the_howto_shows_every_command(howto: str, group: str):
    text = (DOCS / howto).read_text(encoding="utf-8")
    command = main.get_command(click.Context(main), group)
    assert isinstance(command, click.Group)
    shown = {verb for verb in command.commands if re.search(rf"\bdramatis {group} {verb}\b", text)}

    assert {*command.commands} - shown - {"example"} == set()


def test_the_howto_shows_how_to_start_as_a_persona():
    assert "dramatis start claude-code --persona con" in (DOCS / "specs.md").read_text()
