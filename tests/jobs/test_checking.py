from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from dirty_equals import IsDatetime, IsFloat, IsPartialDict, IsPositiveFloat
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot
from sqlalchemy import text

from server.errors import Invalid
from server.jobs.leases import hand_back
from server.jobs.queries import (
    AmbiguousJob,
    NoSuchJob,
    find_job,
    list_jobs,
    parsed_id,
)
from server.jobs.record import run_record
from server.jobs.service import cancel_job, reset_jobs
from server.jobs.shapes import JobListing
from server.jobs.statistics import job_statistics
from server.personas.service import register_persona
from server.work import App, Caller
from tests.benchmarks.raw import recorded
from tests.conftest import but, operator
from tests.jobs.conftest import (
    BEGAN,
    TASK,
    aged,
    begun,
    completed,
    ended,
    failed,
    invoked,
    lasted,
    status_of,
    taken,
    tool,
)
from tests.standards.conftest import (
    Project,
    approved,
    person_of,
    proposed,
    rejected,
    returned,
    using,
)

pytestmark = pytest.mark.anyio

NOT_FOUND = (
    "There is no job with this id; it may have expired. list_persona_jobs has those there are."
)
A_MOMENT = IsFloat(ge=0, lt=5)


async def shown(app: App, caller: Caller, job_id: UUID) -> dict[str, Any]:
    return (await status_of(app, caller, job_id)).model_dump(
        exclude={"job_id": True, "trace": True}
    )


async def test_a_job_that_waits_has_a_place_in_the_queue(app: App, caller: Caller):
    first = await invoked(app, caller)
    second = await invoked(app, caller, "qa")

    assert [await shown(app, caller, job) for job in (first, second)] == [
        {
            "status": "pending",
            "persona": "architect",
            "position": 1,
            "elapsed_seconds": A_MOMENT,
            "message": "Waiting: next in the queue.",
        },
        {
            "status": "pending",
            "persona": "qa",
            "position": 2,
            "elapsed_seconds": A_MOMENT,
            "message": "Waiting: number 2.",
        },
    ]


async def test_a_job_that_was_put_back_says_why_and_until_when(app: App, caller: Caller):
    run = await begun(app, caller)
    async with app.work(caller) as work:
        await hand_back(
            work,
            run.job_id,
            run.attempt,
            run_after=BEGAN,
            throttled=True,
            message="The model is overloaded",
        )

    answer = await shown(app, caller, run.job_id)

    assert answer["message"] == (
        "Waiting: The model is overloaded; tried again at 2030-01-02 03:04:05 UTC."
    )


async def test_a_job_that_waits_long_without_a_worker_says_so(own_app: App):
    caller = operator(own_app)
    job = await invoked(own_app, caller)
    await aged(own_app, caller, job, 11)

    alone = await shown(own_app, caller, job)
    async with own_app.work(caller) as work:
        await work.session.execute(text("SELECT procrastinate_register_worker_v1()"))
    attended = await shown(own_app, caller, job)

    assert alone["message"] == snapshot(
        "Waiting: no worker is running. Start one with `dramatis worker`; one that was started for this job and died says why in the logs in the folder `workers` of the data root."
    )
    assert attended["message"] == "Waiting: next in the queue."


async def test_a_worker_that_runs_something_is_one_also_where_the_queue_knows_of_none(
    own_app: App,
):
    caller = operator(own_app)
    await begun(own_app, caller)
    job = await invoked(own_app, caller)
    await aged(own_app, caller, job, 11)

    assert (await shown(own_app, caller, job))["message"] == "Waiting: next in the queue."


async def test_a_job_that_runs_says_how_far_it_is(app: App, caller: Caller):
    run = await begun(app, caller)
    await run.step(tool("search_standards"))
    await run.text("Half.")
    await run.progress("analyzing", 40, "reading api.md")
    await run.progress("generating", 25, "writing")
    await run.write()
    await aged(app, caller, run.job_id, 60)

    assert await shown(app, caller, run.job_id) == {
        "status": "running",
        "persona": "architect",
        "progress": {
            "phase": "generating",
            "percent_complete": 40,
            "message": "writing",
            "eta_seconds": 90,
            "tool_calls_completed": 1,
        },
        "elapsed_seconds": IsFloat(ge=60, lt=65),
        "partial_result": "Half.",
    }


async def test_a_job_that_has_just_begun_has_no_estimate(app: App, caller: Caller):
    run = await begun(app, caller)

    answer = await shown(app, caller, run.job_id)

    assert answer["progress"] == {
        "phase": "initializing",
        "percent_complete": 0,
        "message": "starting",
        "eta_seconds": None,
        "tool_calls_completed": 0,
    }


