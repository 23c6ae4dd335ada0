import json
import os
import signal
import subprocess
import sys
import time

import click
import psycopg
import pytest
from click.testing import CliRunner
from inline_snapshot import snapshot

from server.cli.program import COMMANDS, Program
from tests.cli.conftest import DRAMATIS, Cli


def test_every_option_of_all_commands_stands_before_or_after_the_name(cli: Cli):
    cli.said("tenant", "add", "acme")
    elsewhere = str(cli.folder / "elsewhere")
    register = ("persona", "register", "Con", "--role", "dev")
    options = ("--data-root", elsewhere, "--tenant", "acme", "--json")

    before = json.loads(cli.said(*options, *register))
    between = json.loads(cli.said("persona", *options, *register[1:]))
    after = json.loads(cli.said(*register, *options))

    assert [one["path"] for one in (before, between, after)] == [
        f"{elsewhere}/personas/dev-con-{number}" for number in (1, 2, 3)
    ]
    assert cli.answer("persona", "list")["personas"] == []


def test_the_option_further_right_wins(cli: Cli):
    cli.said("tenant", "add", "acme")

    assert cli.answer("--tenant", "nobody", "persona", "list", "--tenant", "acme")["personas"] == []


def test_help_lists_every_command_and_needs_no_database(offline: Cli):
    said = offline.said("--help")

    commands = said.partition("Commands:\n")[2]
    assert tuple(line.split()[0] for line in commands.splitlines()) == COMMANDS


def test_no_arguments_are_answered_with_the_help(offline: Cli):
    result = offline.run()

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == offline.said("--help")
    assert json.loads(offline.run("--json").stdout)["error"]["code"] == "usage"


@pytest.mark.parametrize(
    "line",
    ["persna list", "persona lst", "persona list --stats all", "persona list x", "--bogus list"],
)
def test_a_mistyped_line_is_exit_code_2(offline: Cli, line: str):
    assert offline.refusal(*line.split())[:2] == (2, "usage")


def test_a_mistyped_command_is_answered_with_the_nearest(offline: Cli):
    assert offline.refusal("persna", "list") == snapshot(
        (2, "usage", "No such command 'persna'. (Did you mean one of: 'persona', 'version'?)")
    )


def test_a_setting_that_cannot_be_is_named_and_its_value_is_not_repeated(offline: Cli):
    env = {"DRAMATIS_LINGER_S": "secret", "DRAMATIS_LOG_LEVEL": "hunter2"}

    assert offline.refusal("persona", "list", env=env) == snapshot(
        (
            2,
            "invalid",
            "A setting cannot be used: linger_s: must be a valid number, unable to parse string as a number. log_level: must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'.",
        )
    )


def test_a_database_that_is_away_is_exit_code_6_and_names_no_connection(offline: Cli):
    result = offline.run("persona", "list", "--json")

    assert (result.exit_code, json.loads(result.stdout)) == snapshot(
        (
            6,
            {
                "schemaVersion": 1,
                "error": {
                    "code": "database_unavailable",
                    "message": "The database does not answer.",
                    "hint": "Is it running? `dramatis doctor` looks.",
                },
            },
        )
    )


def test_a_superuser_may_not_serve(cli: Cli):
    url = (cli.database_url or "").replace("dramatis_app", "postgres")

    refusal = cli.refusal("persona", "list", env={"DRAMATIS_DATABASE_URL": url})

    assert refusal[:2] == (5, "login_bypasses_isolation")


def test_version_is_what_is_installed(offline: Cli):
    said = offline.said("version")

    answer = offline.answer("version")
    assert said == f"dramatis {answer['version']} on Python {answer['python']}\n"
    assert offline.said("--version") == f"dramatis, version {answer['version']}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_call_the_command(offline: Cli, shell: str):
    script = offline.said("completions", shell)

    assert f"_DRAMATIS_COMPLETE={shell}_complete" in script
    assert offline.answer("completions", shell) == {"shell": shell, "script": script}


def test_completion_knows_commands_and_options(offline: Cli):
    def completed(words: str) -> list[str]:
        env = {
            "_DRAMATIS_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split())),
        }
        done = offline.process(env=env)
        assert done.returncode == 0
        return [line.partition(",")[2] for line in done.stdout.decode().splitlines()]

    assert completed("dramatis persona")[:3] == ["archive", "become", "delete"]


class Broken(Exception):
    pass


@click.command()
def broken() -> None:
    raise Broken


def test_a_bug_keeps_its_traceback_and_json_stays_json():
    program = Program("dramatis", commands=[broken])

    told = CliRunner().invoke(program, ["broken"])
    result = CliRunner().invoke(program, ["--json", "broken"])

    assert isinstance(told.exception, Broken)
    assert isinstance(result.exception, Broken)
    assert json.loads(result.stdout) == snapshot(
        {
            "schemaVersion": 1,
            "error": {
                "code": "bug",
                "message": "This is a bug in Dramatis; standard error has the traceback.",
                "hint": None,
            },
        }
    )


