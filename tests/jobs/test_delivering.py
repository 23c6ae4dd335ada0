from collections.abc import AsyncIterator
from uuid import UUID

import procrastinate
import pytest
from procrastinate.jobs import Job
from procrastinate.manager import JobManager
from sqlalchemy import text

from server.jobs.delivering import TASK, deliver
from server.jobs.fetching import configure
from server.jobs.service import cancel_job
from server.jobs.shapes import JobPending, Priority
from server.work import App, Caller, Work
from tests.conftest import operator
from tests.jobs.conftest import invoked, left_behind, status_of
from tests.standards.conftest import using

pytestmark = pytest.mark.anyio

ANY_ORDER: list[Priority] = ["low", "high", "normal", "high", "low", "normal"]
DELIVERED = [1, 3, 2, 5, 0, 4]


@pytest.fixture
async def queue(own_app: App) -> AsyncIterator[JobManager]:
    """The library's own end of the queue."""
    url = own_app.database.engine.url.set(drivername="postgresql")
    connector = procrastinate.PsycopgConnector(
        conninfo=url.render_as_string(hide_password=False),
        configure=configure,
        min_size=1,
        max_size=1,
    )
    async with procrastinate.App(connector=connector).open_async() as app:
        yield app.job_manager


async def delivered(app: App, queue: JobManager) -> list[UUID]:
    """Fetch all there is, and say to which jobs it belongs."""
    deliveries = [job.id for job in await fetched(queue)]
    async with app.work(operator(app)) as work:
        rows = await work.session.execute(text("SELECT delivery_id, id FROM dramatis.persona_jobs"))
        jobs = {row.delivery_id: row.id for row in rows}
    return [jobs[number] for number in deliveries]


async def fetched(queue: JobManager) -> list[Job]:
    """Fetch all there is, as a worker of the library does."""
    worker = await queue.register_worker()
    jobs: list[Job] = []
    while (job := await queue.fetch_job(["jobs"], worker)) is not None:
        jobs.append(job)
    return jobs


async def test_a_worker_of_the_library_gets_what_is_delivered(own_app: App, queue: JobManager):
    await invoked(own_app, operator(own_app), priority="high")

    (job,) = await fetched(queue)

    assert (job.task_name, job.queue, job.priority) == (TASK, "jobs", 10)
    assert job.task_kwargs == {"tenant_id": own_app.tenant_id}
    assert (job.lock, job.queueing_lock, job.attempts) == (None, None, 0)


async def test_jobs_are_delivered_by_priority_and_then_by_age(own_app: App, queue: JobManager):
    caller = operator(own_app)
    jobs = [await invoked(own_app, caller, priority=priority) for priority in ANY_ORDER]

    assert await delivered(own_app, queue) == [jobs[number] for number in DELIVERED]


async def test_a_job_knows_its_place_in_the_order_of_delivery(app: App, caller: Caller):
    jobs = [await invoked(app, caller, priority=priority) for priority in ANY_ORDER]

    places = [
        status.position
        for number in DELIVERED
        if isinstance(status := await status_of(app, caller, jobs[number]), JobPending)
    ]

    assert places == [1, 2, 3, 4, 5, 6]


async def test_what_is_cancelled_is_not_delivered(own_app: App, queue: JobManager):
    caller = operator(own_app)
    first, second = [await invoked(own_app, caller) for _ in range(2)]

    await using(own_app, caller, lambda work: cancel_job(work, str(first)))

    assert await delivered(own_app, queue) == [second]


async def test_a_delivery_falls_with_its_transaction(own_app: App):
    caller = operator(own_app)

    async def broken(work: Work) -> None:
        await deliver(work, "jobs", "normal")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await using(own_app, caller, broken)

    assert (await left_behind(own_app, caller))["deliveries"] == 0


async def test_the_queue_holds_nothing_of_what_was_said(app: App, caller: Caller):
    await invoked(app, caller, task="A secret task.", context="A secret text.")

    async with app.work(caller) as work:
        rows = await work.session.scalars(text("SELECT j::text FROM procrastinate_jobs j"))
        assert not any("secret" in row for row in rows)
