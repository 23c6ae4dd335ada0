import shlex
import signal
import tomllib

import pytest
from dirty_equals import IsPartialDict, IsStr
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot

from server.cli.agents import toml_string
from tests.cli.conftest import Cli
from tests.cli.specs import PLAIN
from tests.cli.terminals import on_terminal

FAKE = """#!/bin/sh
for argument in "$@"; do printf '%s\\0' "$argument"; done > seen
printf '%s' "$PGHOST" > host
grep -E '^Sig(Ign|Blk)' /proc/self/status > signals
exit 7
"""


@pytest.fixture
def con(cli: Cli) -> Cli:
    """Con with an active spec, and both agents on PATH."""
    cli.said("persona", "register", "Con", "--role", "developer")
    cli.said("spec", "new", "con", "-", stdin=PLAIN)
    cli.said("spec", "publish", "con", "--note", "First.")
    programs = cli.folder / "bin"
    programs.mkdir()
    for name in ("claude", "codex"):
        (programs / name).write_text(FAKE)
        (programs / name).chmod(0o755)
    cli.env["PATH"] = f"{programs}:/usr/bin:/bin"
    return cli


def seen(cli: Cli) -> list[str]:
    """Return the arguments that the agent was started with."""
    return (cli.folder / "seen").read_text().split("\0")[:-1]


def prompt_of(cli: Cli) -> str:
    return cli.said("persona", "become", "con")


def test_claude_code_gets_the_prompt_on_top_of_its_own(con: Cli):
    done = con.process("start", "claude-code", "--persona", "con")

    assert seen(con) == ["--append-system-prompt", prompt_of(con)]
    assert (done.returncode, done.stdout) == (7, b"")
    assert done.stderr.decode() == IsStr(
        regex=r"developer-con-1: spec 1\.0\.0, prompt [0-9a-f]{12}\.\n"
    )


def test_codex_gets_the_prompt_as_its_developer_instructions(con: Cli):
    con.said("persona", "skill", "con", "--set", "-", stdin='"王芳"\t\\ \x1b[31m \x7f """')

    con.process("start", "codex", "--persona", "con")

    option, setting = seen(con)
    assert option == "-c"
    assert tomllib.loads(setting) == {"developer_instructions": prompt_of(con)}
    assert "\n" not in setting


def test_the_task_is_said_and_arguments_are_passed_on(con: Cli):
    con.process(
        "start", "codex", "--persona", "con", "--task", "-fix it", "--", "exec", "--model", "x"
    )

    assert seen(con)[2:] == ["exec", "--model", "x", "--", "-fix it"]
    assert "-fix it" not in seen(con)[1]


def test_arguments_that_end_the_options_themselves_are_left_as_they_are(con: Cli):
    con.process("start", "claude-code", "--persona", "con", "--task", "go", "--", "-p", "--")

    assert seen(con)[2:] == ["-p", "--", "go"]


def test_the_agent_has_the_environment_and_signals_of_a_shell(con: Cli):
    con.process("start", "codex", "--persona", "con", env={"PGHOST": "mine"})

    assert (con.folder / "host").read_text() == "mine"
    masks = dict(line.split() for line in (con.folder / "signals").read_text().splitlines())
    ignored = int(masks["SigIgn:"], 16)
    assert not ignored & (1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1))


def test_the_agent_has_the_terminal(con: Cli):
    (con.folder / "bin" / "claude").write_text("#!/bin/sh\n[ -t 0 ] && [ -t 1 ] && echo ours\n")

    shown = on_terminal(con, "start", "claude-code", "--persona", "con")

    assert shown.seen.splitlines()[-1] == "ours"


def test_the_command_is_printed_for_a_shell_and_nothing_starts(con: Cli):
    con.env["PATH"] = "/usr/bin:/bin"

    said = con.said("start", "claude-code", "--persona", "con", "--task", "it's on", "--print")

    assert shlex.split(said) == [
        "claude",
        "--append-system-prompt",
        prompt_of(con),
        "--",
        "it's on",
    ]
    assert not (con.folder / "seen").exists()


def test_the_command_is_a_document_with_its_trace(con: Cli):
    answer = con.answer("start", "codex", "--persona", "con", "--print")

    assert answer == {
        "client": "codex",
        "command": ["codex", "-c", f"developer_instructions={toml_string(prompt_of(con))}"],
        "trace": IsPartialDict(source="spec", persona_spec_version="1.0.0", reason=None),
        "cuts": [],
    }


def test_a_fallback_and_cuts_are_said_before_the_agent_starts(con: Cli):
    con.said("persona", "register", "Pam", "--role", "tester")
    con.said("persona", "skill", "pam", "--set", "-", stdin="long line\n" * 1000)

    done = con.process("start", "codex", "--persona", "pam", env={"DRAMATIS_PROMPT_TOKENS": "1000"})

    assert done.stderr.decode().splitlines() == (
        [
            IsStr(
                regex=r"tester-pam-2: settings and skill\.md \(no active spec\), prompt [0-9a-f]{12}\."
            ),
            IsStr(regex=r"skill\.md was cut to .+"),
        ]
    )


def test_a_missing_program_is_said_with_its_remedy(con: Cli):
    con.env["PATH"] = "/usr/bin:/bin"

    assert con.refusal("start", "codex", "--persona", "con") == snapshot(
        (3, "agent_not_installed", "Codex is not installed: there is no `codex` on PATH.")
    )


def test_a_persona_has_to_be_one_and_active(con: Cli):
    line = ("start", "claude-code", "--persona")

    assert con.refusal(*line, "nobody")[:2] == (3, "persona_not_found")
    con.said("persona", "register", "Con", "--role", "developer")
    assert con.refusal(*line, "con")[:2] == (4, "ambiguous_persona")
    con.said("persona", "archive", "developer-con-1")
    assert con.refusal(*line, "developer-con-1")[:2] == (4, "persona_archived")
    assert not (con.folder / "seen").exists()


def test_a_prompt_that_no_command_line_holds_is_refused(con: Cli):
    con.said("persona", "register", "Pam", "--role", "tester")
    con.said("persona", "skill", "pam", "--set", "-", stdin="x" * 200_000)
    env = {"DRAMATIS_PROMPT_TOKENS": "100000"}

    result = con.run("start", "claude-code", "--persona", "pam", env=env)

    assert (result.exit_code, result.stderr) == snapshot(
        (
            2,
            "Error: The prompt of tester-pam-2 is too long for a command line. Set DRAMATIS_PROMPT_TOKENS to 15000 or less; guardrails, identity and the fixed parts of a spec are never cut.\n",
        )
    )


def test_what_cannot_be_started_is_a_failure(con: Cli):
    (con.folder / "bin" / "codex").write_bytes(b"\0nothing that runs")

    done = con.process("start", "codex", "--persona", "con")

    assert done.returncode == 4
    assert done.stderr.decode().splitlines()[-1] == snapshot(
        "Error: Codex could not be started: Exec format error."
    )


@given(st.text())
def test_a_string_of_toml_reads_back_as_the_text(text: str):
    assert tomllib.loads(f"text = {toml_string(text)}") == {"text": text}
