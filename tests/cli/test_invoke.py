import fcntl
import json
import os
import pty
import select
import subprocess
import sys

import psycopg
import pytest
from dirty_equals import IsPartialDict, IsStr
from inline_snapshot import snapshot
from psycopg import sql
from sqlalchemy import make_url

from server.cli.invoke import ProgressLine
from tests.cli.conftest import DRAMATIS, Cli
from tests.cli.jobs import WAITS, in_shop, invoked, let_go_on, stable, state_of, worker_of
from tests.cli.terminals import in_background, on_terminal, talking_to

UUID = IsStr(regex=r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.fixture
def shop(cli: Cli) -> Cli:
    """A project whose personas run on a program; no worker is there."""
    return in_shop(cli)


def task_of(cli: Cli) -> str:
    return str(cli.answer("job", "list")["jobs"][0]["task"])


def hint_of(cli: Cli, *arguments: str) -> str:
    return str(json.loads(cli.run(*arguments, "--json").stdout)["error"]["hint"])


def wait_until_gone(cli: Cli) -> None:
    """Wait for the lock that a worker which was started for a job holds."""
    (lock,) = (cli.data_root / "workers").glob("*.on-demand")
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)


def take_away_database(cli: Cli, admin: psycopg.Connection) -> None:
    """Cut every connection, and refuse new ones."""
    name = make_url(cli.database_url or "").database or ""
    refused = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false")
    admin.execute(refused.format(sql.Identifier(name)))
    admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
    )


def context_of(cli: Cli, *arguments: str) -> str:
    """Return the context that a persona was given."""
    with worker_of(cli):
        said = cli.said("invoke", "architect", "repeat", "--wait", *arguments)
    return said.partition("```text\n")[2].partition("\n```")[0]


def test_an_invocation_is_answered_with_the_job_and_how_to_go_on(shop: Cli):
    assert stable(shop.said("invoke", "architect", "Review the cache")) == snapshot("""\
Job ID: Architect works in the background. Go on with other things and check it now and then; the result waits for you.
`dramatis job show SHORT` shows how it is, `dramatis job tail SHORT` follows it.
""")


def test_an_invocation_is_a_document_that_names_the_next_command(shop: Cli):
    answer = shop.answer("invoke", "architect", "Review the cache", "--priority", "high")

    assert answer == IsPartialDict(
        status="started",
        job_id=UUID,
        persona="architect",
        poll_command=f"dramatis job show {answer['job_id']}",
    )
    assert state_of(shop, answer["job_id"])["record"]["priority"] == "high"


@pytest.mark.parametrize(
    ("line", "task"),
    [
        (("@architect review this",), "@architect review this"),
        (("review this, @architect",), "review this, @architect"),
        (("@architect", "review this"), "review this"),
        (("@architect be brief", "review this"), "@architect be brief\n\nreview this"),
        (("architect", "ask mail@qa.com"), "ask mail@qa.com"),
    ],
)
def test_the_task_may_stand_around_a_mention(shop: Cli, line: tuple[str, ...], task: str):
    answer = shop.answer("invoke", *line)

    assert (answer["persona"], task_of(shop)) == ("architect", task)


@pytest.mark.parametrize("line", [("architect", "-"), ("architect",), ("@architect",)])
def test_a_task_comes_from_the_input(shop: Cli, line: tuple[str, ...]):
    shop.said("invoke", *line, stdin="Review\nthe cache\n")

    assert task_of(shop) == "Review\nthe cache"


def test_a_mention_with_a_task_leaves_the_input_alone(shop: Cli):
    shop.said("invoke", "@architect review this", stdin="not this")

    assert task_of(shop) == "@architect review this"


def test_on_a_terminal_the_task_has_to_be_typed(shop: Cli):
    session = on_terminal(shop, "invoke", "architect")

    assert (session.exit_code, session.seen.splitlines()[-1]) == snapshot(
        (2, "Error: Missing argument 'TASK'. See `dramatis invoke --help`.")
    )


def test_an_empty_task_is_refused(shop: Cli):
    assert shop.refusal("invoke", "architect") == snapshot(
        (2, "invalid", "task: must not be empty or blank.")
    )


def test_nobody_of_that_name_is_answered_with_who_there_is(shop: Cli):
    for number in range(11):
        shop.said("persona", "register", f"N{number}", "--role", "dev")

    assert shop.refusal("invoke", "plumber", "x")[:2] == (3, "persona_not_found")
    assert hint_of(shop, "invoke", "plumber", "x").endswith("and others (`dramatis persona list`).")
    assert shop.answer("job", "list")["jobs"] == []


def test_without_a_model_it_is_said_how_to_configure_one(shop: Cli):
    shop.env["DRAMATIS_RUNNER_COMMAND"] = None

    assert shop.refusal("invoke", "architect", "x")[:2] == (6, "model_not_configured")
    assert hint_of(shop, "invoke", "architect", "x") == snapshot(
        "Set DRAMATIS_MODEL (e.g. `anthropic:claude-sonnet-5-5` and ANTHROPIC_API_KEY), or DRAMATIS_MODEL with DRAMATIS_MODEL_URL for an OpenAI-compatible server, or DRAMATIS_RUNNER_COMMAND (e.g. `claude -p`). Until then `dramatis persona become` prints the prompt, for an agent of yours to play the persona."
    )


