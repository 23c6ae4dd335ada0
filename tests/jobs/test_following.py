"""Following a job: until it ends or the time is over, with a worker called where none runs it."""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
from sqlalchemy import text

from server.jobs.following import FollowedJob, follow_job, followed_job, take_up_jobs
from server.jobs.leases import lost_jobs, take_over
from server.jobs.reporting import JobReporting
from server.jobs.service import cancel_job
from server.jobs.shapes import JobPending, JobRunning, Step
from server.jobs.starting import WorkerNotStarted
from server.standards.proposals import Proposed
from server.work import READ_ONLY, App, Caller
from tests.conftest import but, operator
from tests.jobs.conftest import begun, completed, configured, ended, invoked, taken
from tests.standards.conftest import (
    Project,
    agent_of,
    person_of,
    proposed,
    rejected,
    returned,
    using,
)

pytestmark = pytest.mark.anyio

Follow = Callable[[App, Caller, str], Awaitable[object]]


@dataclass
class Workers:
    """Stands in for starting a worker on this machine."""

    error: Exception | None = None
    called: int = 0
    queues: Collection[str] | None = None

    def __call__(self, queues: Collection[str] | None) -> None:
        self.called += 1
        self.queues = queues
        if self.error is not None:
            raise self.error


def with_workers(app: App, workers: Workers) -> App:
    return but(app, jobs=but(app.jobs, start_worker=workers))


async def lose_workers(app: App, caller: Caller) -> None:
    statement = text(
        "UPDATE dramatis.persona_jobs SET lease_until = clock_timestamp() - interval '1 second'"
        " WHERE status = 'running'"
    )
    await using(app, caller, lambda work: work.session.execute(statement))


async def propose(app: App, run: JobReporting, topic: str = "flaky-tests") -> Proposed:
    """Propose a standard as a run does."""
    made = await proposed(app, agent_of(app, "architect"), topic=topic)
    step = Step(
        attempt=run.attempt,
        kind="tool",
        name="propose_standard",
        began_at=datetime.now(UTC),
        duration_ms=1,
        details={"proposal_id": made.id, "file": made.file},
    )
    await run.step(step)
    return made


async def followed(app: App, run: JobReporting) -> FollowedJob:
    found = await followed_job(app, run.caller, str(run.job_id))
    assert found is not None
    return found


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project((tmp_path / "repository").resolve())


@pytest.fixture
def placed(app: App, project: Project) -> App:
    return but(app, place=project.place)


async def test_whoever_waits_is_told_how_it_goes_and_answered_at_the_end(own_app: App):
    caller = operator(own_app)
    job_id = await invoked(own_app, caller)
    runs: list[JobReporting] = []
    told: list[str] = []

    async def tell(status: JobPending | JobRunning) -> None:
        told.append(status.status)
        if isinstance(status, JobPending):
            runs.append(await taken(own_app, caller, job_id))
        else:
            await ended(runs[0], "complete", result="Fine.")

    with anyio.fail_after(5):
        status = await follow_job(own_app, caller, str(job_id), wait_s=50, told=tell)

    assert (told, status.status) == (["pending", "running"], "complete")


@pytest.mark.parametrize("wait_s", [0, 0.01])
async def test_when_the_time_is_over_the_answer_is_how_it_is_then(
    app: App, caller: Caller, wait_s: float
):
    job_id = await invoked(app, caller)

    status = await follow_job(app, caller, str(job_id), wait_s=wait_s)

    assert status.status == "pending"


@pytest.mark.parametrize("follow", [follow_job, followed_job])
async def test_a_worker_is_called_for_a_job_that_waits_or_has_lost_its_own(
    app: App, caller: Caller, follow: Follow
):
    workers = Workers()
    app = with_workers(configured(app), workers)
    done = await completed(app, caller)
    run = await begun(app, caller)
    workers.called = 0

    async def calls(job_id: object) -> int:
        before = workers.called
        await follow(app, caller, str(job_id))
        return workers.called - before

    assert [await calls(done), await calls(run.job_id), await calls("no-id")] == [0, 0, 0]
    await lose_workers(app, caller)
    assert await calls(run.job_id) == 1
    other = but(app, jobs=but(app.jobs, queue="other"))
    assert await calls(await invoked(other, caller)) == 1
    assert workers.queues == ["other"]


