"""The how-tos, each from its first line to its last, as somebody who types what it says."""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from anyio.from_thread import start_blocking_portal

from server.access import login_name
from server.cli import main
from server.specs.checks import read_checks
from server.specs.notation import read_spec
from tests.cli.conftest import DRAMATIS, Cli
from tests.cli.terminals import talking_to
from tests.jobs.model_server import Calls, Reply, Request, Says, serving_model

DOCS = Path(__file__).parent.parent.parent / "docs"
HOWTOS = ["specs.md", "standards.md", "jobs.md"]
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


# What the model of the how-to says, by who is asked.
FINDINGS = """\
**Verdict:** do not merge. What anybody sends as a token becomes SQL.

### [critical] Anybody can be anybody
- Evidence: `src/tokens.py:15` puts the token into the statement.
- Remedy: pass it as a parameter, as the line before did.

### [high] Whoever reads the log can act as the users in it
- Evidence: `src/tokens.py:16` logs the token.
- Remedy: log the user's id alone.

**Not looked at:** where tokens are made.
"""
VERDICTS = {
    "You are the Architect": "sound. Nothing here is hard to take back.",
    "You are the Engineer": "do not merge. A token with a quote in it breaks the statement.",
    "You are QA": "would not notice. No test has a token that is not made of letters.",
    "You are the SRE": "do not ship. The log grows by a line, and a secret, for each request.",
    "You edit": "unclear. Whose owner?",
}
A_LONG_TIME_S = 600

# A question of ours, and what the how-to says its reader answers.
ANSWERED = re.compile(r"^(.*(?:\[\?\]|editor\)):) (.+)$")


# The short form of a job's id. Whole ones are shortened to it.
JOB_ID = re.compile(r"\b(?=[a-f]*\d)[0-9a-f]{8}\b")


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
        named = re.findall(r"`([\w.-]+\.(?:yaml|md|diff))`", before)
        found.append(Block(match[2], match[3], named[-1] if named else None))
    return found


@pytest.fixture
def model() -> Iterator[str]:
    """The address of a model that knows the how-to."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(serving_model(play)) as server,
    ):
        yield server.url


def play(request: Request) -> Reply:
    prompt, task = (message["content"] for message in request.messages[:2])
    if task.startswith("Describe the whole system."):
        return Says(["It begins. ", A_LONG_TIME_S])
    if len(request.messages) == 2:
        return Calls([("search_standards", {"queries": ["parameters in SQL"]})], usage=(1200, 30))
    verdict = next((said for who, said in VERDICTS.items() if who in prompt), None)
    return Says([f"**Verdict:** {verdict}" if verdict else FINDINGS], usage=(1450, 200))


@pytest.fixture
def reader(cli: Cli, model: str) -> Iterator[Cli]:
    """Somebody with an editor, a client and a model, on a fresh database in an empty folder."""
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
        "DRAMATIS_MODEL": "gpt-oss:20b",
        "DRAMATIS_MODEL_URL": model,
        "DRAMATIS_WORKER_IDLE_S": "5",
    }
    yield cli
    if (cli.data_root / "workers").is_dir():
        cli.run("job", "reset", "--yes")
        cli.run("worker", "--stop")


@pytest.mark.parametrize("howto", HOWTOS)
def test_what_the_howto_says_happens(reader: Cli, howto: str):
    said = ""
    ids: dict[str, str] = {}
    for block in blocks(howto):
        match block.language:
            case "yaml" | "markdown" | "diff":
                assert block.file, block.text
                (reader.folder / block.file).write_text(block.text, encoding="utf-8")
            case "sh":
                lines = with_ids(block.text, ids).splitlines()
                said = "".join(output(reader, line) for line in lines)
            case "console":
                said, text = talk(reader, block.text)
                assert_shown(said, text)
            case "text" if not block.text.startswith("DRAMATIS_"):
                ids |= assert_shown(said, block.text)
            case _:
                assert block.language in ("ini", "json", "mermaid", "text")


def assert_shown(said: str, shown: str) -> dict[str, str]:
    """Compare what was said with what is shown, and return what ids of jobs were in its place."""
    match = re.fullmatch(pattern(shown), settled(said))
    assert match, f"It says:\n{settled(said)}\nand not:\n{settled(shown)}"
    return {name.removeprefix("job_"): real for name, real in match.groupdict().items()}


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
    said = done.stdout.decode().replace(str(reader.folder), "~/shop")
    assert done.returncode == (int(expected[1]) if expected else 0), f"{line}\n{said}"
    return said


def with_ids(text: str, ids: Mapping[str, str]) -> str:
    """Name the jobs that there are in the place of those that the how-to shows."""
    return JOB_ID.sub(lambda shown: ids[shown[0]], text)


def pattern(shown: str) -> str:
    """Match what is shown; a line of three dots stands for any lines, and an id for any id."""
    seen = set[str]()

    def any_id(shown: re.Match[str]) -> str:
        name = f"job_{shown[0]}"
        if name in seen:
            return f"(?P={name})"
        seen.add(name)
        return f"(?P<{name}>[0-9a-f]{{8}})"

    lines = (JOB_ID.sub(any_id, re.escape(line)) for line in lines_of(shown))
    return "".join(r"(?:.*\n)*?" if line == "…" else rf"{line}\n" for line in lines)


def settled(text: str) -> str:
    return "".join(f"{line}\n" for line in lines_of(text))


def lines_of(text: str) -> list[str]:
    """Leave out what differs from run to run: digests, times, names, widths of columns."""
    text = re.sub(r"\b([0-9a-f]{8})(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", r"\1", text)
    text = re.sub(r"\b[0-9a-f]{12,64}\b", "DIGEST", text.replace(login_name(), "ada"))
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\dZ", "TIME", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:]+Z", "INSTANT", text)
    text = re.sub(r"\b[\d.]+ ms\b", "1 ms", text)
    text = re.sub(r"\b\d+(?:\.\d)? s\b", "1 s", text)
    text = re.sub(r"(?m)^\d\d:\d\d:\d\d( +(?:model|tool) +\S+ +)[\d,]+", r"CLOCK\g<1>1", text)
    return [re.sub(r"(?<=\S) {2,}", "  ", line.rstrip()) for line in text.strip().splitlines()]


@pytest.mark.parametrize(
    "block", [block for block in blocks("specs.md") if block.language == "yaml"]
)
def test_what_the_howto_writes_is_valid(block: Block):
    assert block.file
    read = read_checks if block.file.startswith("checks") else read_spec

    assert read(block.text)


@pytest.mark.parametrize(
    ("howto", "group"), [("specs.md", "spec"), ("standards.md", "standards"), ("jobs.md", "job")]
)
def test_the_howto_shows_every_command(howto: str, group: str):
    text = (DOCS / howto).read_text(encoding="utf-8")
    command = main.get_command(click.Context(main), group)
    assert isinstance(command, click.Group)
    shown = {verb for verb in command.commands if re.search(rf"\bdramatis {group} {verb}\b", text)}

    assert {*command.commands} - shown - {"example"} == set()


def test_the_howto_shows_how_to_start_as_a_persona():
    assert "dramatis start claude-code --persona con" in (DOCS / "specs.md").read_text()