def test_a_full_queue_names_the_command_that_makes_room(shop: Cli):
    shop.env["DRAMATIS_QUEUE_LENGTH"] = "1"
    invoked(shop)

    assert shop.refusal("invoke", "architect", "x")[:2] == (4, "queue_full")
    assert "`dramatis job cancel`" in hint_of(shop, "invoke", "architect", "x")


def test_a_single_file_is_the_context(shop: Cli):
    (shop.folder / "a.py").write_text("a = 1\n")

    assert context_of(shop, "--context", "a.py") == "a = 1"


def test_several_files_are_told_apart_by_their_names(shop: Cli):
    (shop.folder / "a.py").write_text("a = 1\n")
    (shop.folder / "b\x1b.py").write_text("b = 2\n")

    assert context_of(shop, "--context", "a.py", "--context", "b\x1b.py") == snapshot("""\
## a.py

a = 1


## b\\x1b.py

b = 2\
""")


def test_a_pipe_is_a_context(shop: Cli):
    os.mkfifo(shop.folder / "pipe")

    with subprocess.Popen(
        [DRAMATIS, "invoke", "architect", "x", "--context", "pipe", "--json"],
        env=shop.environment(),
        stdout=subprocess.PIPE,
    ) as process:
        (shop.folder / "pipe").write_text("+ a = 1\n")
        assert process.stdout is not None
        job_id = json.loads(process.stdout.read())["job_id"]

    assert state_of(shop, job_id)["record"]["context_bytes"] == len("+ a = 1\n")


def test_what_is_too_large_together_is_refused_with_every_size(shop: Cli):
    (shop.folder / "a.py").write_text("a" * 60_000)
    (shop.folder / "b.py").write_text("é" * 30_000)
    (shop.folder / "c.py").write_text("c" * 300_000)

    assert shop.refusal(
        "invoke", "qa", "x", "--context", "a.py", "--context", "b.py", "--context", "c.py"
    ) == snapshot(
        (
            2,
            "invalid",
            "The context may have 100,000 bytes (100 KB): a.py has 60,000 bytes, b.py has 60,000 bytes, c.py has 300,000 bytes.",
        )
    )
    assert shop.answer("job", "list")["jobs"] == []


def test_an_endless_pipe_is_refused(shop: Cli):
    assert shop.refusal("invoke", "qa", "x", "--context", "/dev/zero") == snapshot(
        (
            2,
            "invalid",
            "The context may have 100,000 bytes (100 KB): /dev/zero has more than 100,000.",
        )
    )


def test_headings_count_for_the_size_too(shop: Cli):
    (shop.folder / "a.py").write_text("a" * 50_000)
    (shop.folder / "b.py").write_text("b" * 50_000)

    code, error, message = shop.refusal(
        "invoke", "qa", "x", "--context", "a.py", "--context", "b.py"
    )

    assert (code, error) == (2, "invalid")
    assert "100,000 bytes" in message


@pytest.mark.parametrize("content", [b"\xff\xd8", b"a\0b"])
def test_what_is_no_text_is_refused(shop: Cli, content: bytes):
    (shop.folder / "photo.jpg").write_bytes(content)

    assert shop.refusal("invoke", "qa", "x", "--context", "photo.jpg") == snapshot(
        (
            2,
            "invalid",
            "photo.jpg is no UTF-8 text; a context is text of up to 100,000 bytes (100 KB).",
        )
    )


def test_what_cannot_be_read_is_refused(shop: Cli):
    (shop.folder / "loop").symlink_to("loop")

    missing = shop.refusal("invoke", "qa", "x", "--context", "nowhere.py")
    folder = shop.refusal("invoke", "qa", "x", "--context", "shop")
    unreadable = shop.refusal("invoke", "qa", "x", "--context", "/proc/self/mem")

    assert (missing, folder, unreadable) == snapshot(
        (
            (2, "usage", "Invalid value for '--context': File 'nowhere.py' does not exist."),
            (2, "usage", "Invalid value for '--context': File 'shop' is a directory."),
            (2, "invalid", "/proc/self/mem cannot be read: input/output error."),
        )
    )


def test_waiting_prints_the_result_and_nothing_else(shop: Cli):
    with worker_of(shop):
        said = shop.said("invoke", "architect", "answer", "--wait")
        answer = shop.answer("invoke", "architect", "answer", "--wait")

    assert said == "All is well.\n"
    assert answer == IsPartialDict(status="complete", result="All is well.", persona="architect")


