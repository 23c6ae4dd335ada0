"""What a command is given, and what becomes of all that it prints."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from dirty_equals import IsDatetime
from inline_snapshot import snapshot

from server.jobs.commands import command_runner
from server.jobs.running import Outcome, RunFailed, RunJob, RunnerMissing
from tests.conftest import but
from tests.jobs.commands.conftest import DEADLINE_S, Heard, printing, ran

pytestmark = pytest.mark.anyio


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


@pytest.mark.parametrize("folders", ["", ".:/usr/bin", ":bin"])
async def test_a_program_of_the_project_is_never_taken_for_the_command(
    job: RunJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: str
):
    for name in ("agent", "bin/agent"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("#!/bin/sh\necho hostile")
        (tmp_path / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)

    for command in ("agent", "./agent", "bin/agent"):
        run = command_runner([command], seconds=DEADLINE_S, environment={"PATH": folders})
        with pytest.raises(RunnerMissing, match="no such program was found"):
            await run(job, Heard())


async def test_a_command_is_found_on_the_path_of_the_worker(job: RunJob, tmp_path: Path):
    (tmp_path / "agent").symlink_to("/bin/echo")
    path = f"{tmp_path}:/usr/bin"
    run = command_runner(["agent", "here"], seconds=DEADLINE_S, environment={"PATH": path})

    assert (await run(but(job, place=None), Heard())).text == "here"


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


async def test_a_command_that_ends_without_reading_all_leaves_no_error_that_nobody_hears(
    job: RunJob,
):
    unheard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    asked = but(job, request="x" * 10_000_000)

    for _ in range(10):
        assert (await ran(asked, "print('done')")).text == "done"
    # Of a failure that nobody has asked for, the loop says so when it is forgotten.
    gc.collect()

    assert unheard == []
