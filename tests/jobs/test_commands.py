"""Real programs: most are a few lines of Python, given to the interpreter that runs the tests."""

import fcntl
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import anyio.to_thread
import pytest
from dirty_equals import IsDatetime
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot

from server.errors import Conflict
from server.jobs.commands import (
    ERRORS_SHOWN,
    OUTPUT_BYTES,
    OutputTooLong,
    PriceUnknown,
    command_runner,
    end_of_errors,
)
from server.jobs.running import (
    BudgetSpent,
    Outcome,
    RunFailed,
    RunJob,
    RunnerMissing,
    RunTimedOut,
)
from server.jobs.shapes import Phase, Step
from server.work import App, Place
from tests.conftest import but
from tests.db.sessions import REPOSITORY
from tests.standards.conftest import agent_of

pytestmark = pytest.mark.anyio

DEADLINE_S = 20
SLEEP = "import time; time.sleep(600)"
# The lock is held for as long as the program, or what it started, is alive.
LOCK = """
import fcntl, signal, subprocess, sys, time
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
"""
START = f"""
subprocess.Popen([sys.executable, "-c", {SLEEP!r}], pass_fds=[lock.fileno()])
"""
IGNORE = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
# A worker that has nothing but a command, and passes on what it says.
WORKER = """
import sys
from pathlib import Path
import anyio
from server.jobs.command_process import started

async def main():
    async with started(sys.argv[1:], Path.cwd(), {}) as command:
        async for piece in command.watcher.stdout:
            print(piece.decode(), end="", flush=True)

anyio.run(main)
"""


class Heard:
    """What a run reported, and an event for its first words."""

    def __init__(self) -> None:
        self.messages: list[tuple[Phase, int, str]] = []
        self.partial = ""
        self.steps: list[Step] = []
        self.spendings: list[Mapping[str, Any]] = []
        self.spoke = anyio.Event()

    async def progress(self, phase: Phase, percent: int, message: str) -> None:
        self.messages.append((phase, percent, message))

    async def text(self, more: str) -> None:
        self.partial += more
        self.spoke.set()

    async def step(self, step: Step) -> None:
        self.steps.append(step)

    async def spent(self, **amounts: Any) -> None:
        self.spendings.append(amounts)


class Refusing(Heard):
    """What a worker hears that has lost its job to another one."""

    async def text(self, more: str) -> None:
        raise Conflict("The job is another worker's now.")


@pytest.fixture
def job(app: App, tmp_path: Path) -> RunJob:
    root = tmp_path.resolve()
    return RunJob(
        id=UUID(int=1),
        attempt=2,
        persona="architect",
        prompt="You are an architect.",
        request="Review this.",
        model="",
        model_url=None,
        tokens_limit=1_000_000_000,
        usd_limit=None,
        place=Place("", root, root / "standards", None),
        app=app,
        caller=agent_of(app),
    )


async def ran(
    job: RunJob,
    code: str,
    *arguments: object,
    heard: Heard | None = None,
    seconds: float = DEADLINE_S,
    environment: Mapping[str, str] | None = None,
) -> Outcome:
    """Run a program on a job."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    run = command_runner(command, seconds=seconds, environment=environment or {})
    with anyio.fail_after(2 * DEADLINE_S):
        return await run(job, heard or Heard())


async def until_free(lock: Path) -> None:
    """Wait until nobody is left who could hold the lock."""
    with lock.open() as file, anyio.fail_after(DEADLINE_S):
        await anyio.to_thread.run_sync(fcntl.flock, file, fcntl.LOCK_EX, abandon_on_cancel=True)


def is_child(pid: int) -> bool:
    """Tell whether a process is a child of this one, which it stays until it was waited for."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def printing(*texts: str | bytes) -> str:
    """Write a program that prints these, each for itself."""
    pieces = [text.encode() if isinstance(text, str) else text for text in texts]
    return f"import sys\nfor one in {pieces!r}: sys.stdout.buffer.raw.write(one)"


async def test_a_command_reads_prompt_and_task_and_its_output_is_the_answer(job: RunJob):
    heard = Heard()

    outcome = await ran(job, "import sys; print(sys.stdin.read())", heard=heard)

    assert outcome == snapshot(
        Outcome(
            text="""\
# Who you are

You are an architect.

# Your task

Review this.\
""",
            input_tokens=16,
            output_tokens=17,
            usd=None,
            estimated=True,
        )
    )
    assert heard.partial.strip() == outcome.text


