"""Jobs whose worker is gone, with settings that nobody has any more."""

from collections.abc import Collection

import pytest

from server.jobs.adopting import Adoption
from server.work import App, JobSettings
from tests.conftest import but
from tests.jobs.workers import Held, Jobs, configured, working

pytestmark = pytest.mark.anyio

MINE, GONE, STAFFED = "own-a-mine", "own-a-gone", "own-a-staffed"


def invoking(app: App, queue: str) -> Jobs:
    """Have the jobs of somebody with other settings."""
    whole = configured(app)
    settings: JobSettings = but(whole.jobs, queue=queue)
    return Jobs(but(whole, jobs=settings))


def adoption(patience_s: float = 0) -> Adoption:
    def abandoned(queues: Collection[str]) -> Collection[str]:
        return {GONE} & {*queues}

    return Adoption(MINE, abandoned, patience_s)


async def queues_of(jobs: Jobs) -> list[tuple[object, ...]]:
    return await jobs.rows(
        "SELECT queue, queue_name FROM dramatis.persona_jobs"
        " JOIN procrastinate_jobs delivery ON delivery.id = delivery_id ORDER BY created_at"
    )


async def test_what_waits_for_a_worker_that_is_gone_is_moved_with_its_delivery(own_app: App):
    jobs = invoking(own_app, GONE)
    for queue in (GONE, STAFFED, "jobs"):
        await invoking(own_app, queue).invoke()

    await jobs.using(adoption().look)

    assert await queues_of(jobs) == [(MINE, MINE), (STAFFED, STAFFED), ("jobs", "jobs")]


async def test_whoever_has_its_settings_has_a_while_to_start_it_again(own_app: App):
    jobs = invoking(own_app, GONE)
    await jobs.invoke()
    patient = adoption(patience_s=60)

    for _ in range(2):
        await jobs.using(patient.look)
    waiting, expected = await queues_of(jobs), patient.waits
    patient.patience_s = 0
    for _ in range(2):
        await jobs.using(patient.look)

    assert (waiting, await queues_of(jobs)) == ([(GONE, GONE)], [(MINE, MINE)])
    assert (expected, patient.waits) == (True, False)


async def test_the_while_begins_anew_where_a_worker_was_there_meanwhile(own_app: App):
    jobs = invoking(own_app, GONE)
    await jobs.invoke()
    gone = {GONE}

    def abandoned(queues: Collection[str]) -> Collection[str]:
        return gone & {*queues}

    one = Adoption(MINE, abandoned, patience_s=60)
    await jobs.using(one.look)
    gone.clear()
    await jobs.using(one.look)
    one.patience_s = 0
    await jobs.using(one.look)

    assert await queues_of(jobs) == [(GONE, GONE)]


async def test_a_job_that_runs_stays_where_it_is(own_app: App):
    jobs, held = invoking(own_app, GONE), Held()
    job = await jobs.invoke()

    async with working(jobs.app, held):
        await held.until_begun(1)
        one = adoption()
        await jobs.using(one.look)
        # It may have to be taken up, so whoever could do it stays.
        queue, stays = await jobs.stored(job, "queue"), one.waits
        held.let_go()
        await jobs.until(job, "complete")
    await jobs.using(one.look)

    assert (queue, stays, one.waits) == ((GONE,), True, False)