async def test_progress_does_not_fall_when_a_job_runs_again(app: App, caller: Caller):
    run = await begun(app, caller)
    await run.progress("generating", 70, "writing")
    async with app.work(caller) as work:
        await hand_back(work, run.job_id, run.attempt, message="its worker was stopped")
    again = await taken(app, caller, run.job_id)

    await again.progress("searching", 5, "looking")

    answer = await shown(app, caller, run.job_id)
    assert (answer["progress"]["phase"], answer["progress"]["percent_complete"]) == (
        "searching",
        70,
    )


async def test_a_complete_job_has_its_result_and_what_it_took(app: App, caller: Caller):
    run = await begun(app, caller)
    await run.step(tool("search_standards"))
    await run.step(tool("read_standard"))
    await run.spent(input_tokens=500, output_tokens=40, usd=None)
    await ended(run, "complete", result="Fine.")
    await lasted(app, caller, run.job_id, 12.3)

    answer = await status_of(app, caller, run.job_id)

    assert answer.model_dump() == {
        "status": "complete",
        "job_id": run.job_id,
        "persona": "architect",
        "result": "Fine.",
        "duration_seconds": 12.3,
        "tool_calls_made": 2,
        "tokens_used": {"input": 500, "output": 40},
        "trace": IsPartialDict(source="core", reason="built in core persona"),
    }


@pytest.mark.parametrize(("written", "partial"), [("Half.", "Half."), ("", None)])
async def test_a_failed_job_has_its_error_and_what_there_was(
    app: App, caller: Caller, written: str, partial: str | None
):
    run = await begun(app, caller)
    await run.text(written)
    await run.write()
    await ended(run, "failed", error="The model refused.", error_code="run_failed")
    await lasted(app, caller, run.job_id, 3)

    assert await shown(app, caller, run.job_id) == {
        "status": "failed",
        "persona": "architect",
        "error": "The model refused.",
        "partial_result": partial,
        "elapsed_seconds": 3.0,
    }


async def test_a_cancelled_job_has_what_there_was(app: App, caller: Caller):
    run = await begun(app, caller)
    await run.text("Half.")
    await using(app, caller, lambda work: cancel_job(work, str(run.job_id)))
    await lasted(app, caller, run.job_id, 3)

    assert await shown(app, caller, run.job_id) == {
        "status": "cancelled",
        "persona": "architect",
        "partial_result": "Half.",
        "elapsed_seconds": 3.0,
    }


@pytest.mark.parametrize(
    "job_id", ["", "42", "job\0", "../x", str(UUID(int=0)), "é" * 32, "x" * 200]
)
async def test_an_id_that_names_no_job_is_not_found(app: App, caller: Caller, job_id: str):
    await invoked(app, caller)

    answer = await status_of(app, caller, job_id)

    assert answer.model_dump() == {
        "status": "not_found",
        "job_id": job_id,
        "persona": "",
        "message": NOT_FOUND,
    }
    with pytest.raises(NoSuchJob):
        await using(app, caller, lambda work: run_record(work, job_id))


async def test_a_very_long_id_is_not_repeated_whole(app: App, caller: Caller):
    answer = await status_of(app, caller, "x" * 100_000)

    assert answer.model_dump()["job_id"] == "x" * 200


@given(st.uuids())
def test_an_id_is_read_as_it_was_written(job_id: UUID):
    assert parsed_id(f" {job_id}\n") == job_id


@given(st.text())
def test_any_text_is_an_id_or_none(said: str):
    assert parsed_id(said) is None or UUID(said.strip()) == parsed_id(said)


async def test_a_job_is_found_by_how_its_id_begins(app: App, caller: Caller):
    job = await invoked(app, caller)

    for start in (str(job), str(job)[:4], f" {str(job)[:13].upper()}"):
        assert await using(app, caller, lambda work, start=start: find_job(work, start)) == job


@pytest.mark.parametrize("start", ["", "abc", "not hexadecimal", "0000", "0" * 33])
async def test_what_no_id_begins_with_finds_no_job(app: App, caller: Caller, start: str):
    with pytest.raises(NoSuchJob, match="list_persona_jobs"):
        await using(app, caller, lambda work: find_job(work, start))


async def test_a_beginning_of_several_ids_is_answered_with_them(app: App, caller: Caller):
    jobs = [await invoked(app, caller) for _ in range(2)]
    renamed = [UUID(f"abcd{job.hex[4:]}") for job in jobs]
    async with app.work(caller) as work:
        for job, name in zip(jobs, renamed, strict=True):
            rename = text("UPDATE dramatis.persona_jobs SET id = :name WHERE id = :job")
            await work.session.execute(rename, {"job": job, "name": name})

    with pytest.raises(AmbiguousJob) as refused:
        await using(app, caller, lambda work: find_job(work, "abcd"))

    assert refused.value.hint == (
        f"Say which: {renamed[1]} (architect, pending), {renamed[0]} (architect, pending)."
    )


