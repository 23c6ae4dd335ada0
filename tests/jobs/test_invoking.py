import threading
from collections.abc import Awaitable, Callable, Collection, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import psycopg
import pytest
from dirty_equals import IsUUID
from inline_snapshot import snapshot
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError

from db.session import TenantSession
from server.errors import Forbidden, Invalid
from server.jobs.queries import list_jobs
from server.jobs.record import run_record
from server.jobs.retention import clean_jobs
from server.jobs.service import (
    ModelNotConfigured,
    cancel_job,
    invoke_persona,
    look_for_worker,
    reset_jobs,
    retry_job,
)
from server.jobs.starting import WorkerNotStarted
from server.personas.queries import PersonaNotFound
from server.personas.service import PersonaArchived, register_persona, update_persona
from server.work import READ_ONLY, App, Caller, JobSettings, ModelChoice, Work
from tests.conftest import but, operator
from tests.jobs.conftest import (
    NOTHING,
    TASK,
    begun,
    completed,
    ended,
    failed,
    invoked,
    lasted,
    left_behind,
    status_of,
    taken,
)
from tests.standards.conftest import audited, using

pytestmark = pytest.mark.anyio


async def test_an_invocation_is_answered_with_a_handle(app: App, caller: Caller):
    started = await invoke_persona(app, caller, "architect", TASK)

    shown = started.model_dump(mode="json", exclude={"trace": {"digest"}})
    handle = shown.pop("job_id")
    assert handle == IsUUID(4)
    shown["poll_command"] = shown["poll_command"].replace(handle, "JOB")
    assert shown == snapshot(
        {
            "status": "started",
            "persona": "architect",
            "estimated_duration_seconds": 60,
            "poll_command": 'check_persona_job(job_id="JOB")',
            "message": "Architect works in the background. Go on with other things and check it now and then; the result waits for you.",
            "trace": {
                "source": "core",
                "persona_spec_version": None,
                "spec_digest": None,
                "reason": "built in core persona",
            },
        }
    )


async def test_the_second_in_the_queue_is_told_so(app: App, caller: Caller):
    await invoked(app, caller)

    started = await invoke_persona(app, caller, "qa", TASK)

    assert started.message == snapshot(
        "QA works in the background. It is number 2 in the queue. Go on with other things and check it now and then; the result waits for you."
    )


async def test_the_estimate_is_the_median_of_what_the_personas_complete_runs_took(
    app: App, caller: Caller
):
    for seconds in (10, 20, 90):
        await lasted(app, caller, await completed(app, caller), seconds)
    await lasted(app, caller, await failed(app, caller), 5000)
    await lasted(app, caller, await completed(app, caller, "qa"), 5000)
    await begun(app, caller)

    started = await invoke_persona(app, caller, "architect", TASK)

    assert started.estimated_duration_seconds == 20


async def test_an_estimate_is_never_zero(app: App, caller: Caller):
    await lasted(app, caller, await completed(app, caller), 0)

    started = await invoke_persona(app, caller, "architect", TASK)

    assert started.estimated_duration_seconds == 1


async def test_a_job_keeps_what_it_was_invoked_with(app: App, caller: Caller):
    job = await invoked(app, caller, task=f"  {TASK}\n", context="def f(): …", priority="high")

    record = await using(app, caller, lambda work: run_record(work, str(job)))

    kept = record.model_dump(
        mode="json",
        exclude={"job_id": True, "created_at": True, "prompt": True, "trace": {"digest"}},
    )
    assert kept == snapshot(
        {
            "status": "pending",
            "persona": "architect",
            "persona_name": "Architect",
            "task": "Review the queue.",
            "context_bytes": 12,
            "priority": "high",
            "requested_by": "tester",
            "started_at": None,
            "finished_at": None,
            "attempts": 0,
            "retry_of": None,
            "trace": {
                "source": "core",
                "persona_spec_version": None,
                "spec_digest": None,
                "reason": "built in core persona",
            },
            "runner": "model",
            "model": "test",
            "unsandboxed": False,
            "project": None,
            "budget": {"tokens": 200000, "usd": None, "seconds": 900.0},
            "spent": {
                "input_tokens": 0,
                "output_tokens": 0,
                "usd": None,
                "estimated": False,
                "seconds": 0.0,
            },
            "standards": [],
            "steps": [],
            "proposals": [],
            "error": None,
            "error_code": None,
        }
    )


async def test_an_invocation_is_in_the_audit_log(app: App, caller: Caller):
    job = await invoked(app, caller, priority="low")

    assert await audited(app, caller) == [
        ("tester", "job.invoked", str(job), {"persona": "architect", "priority": "low"})
    ]


async def test_a_job_for_a_command_names_no_model(app: App, caller: Caller):
    app = but(app, jobs=JobSettings(model=ModelChoice("", None, command=True)))

    job = await invoked(app, caller)

    record = await using(app, caller, lambda work: run_record(work, str(job)))
    assert (record.runner, record.model) == ("command", "")


