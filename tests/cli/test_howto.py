"""docs/specs.md, from its first line to its last, as somebody who types what it says."""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from server.access import login_name
from server.specs.checks import read_checks
from server.specs.notation import read_spec
from tests.cli.conftest import DRAMATIS, Cli

HOWTO = Path(__file__).parent.parent.parent / "docs" / "specs.md"
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


@dataclass(frozen=True, slots=True)
class Block:
    """A block of the how-to, and the file that the paragraph before calls it."""

    language: str
    text: str
    file: str | None


def blocks() -> list[Block]:
    text = HOWTO.read_text(encoding="utf-8")
    found: list[Block] = []
    for match in BLOCK.finditer(text):
        before = text[: match.start()].rstrip().rpartition("\n\n")[2]
        named = re.findall(r"`([\w.-]+\.yaml)`", before)
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
    }
    return cli


def test_what_the_howto_says_happens(reader: Cli):
    said = ""
    for block in blocks():
        match block.language:
            case "yaml":
                assert block.file, block.text
                (reader.folder / block.file).write_text(block.text, encoding="utf-8")
            case "sh":
                said = "".join(output(reader, line) for line in block.text.splitlines())
            case "text":
                if not re.fullmatch(pattern(block.text), settled(said)):
                    assert lines_of(said) == lines_of(block.text)
            case _:
                assert block.language == "json"


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
    return [re.sub(r"(?<=\S) {2,}", "  ", line.rstrip()) for line in text.strip().splitlines()]


@pytest.mark.parametrize("block", [block for block in blocks() if block.language == "yaml"])
def test_what_the_howto_writes_is_valid(block: Block):
    assert block.file
    read = read_checks if block.file.startswith("checks") else read_spec

    assert read(block.text)


def test_the_howto_shows_every_command():
    typed = "\n".join(block.text for block in blocks() if block.language == "sh")
    verbs = "new edit validate list show diff generate publish rollback compile schema check"

    assert [verb for verb in verbs.split() if f"dramatis spec {verb}" not in typed] == []
    assert "dramatis start claude-code --persona con" in typed
