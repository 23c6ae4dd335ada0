"""Commands that cannot start or that fail, and what is quoted of them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot

from server.jobs.commands import ERRORS_SHOWN, command_runner, end_of_errors
from server.jobs.running import RunFailed, RunJob, RunnerMissing
from server.work import Place
from tests.conftest import but
from tests.jobs.commands.conftest import DEADLINE_S, Heard, ran

pytestmark = pytest.mark.anyio


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