async def test_what_a_job_was_invoked_with_is_not_read_at_each_look(app: App, caller: Caller):
    job = await invoked(app, caller)
    with recorded(app.database.engine) as statements:
        await status_of(app, caller, job)
        await listed(app, caller)

    read = [one.text.decode() for one in statements if b"FROM dramatis.persona_jobs" in one.text]
    assert read
    assert not [one for one in read if "persona_jobs.prompt" in one or "context" in one]


async def listed(app: App, caller: Caller, **values: Any) -> JobListing:
    return await using(app, caller, lambda work: list_jobs(work, **values))


def ids(listing: JobListing) -> list[UUID]:
    return [job.job_id for job in listing.jobs]


async def test_jobs_are_listed_newest_first_with_what_tells_them_apart(app: App, caller: Caller):
    first = await completed(app, caller)
    await lasted(app, caller, first, 12.3)
    second = await invoked(app, caller, "qa", task="x" * 201)

    listing = await listed(app, caller)

    assert listing.model_dump() == {
        "jobs": [
            {
                "job_id": second,
                "persona": "qa",
                "status": "pending",
                "task": "x" * 199 + "…",
                "created_at": IsDatetime(delta=60, approx=datetime.now(UTC)),
                "duration_seconds": None,
            },
            {
                "job_id": first,
                "persona": "architect",
                "status": "complete",
                "task": TASK,
                "created_at": IsDatetime(delta=60, approx=datetime.now(UTC)),
                "duration_seconds": 12.3,
            },
        ],
        "total_count": 2,
        "filtered_count": 2,
    }


async def test_a_list_has_ten_jobs_unless_more_are_asked_for(app: App, caller: Caller):
    jobs = [await invoked(app, caller) for _ in range(12)]

    ten, two = await listed(app, caller), await listed(app, caller, limit=2)

    assert (ids(ten), ten.total_count, ten.filtered_count) == (jobs[:1:-1], 12, 12)
    assert (ids(two), two.filtered_count) == (jobs[:9:-1], 12)


async def test_a_list_can_be_of_a_status_or_a_persona(app: App, caller: Caller):
    con = await register_persona(app, caller, name="Con Ops", role="Dev")
    by_con = await invoked(app, caller, con.slug)
    bad = await failed(app, caller)
    await completed(app, caller)

    of_status = await listed(app, caller, status="failed")
    of_both = await listed(app, caller, status="failed", persona="qa")

    assert (ids(of_status), of_status.total_count, of_status.filtered_count) == ([bad], 3, 1)
    assert of_both == JobListing(jobs=[], total_count=3, filtered_count=0)
    for reference in (con.slug, "con ops", "Con Ops"):
        assert ids(await listed(app, caller, persona=reference)) == [by_con]
    for reference in ("architect", "@Architect"):
        assert (await listed(app, caller, persona=reference)).filtered_count == 2


async def test_a_core_persona_is_told_from_a_namesake_in_a_list(app: App, caller: Caller):
    namesake = await register_persona(app, caller, name="QA", role="Tester")
    theirs = await invoked(app, caller, namesake.slug)
    core = await invoked(app, caller, "core:qa")

    assert ids(await listed(app, caller, persona="core:qa")) == [core]
    assert {*ids(await listed(app, caller, persona="qa"))} == {core, theirs}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"status": "done"},
            snapshot("status: must be 'pending', 'running', 'complete', 'failed' or 'cancelled'."),
        ),
        ({"persona": " "}, snapshot("persona: must not be empty or blank.")),
        ({"limit": 0}, snapshot("limit: must be greater than or equal to 1.")),
        ({"limit": 101}, snapshot("limit: must be less than or equal to 100.")),
    ],
)
async def test_a_filter_that_breaks_a_rule_is_refused(
    app: App, caller: Caller, values: dict[str, Any], sentence: str
):
    with pytest.raises(Invalid) as refused:
        await listed(app, caller, **values)

    assert str(refused.value) == sentence


def in_project(app: App, folder: Path) -> App:
    return but(app, place=Project(folder.resolve()).place)