async def test_a_persona_that_there_is_not_leaves_nothing(app: App, caller: Caller):
    con = await register_persona(app, caller, name="Con", role="Dev")

    with pytest.raises(PersonaNotFound) as refused:
        await invoke_persona(app, caller, "nobody", TASK)

    assert str(refused.value).replace(con.slug, "SLUG") == snapshot(
        "No persona fits 'nobody'. Available: architect, engineer, data, qa, security, sre, SLUG."
    )
    assert await left_behind(app, caller) == NOTHING


async def test_an_archived_persona_is_refused_and_leaves_nothing(app: App, caller: Caller):
    con = await register_persona(app, caller, name="Con", role="Dev")
    await using(app, caller, lambda work: update_persona(work, con.slug, status="archived"))

    with pytest.raises(PersonaArchived):
        await invoke_persona(app, caller, con.slug, TASK)

    assert await left_behind(app, caller) == NOTHING


async def test_a_persona_that_is_archived_while_its_job_waits_runs_as_it_was_invoked(
    app: App, caller: Caller
):
    con = await register_persona(app, caller, name="Con", role="Dev")
    job = await invoked(app, caller, con.slug)
    await using(app, caller, lambda work: update_persona(work, con.slug, status="archived"))

    run = await taken(app, caller, job)
    await ended(run, "complete", result="Fine.")

    record = await using(app, caller, lambda work: run_record(work, str(job)))
    assert (record.status, record.persona) == ("complete", con.slug)
    assert "Name: Con" in record.prompt


async def test_a_persona_runs_with_the_prompt_of_its_invocation(app: App, caller: Caller):
    con = await register_persona(app, caller, name="Con", role="Dev", description="Is calm.")
    job = await invoked(app, caller, con.slug)
    await using(app, caller, lambda work: update_persona(work, con.slug, description="Shouts."))

    await taken(app, caller, job)

    record = await using(app, caller, lambda work: run_record(work, str(job)))
    assert "Is calm." in record.prompt
    assert "Shouts." not in record.prompt


async def test_a_context_of_the_largest_size_passes(app: App, caller: Caller):
    job = await invoked(app, caller, context="é" * 50_000)

    record = await using(app, caller, lambda work: run_record(work, str(job)))
    assert record.context_bytes == 100_000


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"context": "é" * 50_000 + "x"},
            snapshot(
                "context: must be at most 100,000 bytes, and has 100,001; name files instead, which the persona can read."
            ),
        ),
        ({"context": "x\0"}, snapshot("context: must not contain the NUL character.")),
        ({"task": " \n"}, snapshot("task: must not be empty or blank.")),
        ({"task": "x" * 20_001}, snapshot("task: must have at most 20000 characters.")),
        ({"task": "x\0"}, snapshot("task: must not contain the NUL character.")),
        ({"priority": "urgent"}, snapshot("priority: must be 'low', 'normal' or 'high'.")),
        ({"persona": ""}, snapshot("persona: must not be empty or blank.")),
        ({"persona": "x" * 201}, snapshot("persona: must have at most 200 characters.")),
    ],
)
async def test_values_that_break_a_rule_are_refused_and_leave_nothing(
    app: App, caller: Caller, values: dict[str, Any], sentence: str
):
    with pytest.raises(Invalid) as refused:
        await invoked(app, caller, **values)

    assert str(refused.value) == sentence
    assert await left_behind(app, caller) == NOTHING


async def test_without_a_model_nothing_runs_and_the_error_says_what_to_do(app: App, caller: Caller):
    app = but(app, jobs=JobSettings())

    with pytest.raises(ModelNotConfigured) as refused:
        await invoke_persona(app, caller, "architect", TASK)

    assert refused.value.code == "model_not_configured"
    assert str(refused.value) == snapshot(
        "No model is configured that a persona could run on. Set DRAMATIS_MODEL (e.g. `anthropic:claude-sonnet-5-5` and ANTHROPIC_API_KEY), or DRAMATIS_MODEL with DRAMATIS_MODEL_URL for an OpenAI-compatible server, or DRAMATIS_RUNNER_COMMAND (e.g. `claude -p`). Until then play the persona yourself: call become_persona with the same persona and task."
    )
    assert await left_behind(app, caller) == NOTHING


async def test_who_may_only_read_sees_jobs_and_changes_none(app: App, caller: Caller):
    job = str(await failed(app, caller))
    reader = but(caller, scopes=READ_ONLY)

    listed = await using(app, reader, list_jobs)
    assert (await status_of(app, reader, job)).status == "failed"
    assert (await using(app, reader, lambda work: run_record(work, job))).status == "failed"

    assert listed.total_count == 1
    with pytest.raises(Forbidden):
        await invoke_persona(app, reader, "architect", TASK)
    with pytest.raises(Forbidden):
        await retry_job(app, reader, job)
    verbs: list[Callable[[Work], Awaitable[object]]] = [
        lambda work: cancel_job(work, job),
        lambda work: reset_jobs(work, confirm=False),
        clean_jobs,
    ]
    for verb in verbs:
        with pytest.raises(Forbidden):
            await using(app, reader, verb)