def test_standard_output_is_the_document_and_nothing_else(cli: Cli):
    done = cli.process(
        "persona",
        "register",
        "王芳",
        "--role",
        "tester",
        "--json",
        env={"DRAMATIS_LOG_LEVEL": "DEBUG"},
    )

    assert done.returncode == 0
    assert json.loads(done.stdout)["name"] == "王芳"


def test_a_locale_that_lacks_the_letters_costs_no_name(cli: Cli):
    env = {"PYTHONIOENCODING": "latin-1"}
    cli.process("persona", "register", "王芳", "--role", "tester", env=env)

    said = cli.process("persona", "list", env=env)
    document = cli.process("persona", "list", "--json", env=env)

    assert b"\\u738b\\u82b3" in said.stdout
    assert json.loads(document.stdout)["personas"][0]["name"] == "王芳"


def test_every_family_of_failure_has_its_exit_code(cli: Cli):
    cli.process("persona", "register", "Con", "--role", "dev")
    cli.process("persona", "register", "Con", "--role", "dev")
    away = {"DRAMATIS_DATABASE_URL": "postgresql://localhost:1/x"}

    codes = [
        cli.process("persona", "list").returncode,
        cli.process("persona", "list", "--limit", "0").returncode,
        cli.process("persona", "show", "nobody").returncode,
        cli.process("persona", "show", "con").returncode,
        cli.process("persona", "list", env=away).returncode,
    ]

    assert codes == [0, 2, 3, 4, 6]


def test_a_reader_that_leaves_early_is_no_failure_worth_words(cli: Cli):
    read, write = os.pipe()
    os.close(read)

    done = subprocess.run(
        [DRAMATIS, "persona", "list"],
        stdout=write,
        stderr=subprocess.PIPE,
        env=cli.environment(),
        check=False,
    )

    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_closed_standard_output_is_no_failure(cli: Cli):
    cli.process("persona", "register", "Con", "--role", "dev")
    commands = "version", "persona list", "persona skill con"

    for command in commands:
        line = f"{DRAMATIS} {command} >&-"
        done = subprocess.run(
            ["sh", "-c", line], env=cli.environment(), capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")


def test_ctrl_c_in_the_editor_is_exit_code_130_without_words(cli: Cli):
    cli.said("persona", "register", "Con", "--role", "dev")
    program = cli.folder / "editor"
    program.write_text("#!/bin/sh\nkill -INT $PPID\n")
    program.chmod(0o755)

    done = cli.process("persona", "skill", "con", "--edit", env={"EDITOR": str(program)})

    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, b"", b"")


def test_ctrl_c_while_the_database_is_waited_for_is_exit_code_130(
    cli: Cli, admin: psycopg.Connection
):
    name = (cli.database_url or "").partition("@/")[2].partition("?")[0]
    with psycopg.connect(host=admin.info.host, user="postgres", dbname=name) as locking:
        locking.execute("LOCK TABLE dramatis.personas")
        with subprocess.Popen(
            [DRAMATIS, "persona", "list"],
            env=cli.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            waiting = "SELECT EXISTS (SELECT FROM pg_locks l WHERE NOT granted)"
            _eventually(admin, waiting)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)

    assert (process.returncode, out, err.strip()) == (130, b"", b"")


def _eventually(admin: psycopg.Connection, query: "str") -> None:
    deadline = time.monotonic() + 30
    while admin.execute(query.encode()).fetchone() != (True,):
        assert time.monotonic() < deadline, "It did not happen in time."


def test_serving_imports_neither_the_other_commands_nor_the_database(offline: Cli):
    code = """
import sys
from server.cli import main
try:
    main(["mcp"])
finally:
    print(*sys.modules)
"""

    done = subprocess.run(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=offline.environment(),
        check=False,
    )

    imported = set(done.stdout.split())
    assert done.returncode == 0
    assert {name for name in imported if name.startswith("server.cli.")} == snapshot(
        {
            "server.cli.failures",
            "server.cli.mcp",
            "server.cli.options",
            "server.cli.output",
            "server.cli.program",
        }
    )
    assert imported.isdisjoint({"sqlalchemy", "psycopg", "alembic", "jinja2", "yaml", "tabulate"})


def test_serving_takes_its_flags_and_keeps_standard_output_clean(offline: Cli):
    toolsets = offline.process("mcp", "--toolsets", "personas, none", "--read-only", "--json")

    assert (toolsets.returncode, toolsets.stdout) == (2, b"")
    assert toolsets.stderr == (
        b"Error: No toolset is called 'none'. Known: personas, specs, standards, jobs,"
        b" core-personas.\n"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="Only root can become an account without a name.")
def test_an_account_without_a_name_still_has_one_for_the_audit_log():
    code = (
        "import os; from server.access import login_name;"
        " os.environ.clear(); os.setuid(54321); print(login_name())"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)

    assert done.stdout == b"uid 54321\n"


@pytest.mark.parametrize("option", ["--tenant", "--data-root"])
@pytest.mark.parametrize("before", [True, False])
def test_an_empty_option_is_refused_and_not_taken_for_the_default(
    offline: Cli, option: str, before: bool
):
    line = ["persona", "list"]
    line = [option, "", *line] if before else [*line, option, ""]

    result = offline.run(*line)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "must not be empty" in result.stderr