async def test_two_projects_on_one_database_never_mix(app: App, caller: Caller, tmp_path: Path):
    one, other = (in_project(app, tmp_path / name) for name in ("one", "other"))
    first = await invoked(one, caller)
    second = await invoked(other, caller)
    nowhere = await invoked(app, caller)

    assert [ids(await listed(here, caller)) for here in (one, other, app)] == [
        [first],
        [second],
        [nowhere],
    ]
    assert (await listed(one, caller)).total_count == 1

    reset = await using(one, caller, lambda work: reset_jobs(work, confirm=True))

    assert reset.jobs_deleted == 1
    assert [ids(await listed(here, caller)) for here in (one, other, app)] == [
        [],
        [second],
        [nowhere],
    ]


async def test_a_project_that_nothing_is_known_of_has_no_jobs(
    app: App, caller: Caller, tmp_path: Path
):
    new = in_project(app, tmp_path / "new")
    await invoked(app, caller)

    assert await listed(new, caller) == JobListing(jobs=[], total_count=0, filtered_count=0)
    reset = await using(new, caller, lambda work: reset_jobs(work, confirm=True))
    assert reset.jobs_deleted == 0


async def test_statistics_count_the_jobs_of_all_projects(app: App, caller: Caller, tmp_path: Path):
    await completed(app, caller)
    await completed(app, caller)
    old = await invoked(in_project(app, tmp_path / "one"), caller)
    await aged(app, caller, old, 36 * 3600)

    statistics = await using(app, caller, job_statistics)

    assert statistics.model_dump() == {
        "database_size_mb": IsPositiveFloat,
        "total_jobs": 3,
        "jobs_by_status": {"complete": 2, "pending": 1},
        "oldest_job_days": 1.5,
        "next_cleanup": IsDatetime(delta=60, approx=datetime.now(UTC)),
        "cleanup_recommendation": "healthy",
    }


async def test_statistics_of_nothing_are_there_too(app: App, caller: Caller):
    statistics = await using(app, caller, job_statistics)

    assert (statistics.total_jobs, statistics.jobs_by_status, statistics.oldest_job_days) == (
        0,
        {},
        None,
    )


REFUSED = tool("read_project_file", arguments={"path": "../x"}).model_copy(
    update={"error": "That is outside the project."}
)
STEPS = [
    tool("search_standards", standards=[{"file": "a.md"}, {"file": "b.md"}]),
    tool("read_standard", standards=[{"file": "a.md"}]),
    REFUSED,
    tool("test").model_copy(update={"kind": "model"}),
    tool("unsandboxed").model_copy(update={"kind": "note"}),
]


async def test_the_record_of_a_run_says_what_it_did_and_what_it_took(
    app: App, caller: Caller, tmp_path: Path
):
    app = in_project(app, tmp_path / "repository")
    run = await begun(app, caller)
    for step in STEPS:
        await run.step(step)
    await run.spent(input_tokens=500, output_tokens=40, usd=0.25, estimated=True)
    await ended(run, "complete", result="Fine.")
    await lasted(app, caller, run.job_id, 3)

    record = await using(app, caller, lambda work: run_record(work, str(run.job_id)))

    assert app.place is not None
    assert record.finished_at is not None
    assert record.started_at == record.finished_at - timedelta(seconds=3)
    assert (record.steps, record.standards) == (STEPS, ["a.md", "b.md"])
    assert record.model_dump(
        include={"status", "attempts", "model", "unsandboxed", "project", "budget", "spent"}
    ) == {
        "status": "complete",
        "attempts": 1,
        "model": "test",
        "unsandboxed": True,
        "project": str(app.place.root),
        "budget": {"tokens": 200_000, "usd": None, "seconds": 900.0},
        "spent": {
            "input_tokens": 500,
            "output_tokens": 40,
            "usd": 0.25,
            "estimated": True,
            "seconds": 3.0,
        },
    }


async def test_the_record_of_a_run_says_what_became_of_its_proposals(
    app: App, caller: Caller, tmp_path: Path
):
    app = in_project(app, tmp_path / "repository")
    person = person_of(app, "bea")
    run = await begun(app, caller)
    made = [await proposed(app, person, topic=topic) for topic in ("clocks", "seeds", "waits")]
    for one in made:
        await run.step(tool("propose_standard", proposal_id=one.id))
    await approved(app, person, made[0].id)
    await rejected(app, person, made[1].id, "No.")
    await returned(app, person, made[2].id, "Shorter.")

    record = await using(app, caller, lambda work: run_record(work, str(run.job_id)))

    assert [one.model_dump() for one in record.proposals] == [
        {
            "proposal_id": one.id,
            "file": one.file,
            "status": status,
            "decided_by": decided_by,
        }
        for one, status, decided_by in zip(
            made,
            ("approved", "rejected", "draft"),
            ("bea", "bea", None),
            strict=True,
        )
    ]