async def test_the_job_and_its_delivery_stand_or_fall_with_the_act(
    own_app: App, owner: psycopg.Connection
):
    caller = operator(own_app)
    owner.execute("ALTER TABLE dramatis.audit_log ADD CHECK (action <> 'job.invoked')")

    with pytest.raises(IntegrityError):
        await invoke_persona(own_app, caller, "architect", TASK)

    assert await left_behind(own_app, caller) == NOTHING


async def test_a_worker_is_looked_for_when_the_job_can_be_found(
    own_app: App, owner: psycopg.Connection
):
    caller = operator(own_app)
    found: list[int] = []

    def look(queues: Collection[str] | None) -> None:
        assert queues is None
        assert threading.current_thread() is not threading.main_thread()
        found.extend(row[0] for row in owner.execute("SELECT count(*) FROM procrastinate_jobs"))

    owner.execute("SET search_path TO dramatis_queue")
    own_app = but(own_app, jobs=but(own_app.jobs, start_worker=look))

    await invoked(own_app, caller)
    with pytest.raises(PersonaNotFound):
        await invoked(own_app, caller, "nobody")

    assert found == [1]
    await look_for_worker(own_app)
    assert found == [1, 1]


@pytest.mark.parametrize("verb", ["invoke", "retry"])
@pytest.mark.parametrize("moment", ["after_begin", "after_commit"])
async def test_whoever_goes_away_meanwhile_leaves_a_job_with_a_worker(
    own_app: App, verb: str, moment: str
):
    caller = operator(own_app)
    earlier = await failed(own_app, caller)
    looked: list[str] = []

    def look(_: Collection[str] | None) -> None:
        looked.append("looked")

    app = but(own_app, jobs=but(own_app.jobs, start_worker=look))
    with anyio.CancelScope() as scope, called(moment, scope.cancel):
        if verb == "invoke":
            await invoke_persona(app, caller, "architect", TASK)
        else:
            await retry_job(app, caller, str(earlier))
        await anyio.lowlevel.checkpoint()

    assert scope.cancelled_caught
    assert looked == ["looked"]
    assert (await using(app, caller, list_jobs)).total_count == 2


@contextmanager
def called(moment: str, act: Callable[[], None]) -> Generator[None]:
    def reached(*_: object) -> None:
        act()

    event.listen(TenantSession, moment, reached)
    try:
        yield
    finally:
        event.remove(TenantSession, moment, reached)


@pytest.mark.parametrize(
    ("persona", "task", "kept"),
    [
        ("@architect", "Look.", "Look."),
        ("@architect review the queue", "Look.", "@architect review the queue\n\nLook."),
        ("review the queue, @architect", "Look.", "review the queue, @architect\n\nLook."),
        ("@architect review the queue", "", "@architect review the queue"),
        (f"@architect {'x' * 500}", "", f"@architect {'x' * 500}"),
    ],
)
async def test_words_around_a_mention_belong_to_the_task(
    app: App, caller: Caller, persona: str, task: str, kept: str
):
    job = await invoked(app, caller, persona, task=task)

    record = await using(app, caller, lambda work: run_record(work, str(job)))
    assert (record.persona, record.task) == ("architect", kept)


async def test_a_name_of_several_words_is_no_part_of_the_task(app: App, caller: Caller):
    ada = await register_persona(app, caller, name="Ada Lovelace", role="Developer")

    job = await invoked(app, caller, "@Ada Lovelace", task="Look.")

    record = await using(app, caller, lambda work: run_record(work, str(job)))
    assert (record.persona, record.task) == (ada.slug, "Look.")


async def test_where_no_worker_can_be_started_the_job_waits_and_the_answer_says_so(
    app: App, caller: Caller
):
    def refuse(_: Collection[str] | None) -> None:
        raise WorkerNotStarted("No worker can be started here.", hint="Start one by hand.")

    app = but(app, jobs=but(app.jobs, start_worker=refuse))

    started = await invoke_persona(app, caller, "architect", TASK)

    assert started.message == "No worker can be started here. Start one by hand."
    assert (await status_of(app, caller, started.job_id)).status == "pending"


async def test_a_persona_of_the_operators_folder_is_invoked_like_any_other(
    app: App, caller: Caller, tmp_path: Path
):
    (tmp_path / "poet.md").write_text(
        "---\nid: poet\nname: Poet\nsummary: For verses.\ndomain: docs\n---\n\nYou write verses.\n"
    )
    app = but(app, jobs=but(app.jobs, personas=tmp_path))

    job = await invoked(app, caller, "@poet a verse")

    record = await using(app, caller, lambda work: run_record(work, str(job)))
    assert (record.persona, record.persona_name) == ("poet", "Poet")
    assert record.prompt.startswith("You write verses.\n")