async def test_a_run_tells_how_far_it_is_and_that_it_was_in_no_sandbox(job: RunJob):
    heard = Heard()

    await ran(job, printing("x" * 1200), heard=heard)

    program = Path(sys.executable).name
    assert [(phase, percent, text) for phase, percent, text in heard.messages][:3] == [
        ("initializing", 5, f"Starting {program}."),
        ("generating", 10, f"{program} is working, 0 characters so far"),
        ("generating", 16, f"{program} is working, 1,200 characters so far"),
    ]
    assert [step.model_dump() for step in heard.steps] == [
        {
            "attempt": 2,
            "kind": "note",
            "name": "unsandboxed",
            "began_at": IsDatetime(),
            "duration_ms": 0,
            "error": None,
            "details": {"program": program},
        }
    ]
    assert heard.spendings[-1] == {
        "input_tokens": 16,
        "output_tokens": 300,
        "usd": None,
        "estimated": True,
    }


async def test_a_command_runs_in_the_jobs_project(job: RunJob, tmp_path: Path):
    outcome = await ran(job, "import os; print(os.getcwd())")

    assert outcome.text == str(tmp_path.resolve())


async def test_without_the_project_it_runs_in_an_empty_folder_that_goes_afterwards(job: RunJob):
    code = "import os; print(os.listdir()); open('left', 'w'); print(os.getcwd())"

    outcome = await ran(but(job, place=None), code)

    files, folder = outcome.text.splitlines()
    assert files == "[]"
    assert not Path(folder).exists()


@pytest.mark.parametrize("locale", [{}, {"LC_CTYPE": "C"}])
async def test_a_command_inherits_the_environment_without_what_is_the_workers_own(
    job: RunJob, locale: Mapping[str, str]
):
    environment = {
        "PROVIDER_KEY": "its own",
        "DRAMATIS_TENANT": "default",
        "DRAMATIS_DATABASE_URL": "postgresql://",
        "PGPASSWORD": "ours",
        "OTEL_EXPORTER_OTLP_HEADERS": "ours",
        "CLAUDECODE": "1",
        **locale,
    }
    # Python would add to its environment.
    run = command_runner(["/usr/bin/env"], seconds=DEADLINE_S, environment=environment)

    outcome = await run(job, Heard())

    inherited = dict(line.split("=") for line in outcome.text.splitlines())
    assert inherited == {"PROVIDER_KEY": "its own", **locale}


async def test_a_command_begins_with_the_signals_that_a_shell_would_give_it(job: RunJob):
    run = command_runner(
        ["/bin/sh", "-c", "kill -PIPE $$; echo still here"],
        seconds=DEADLINE_S,
        environment={},
    )

    with pytest.raises(RunFailed, match=rf"was ended by signal {signal.SIGPIPE.value}\.$"):
        await run(job, Heard())


async def test_no_shell_reads_the_command(job: RunJob):
    outcome = await ran(job, "import sys; print(sys.argv[1:])", "$(id)", "; id", "*")

    assert outcome.text == "['$(id)', '; id', '*']"


async def test_a_character_that_arrives_in_two_parts_is_whole(job: RunJob, tmp_path: Path):
    # The second part waits for the first to have been read.
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    heard = Heard()
    code = (
        "import sys; out = sys.stdout.buffer.raw; out.write('ab é'.encode()[:-1]);"
        "open(sys.argv[1]).read(); out.write('é'.encode()[1:])"
    )

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: ran(job, code, fifo, heard=heard))
        await heard.spoke.wait()
        await anyio.to_thread.run_sync(fifo.write_text, "")

    assert heard.partial == "ab é"


async def test_what_is_no_utf_8_is_replaced(job: RunJob):
    outcome = await ran(job, printing(b"a\xffb\xc3"))

    assert outcome.text == "a\ufffdb\ufffd"


async def test_a_command_need_not_read_what_it_is_asked(job: RunJob):
    outcome = await ran(but(job, request="x" * 5_000_000), "print('done')")

    assert outcome.text == "done"