def test_waiting_for_a_job_that_fails_ends_as_it_did(shop: Cli):
    with worker_of(shop):
        told = shop.run("invoke", "architect", "fail", "--wait")
        result = shop.run("invoke", "architect", "fail", "--wait", "--json")

    assert (told.exit_code, told.stdout, stable(told.stderr)) == snapshot(
        (
            6,
            "",
            "Error: python ended with code 1. It said: I have no idea. `dramatis job show SHORT` has its record, `dramatis job retry SHORT` runs it again.\n",
        )
    )
    assert (result.exit_code, result.stderr) == (6, "")
    assert json.loads(result.stdout) == IsPartialDict(
        status="failed", error=IsStr(regex=".*I have no idea.")
    )


def test_who_waits_on_a_terminal_sees_a_line_that_is_gone_at_the_end(shop: Cli):
    with talking_to(shop, "invoke", "architect", "wait", "--wait", columns=30) as talk:
        waiting = talk.wait_for(" s: Waiting: next i")
        with worker_of(shop):
            let_go_on(shop)
            ended = talk.end()

    *drawn, result = (waiting + ended.seen).split("\r")
    assert max(map(len, drawn)) == 29
    assert (ended.exit_code, result) == (0, "First part.\nSecond part.\n")


def test_who_waits_in_the_background_of_a_terminal_draws_nothing_on_it(shop: Cli):
    with worker_of(shop):
        ended = in_background(shop, "invoke", "architect", "answer", "--wait")

    said, _, of_the_shell = ended.seen.partition("[1]+")
    assert (ended.exit_code, said) == (0, "All is well.\n"), of_the_shell


def test_a_terminal_of_somebody_elses_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    ours, its = pty.openpty()
    with os.fdopen(its, "w") as terminal, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", terminal)
        ProgressLine().draw("pending")
        shown, _, _ = select.select([ours], [], [], 0)
    os.close(ours)

    assert shown == []


def test_a_result_cannot_drive_the_terminal(shop: Cli):
    with worker_of(shop):
        seen = on_terminal(shop, "invoke", "architect", "colour", "--wait").seen
        said = shop.said("invoke", "architect", "colour", "--wait")

    assert seen.rpartition("\r")[2] == "\\x1b[31mred\n"
    assert said == "\x1b[31mred\n"


def test_an_interrupt_ends_the_waiting_and_not_the_job(shop: Cli):
    with worker_of(shop):
        with talking_to(shop, "invoke", "architect", "wait", "--wait") as talk:
            talk.wait_for(WAITS)
            talk.interrupt()
            ended = talk.end()
        let_go_on(shop)
        job_id = shop.answer("job", "list")["jobs"][0]["job_id"]
        result = shop.said("job", "tail", job_id)

    assert (ended.exit_code, stable(ended.seen.rpartition("\r")[2])) == snapshot(
        (
            130,
            """\
The job goes on. `dramatis job show SHORT` shows how it is, `dramatis job cancel SHORT` stops it.

""",
        )
    )
    assert result == "First part.\nSecond part.\n"


def test_who_loses_the_database_while_they_wait_is_told_that_the_job_goes_on(
    shop: Cli, admin: psycopg.Connection
):
    with talking_to(shop, "invoke", "architect", "answer", "--wait") as talk:
        talk.wait_for("Waiting: next in the queue.")
        take_away_database(shop, admin)
        ended = talk.end()

    assert (ended.exit_code, stable(ended.seen.rpartition("\r")[2])) == snapshot(
        (
            6,
            """\
The job goes on. `dramatis job show SHORT` shows how it is, `dramatis job cancel SHORT` stops it.
Error: The database does not answer. Nothing was changed. Try again; if it persists, run `dramatis doctor`.
""",
        )
    )


def test_a_job_that_is_cancelled_while_somebody_waits_is_no_success(shop: Cli):
    with (
        worker_of(shop),
        talking_to(shop, "invoke", "architect", "wait", "--wait") as talk,
    ):
        talk.wait_for(WAITS)
        job_id = shop.answer("job", "list")["jobs"][0]["job_id"]
        shop.said("job", "cancel", job_id)
        ended = talk.end()

    assert (ended.exit_code, stable(ended.seen.rpartition("\r")[2])) == snapshot(
        (
            4,
            "Error: The job was cancelled. `dramatis job show SHORT` has what it said until then.\n",
        )
    )


def test_a_job_that_is_forgotten_while_somebody_waits_is_not_found(shop: Cli):
    with talking_to(shop, "invoke", "architect", "wait", "--wait") as talk:
        talk.wait_for("Waiting: next in the queue.")
        shop.said("job", "reset", "--yes")
        ended = talk.end()

    assert (ended.exit_code, ended.seen.rpartition("\r")[2]) == snapshot(
        (3, "Error: The job was removed meanwhile.\n")
    )


def test_a_worker_is_started_for_who_waits_and_leaves_again(shop: Cli):
    env = {"DRAMATIS_START_WORKER": "true", "DRAMATIS_WORKER_IDLE_S": "1"}

    ended = shop.process("invoke", "architect", "answer", "--wait", env=env)

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"All is well.\n", b"")
    wait_until_gone(shop)
