import json
import signal

import pytest
from inline_snapshot import snapshot

from tests.cli.conftest import Cli
from tests.cli.jobs import in_shop, invoked, ran, state_of, worker_of
from tests.jobs.worker_processes import left_behind


def test_help_leaves_out_what_only_we_say(offline: Cli):
    said = offline.said("worker", "--help")

    assert "--drain SECONDS" in said
    assert "--on-demand" not in said


@pytest.mark.parametrize("line", ["--jobs 0", "--jobs x", "--drain -1", "--drain soon"])
def test_numbers_that_cannot_be_are_refused(offline: Cli, line: str):
    assert offline.run("worker", *line.split()).exit_code == 2


def test_a_worker_without_a_database_says_so(offline: Cli):
    ended = offline.process("worker", "--json")

    assert (ended.returncode, json.loads(ended.stdout)["error"]["code"]) == snapshot(
        (6, "database_unavailable")
    )


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_runs_jobs_until_it_is_told_to_go(cli: Cli, told: signal.Signals):
    in_shop(cli)
    with worker_of(cli, "--jobs", "1") as worker:
        job_id = ran(cli)
        worker.send_signal(told)
        code = worker.wait()

    assert code == 0
    assert state_of(cli, job_id)["status"] == "complete"
    assert (cli.folder / "worker.log").read_text() == ""


def test_a_job_that_does_not_end_in_time_waits_for_another_worker(cli: Cli):
    in_shop(cli)
    with worker_of(cli, "--drain", "0.1") as worker:
        job_id = invoked(cli, "wait")
        # What opens the gate is let through when the program is there.
        gate = (cli.folder / "gate").open("w")
        worker.terminate()
        worker.wait()
    gate.close()

    assert state_of(cli, job_id)["status"] == "pending"


def test_a_worker_that_was_started_for_a_job_can_be_told_to_go(cli: Cli):
    in_shop(cli)
    cli.env["DRAMATIS_START_WORKER"] = None
    none = cli.said("worker", "--stop")
    with left_behind(cli.data_root):
        job_id = invoked(cli, "wait")
        with (cli.folder / "gate").open("w") as gate:
            told = cli.said("worker", "--stop")
            again = cli.answer("worker", "--stop")
            gate.write("on")
        cli.run("job", "tail", job_id)
        status = state_of(cli, job_id)["status"]

    assert (none, told) == snapshot(
        (
            "No worker that was started for your jobs is here.\n",
            "The worker takes no more jobs, and goes when those that it runs have ended.\n",
        )
    )
    assert again == {"status": "not_here", "workers": 0}
    assert status == "complete"