async def test_a_command_that_closes_its_output_is_waited_for(job: RunJob, tmp_path: Path):
    code = "import os, sys; print('done', flush=True); os.close(1); open(sys.argv[1], 'w')"

    outcome = await ran(job, code, tmp_path / "made")

    assert outcome.text == "done"
    assert (tmp_path / "made").exists()


async def test_a_large_error_output_keeps_nobody_waiting(job: RunJob):
    code = "import sys; sys.stderr.write('x' * 1_000_000); print('done')"

    outcome = await ran(job, code)

    assert outcome.text == "done"


async def test_a_command_that_is_not_there_is_named(job: RunJob):
    run = command_runner(["/nowhere/agent-of-mine", "-p"], seconds=DEADLINE_S, environment={})

    with pytest.raises(RunnerMissing) as missing:
        await run(job, Heard())

    assert str(missing.value) == snapshot(
        "agent-of-mine cannot be started on this worker: No such file or directory. DRAMATIS_RUNNER_COMMAND names a program that the worker's PATH has."
    )


async def test_a_command_cannot_run_in_a_folder_that_went_away(job: RunJob, tmp_path: Path):
    gone = tmp_path / "gone"
    run = command_runner(["/bin/sh"], seconds=DEADLINE_S, environment={})

    with pytest.raises(RunnerMissing, match=r"^sh cannot be started on this worker: No such file"):
        await run(but(job, place=Place("", gone, gone, None)), Heard())


async def test_a_command_that_fails_is_quoted_without_folders_and_control_characters(job: RunJob):
    code = (
        "import sys; print('half'); sys.exit('no \\x1b[31m/home/ada/.agent/settings.json:\\nbad')"
    )
    heard = Heard()

    with pytest.raises(RunFailed) as failed:
        await ran(job, code, heard=heard)

    assert str(failed.value).partition(" ended ")[2] == snapshot(
        "with code 1. It said: no …/settings.json: bad"
    )
    assert heard.partial == "half\n"


async def test_a_command_that_was_killed_by_somebody_says_by_what(job: RunJob):
    with pytest.raises(RunFailed, match=r"was ended by signal 9\.$"):
        await ran(job, "import os; os.kill(os.getpid(), 9)")


async def test_a_command_that_prints_nothing_has_failed(job: RunJob):
    with pytest.raises(RunFailed, match=r"printed nothing\. It said: not logged in$"):
        await ran(job, "import sys; print(' '); print('not logged in', file=sys.stderr)")


async def test_a_command_that_prints_too_much_is_stopped_and_what_it_said_is_kept(
    job: RunJob, tmp_path: Path
):
    lock = tmp_path / "lock"
    heard = Heard()

    with pytest.raises(OutputTooLong, match=r"more than 1,000,000 bytes"):
        await ran(job, f"{LOCK}\nwhile True: print('x' * 999)", lock, heard=heard)

    assert len(heard.partial) == OUTPUT_BYTES
    await until_free(lock)


async def test_a_command_that_says_more_than_its_run_may_spend_is_stopped_and_that_is_kept(
    job: RunJob, tmp_path: Path
):
    lock = tmp_path / "lock"
    heard = Heard()
    code = f"{LOCK}\nprint('x' * 400, end='', flush=True)\n{SLEEP}"

    with pytest.raises(BudgetSpent) as spent:
        await ran(but(job, tokens_limit=100), code, lock, heard=heard)

    assert str(spent.value) == snapshot(
        "The run may spend 100 tokens, and would spend about 116. Give it a smaller task, or set DRAMATIS_RUN_TOKENS."
    )
    assert heard.partial == "x" * 400
    assert heard.spendings[-1]["output_tokens"] == 100
    await until_free(lock)


async def test_a_prompt_that_is_more_than_a_run_may_spend_is_never_told(job: RunJob):
    heard = Heard()

    with pytest.raises(BudgetSpent, match=r"may spend 15 tokens, and would spend about 16\."):
        await ran(but(job, tokens_limit=15), "", heard=heard)

    assert heard.messages == []


async def test_what_a_run_may_just_spend_is_not_too_much(job: RunJob):
    outcome = await ran(but(job, tokens_limit=17), printing("done"))

    assert outcome.text == "done"