async def test_a_worker_is_called_again_each_time_one_is_lost(own_app: App):
    caller, workers = operator(own_app), Workers()
    job_id = await invoked(own_app, caller)
    calls: list[int] = []

    async def tell(status: JobPending | JobRunning) -> None:
        calls.append(workers.called)
        if workers.called == 3:
            await using(own_app, caller, lambda work: cancel_job(work, str(job_id)))
        elif isinstance(status, JobPending):
            await taken(own_app, caller, job_id)
        elif await using(own_app, caller, lost_jobs):
            await using(own_app, caller, lambda work: take_over(work, [job_id]))
        else:
            await lose_workers(own_app, caller)

    app = with_workers(own_app, workers)
    with anyio.fail_after(20):
        await follow_job(app, caller, str(job_id), wait_s=50, told=tell)

    assert calls == [1, 1, 2, 2, 2, 3]


async def test_a_machine_that_refuses_is_asked_again_and_that_is_logged_once(
    own_app: App, caplog: pytest.LogCaptureFixture
):
    caller = operator(own_app)
    job_id = await invoked(own_app, caller)
    workers = Workers(WorkerNotStarted("No worker can be started here."))

    async def tell(_: JobPending | JobRunning) -> None:
        if workers.called == 3:
            await using(own_app, caller, lambda work: cancel_job(work, str(job_id)))

    app = with_workers(own_app, workers)
    with anyio.fail_after(20):
        await follow_job(app, caller, str(job_id), wait_s=50, told=tell)

    assert caplog.text.count("No worker can be started here.") == 1


async def test_whoever_may_only_look_starts_nothing(app: App, caller: Caller):
    workers = Workers()
    job_id = await invoked(app, caller)

    reader = but(caller, scopes=READ_ONLY)
    status = await follow_job(with_workers(app, workers), reader, str(job_id))

    assert (status.status, workers.called) == ("pending", 0)


async def test_a_machine_that_refuses_to_start_a_worker_does_not_keep_the_answer_back(
    app: App, caller: Caller, caplog: pytest.LogCaptureFixture
):
    job_id = await invoked(app, caller)

    workers = Workers(WorkerNotStarted("No worker can be started here."))
    status = await follow_job(with_workers(app, workers), caller, str(job_id))

    assert (status.status, workers.called) == ("pending", 1)
    assert "No worker can be started here." in caplog.text


async def test_jobs_are_taken_up_when_any_waits_and_otherwise_nobody_is_called(
    app: App, caller: Caller
):
    workers = Workers()
    app = with_workers(app, workers)
    await take_up_jobs(app, caller)
    idle = workers.called

    await invoked(configured(app), caller)
    await take_up_jobs(app, caller)

    assert (idle, workers.called) == (0, 1)


async def test_a_followed_job_says_when_something_was_last_heard_of_it(app: App, caller: Caller):
    waiting = await followed_job(app, caller, str(await invoked(app, caller)))
    run = await begun(app, caller)
    before = await followed(app, run)
    await run.progress("analyzing", 40, "reading")
    during = await followed(app, run)
    await ended(run, "complete", result="Fine.")
    after = await followed(app, run)

    assert waiting is not None
    assert waiting.updated_at == waiting.created_at
    assert during.created_at < before.updated_at < during.updated_at < after.updated_at
    assert after.updated_at - during.created_at < timedelta(seconds=5)


async def test_drafts_of_a_run_are_there_to_be_decided_while_it_runs(placed: App, caller: Caller):
    person = person_of(placed)
    run = await begun(placed, caller)
    made = [await propose(placed, run, topic) for topic in ("one", "two", "three")]
    await returned(placed, person, made[1].id, "Say why.")
    await rejected(placed, person, made[2].id, "No.")

    during = await followed(placed, run)
    elsewhere = await followed(but(placed, place=None), run)
    await ended(run, "complete", result="Fine.")
    after = await followed(placed, run)

    assert [one.id for one in during.proposals] == [made[0].id]
    assert (elsewhere.proposals, after.proposals) == ([], [])


async def test_a_draft_whose_file_has_changed_since_is_not_there_to_be_decided(
    placed: App, project: Project, caller: Caller
):
    run = await begun(placed, caller)
    await propose(placed, run)
    project.write("testing/flaky-tests.md")

    assert (await followed(placed, run)).proposals == []