async def test_a_limit_of_money_is_refused_because_nobody_knows_the_price(job: RunJob):
    heard = Heard()

    with pytest.raises(PriceUnknown) as unknown:
        await ran(but(job, usd_limit=1.0), "", heard=heard)

    program = Path(sys.executable).name
    assert (unknown.value.code, str(unknown.value).replace(program, "agent")) == snapshot(
        (
            "price_unknown",
            "What agent costs is not known, so a limit in USD cannot be kept. Unset DRAMATIS_RUN_USD, or set DRAMATIS_MODEL to a model whose price is known.",
        )
    )
    assert heard.messages == []


async def test_a_command_that_takes_too_long_is_stopped_and_what_it_said_is_kept(job: RunJob):
    heard = Heard()
    run = command_runner(["/bin/sh", "-c", "echo x; exec sleep 600"], seconds=1, environment={})

    with pytest.raises(RunTimedOut, match=r"^sh was stopped after 1 seconds\.$"):
        await run(job, heard)

    assert heard.partial == "x\n"


@pytest.mark.parametrize("manners", ["", IGNORE])
async def test_a_command_whose_worker_is_killed_ends_with_all_it_started(
    tmp_path: Path, manners: str
):
    lock = tmp_path / "lock"
    code = f"{LOCK}{manners}{START}print('half', flush=True)\n{SLEEP}"
    command = [sys.executable, "-c", code, str(lock)]
    worker = await anyio.open_process(
        [sys.executable, "-P", "-c", WORKER, *command],
        stderr=None,
        env={"PYTHONPATH": str(REPOSITORY)},
    )
    assert worker.stdout is not None

    async with worker:
        with anyio.fail_after(DEADLINE_S):
            said = await worker.stdout.receive()
        worker.kill()
        await until_free(lock)

    assert said == b"half\n"


async def test_a_command_whose_watcher_is_killed_ends_with_it(job: RunJob, tmp_path: Path):
    lock = tmp_path / "lock"
    code = f"{LOCK}{START}\nimport os; os.kill(os.getppid(), 9)\n{SLEEP}"

    with pytest.raises(RunFailed, match=r"was ended by signal 9\.$"):
        await ran(job, code, lock)

    await until_free(lock)


@pytest.mark.parametrize("manners", ["", IGNORE])
async def test_a_command_that_is_cancelled_ends_with_all_it_started(
    job: RunJob, tmp_path: Path, manners: str
):
    lock = tmp_path / "lock"
    heard = Heard()
    code = f"{LOCK}{manners}{START}print('half', flush=True)\n{SLEEP}"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: ran(job, code, lock, heard=heard))
        with anyio.fail_after(DEADLINE_S):
            await heard.spoke.wait()
        tasks.cancel_scope.cancel()

    assert heard.partial == "half\n"
    await until_free(lock)


async def test_what_a_command_leaves_running_does_not_outlive_it(job: RunJob, tmp_path: Path):
    lock = tmp_path / "lock"

    outcome = await ran(job, f"{LOCK}{START}print('done')", lock)

    assert outcome.text == "done"
    await until_free(lock)


async def test_what_a_command_hides_keeps_nobody_waiting(job: RunJob):
    code = (
        "import subprocess, sys; hidden = subprocess.Popen("
        f"[sys.executable, '-c', {SLEEP!r}], start_new_session=True); print(hidden.pid)"
    )

    outcome = await ran(job, code)

    os.kill(int(outcome.text), 9)


async def test_no_zombie_is_left(job: RunJob):
    outcome = await ran(job, "import os; print(os.getpid(), os.getppid())")

    assert [is_child(int(pid)) for pid in outcome.text.split()] == [False, False]


async def test_a_report_that_is_refused_ends_the_command_with_its_own_reason(
    job: RunJob, tmp_path: Path
):
    lock = tmp_path / "lock"

    with pytest.raises(Conflict, match="another worker's"):
        await ran(job, f"{LOCK}\nprint('x', flush=True)\n{SLEEP}", lock, heard=Refusing())

    await until_free(lock)


def test_secrets_are_left_out_of_what_is_quoted():
    said = (
        b"trying again\nAuthorization: Bearer abc123def456ghi789\nAPI_KEY=hunter2hunter2\nno luck\n"
    )

    assert end_of_errors(said) == "trying again no luck"


@given(st.binary(max_size=2000))
def test_whatever_a_program_complains_about_becomes_a_short_line(said: bytes):
    end = end_of_errors(said)

    assert end.isprintable()
    assert len(end) <= ERRORS_SHOWN
