"""The toolsets of jobs and of core personas, in both protocol eras; the rules are in tests/jobs."""

import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
from dirty_equals import IsDatetime, IsFloat, IsPartialDict, IsStr, IsUUID
from inline_snapshot import snapshot
from mcp import Client
from mcp.server.subscriptions import InMemorySubscriptionBus
from pydantic import JsonValue

from db.session import connect
from server.jobs.core_personas import read_core_personas
from server.jobs.running import Outcome, Reporting, RunJob
from server.jobs.shapes import Step
from server.personas.service import register_persona
from server.serving import take_up_jobs
from server.surfaces.mcp.audience import Audience
from server.surfaces.mcp.core_personas import CORE
from server.surfaces.mcp.server import build
from server.surfaces.mcp.tasks import JOB, MESSAGE, TASKS
from server.work import App, Caller, JobSettings
from tests.conftest import Opened, but, operator
from tests.jobs.conftest import begun, completed, configured, ended, failed, invoked, taken
from tests.jobs.workers import working
from tests.standards.conftest import Project
from tests.surfaces.test_mcp_tools import called, refused, said

pytestmark = pytest.mark.anyio

TASK = "Review the queue."
FINE = "Fine, but name the queue."
JOBS = ["jobs", "core-personas"]
TRACE = {
    "source": "core",
    "persona_spec_version": None,
    "spec_digest": None,
    "digest": IsStr(regex="[0-9a-f]{64}"),
    "reason": "built in core persona",
}


@dataclass
class Told:
    """A runner that tells something, and answers when it may."""

    details: dict[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    began: anyio.Event = field(default_factory=anyio.Event)
    may_end: anyio.Event = field(default_factory=anyio.Event)

    async def __call__(self, job: RunJob, reporting: Reporting) -> Outcome:
        await reporting.progress("analyzing", 40, "reading the code")
        await reporting.text("So far")
        await reporting.step(
            Step(
                attempt=job.attempt,
                kind="tool",
                name="propose_standard",
                began_at=datetime.now(UTC),
                duration_ms=1,
                details=self.details,
            )
        )
        self.began.set()
        await self.may_end.wait()
        return Outcome(FINE, 120, 30, usd=None)


@pytest.fixture
def app(placed: App) -> App:
    return configured(placed)


@pytest.fixture
async def agent(app: App, each_era: Any) -> AsyncIterator[Client]:
    async with Client(build(Opened(app), toolsets=JOBS), mode=each_era, cache=None) as client:
        # From then on the SDK checks every answer against its published schema.
        await client.list_tools()
        yield client


async def checked(client: Client, job_id: object) -> Any:
    return await called(client, "check_persona_job", job_id=str(job_id))


async def test_an_invocation_runs_in_a_worker_and_is_followed_to_its_result(
    own_app: App, project: Project, each_era: Any
):
    app, runner = but(configured(own_app), place=project.place), Told()
    server = build(Opened(app), toolsets=JOBS)
    async with working(app, runner), Client(server, mode=each_era, cache=None) as client:
        await client.list_tools()
        started = await called(client, "invoke_persona", persona="architect", task=TASK)
        with anyio.fail_after(10):
            await runner.began.wait()
            runner.may_end.set()
            asked = {"job_id": started["job_id"], "wait_seconds": 50}
            answer = await client.call_tool("check_persona_job", asked)
            run = await called(
                client, "get_persona_run", job_id=started["job_id"], include_prompt=True
            )

    assert answer.structured_content == {
        "status": "complete",
        "job_id": started["job_id"],
        "persona": "architect",
        "result": FINE,
        "duration_seconds": IsFloat(ge=0),
        "tool_calls_made": 1,
        "tokens_used": {"input": 120, "output": 30},
    }
    assert answer.meta == IsPartialDict({"dramatis/trace": TRACE})
    assert run == IsPartialDict(
        status="complete", task=TASK, attempts=1, prompt=IsStr(regex="(?s).*Architect.*")
    )
    assert [(step["kind"], step["name"]) for step in run["steps"]] == [("tool", "propose_standard")]


async def test_whoever_waits_is_shown_progress_that_rises(own_app: App, each_era: Any):
    app = configured(own_app)
    job_id = await invoked(app, operator(app))
    shown: list[tuple[float, float | None, str | None]] = []
    seen = {0: anyio.Event(), 40: anyio.Event()}

    async def show(progress: float, total: float | None, message: str | None) -> None:
        shown.append((progress, total, message))
        seen[round(progress)].set()

    async def run() -> None:
        await seen[0].wait()
        running = await taken(app, operator(app), job_id)
        await running.progress("analyzing", 40, "reading the code")
        await seen[40].wait()
        await ended(running, "complete", result=FINE)

    server = build(Opened(app), toolsets=["jobs"])
    async with (
        Client(server, mode=each_era, cache=None) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(run)
        asked = {"job_id": str(job_id), "wait_seconds": 50}
        with anyio.fail_after(10):
            result = await client.call_tool("check_persona_job", asked, progress_callback=show)
            assert result.structured_content == IsPartialDict(status="complete")

    assert shown == [(0, 100, IsStr(regex="Waiting: .*")), (40, 100, "reading the code")]


async def test_whoever_waits_in_vain_is_told_once_for_what_they_wait(
    agent: Client, app: App, caller: Caller
):
    shown: list[tuple[float, float | None, str | None]] = []

    async def show(progress: float, total: float | None, message: str | None) -> None:
        shown.append((progress, total, message))

    asked = {"job_id": str(await invoked(app, caller)), "wait_seconds": 1}
    result = await agent.call_tool("check_persona_job", asked, progress_callback=show)

    assert result.structured_content == IsPartialDict(status="pending")
    assert shown == [(0, 100, "Waiting: next in the queue.")]


async def test_a_job_that_is_cancelled_while_it_runs_keeps_its_text(own_app: App, each_era: Any):
    app, runner = configured(own_app), Told()
    server = build(Opened(app), toolsets=JOBS)
    async with working(app, runner), Client(server, mode=each_era, cache=None) as client:
        started = await called(client, "invoke_persona", persona="qa", task=TASK)
        with anyio.fail_after(10):
            await runner.began.wait()
        cancelled = await called(client, "cancel_persona_job", job_id=started["job_id"])
        runner.may_end.set()
        again = await called(client, "cancel_persona_job", job_id=started["job_id"])

    assert cancelled == {
        "status": "cancelled",
        "job_id": started["job_id"],
        "partial_result": "So far",
        "message": IsStr(regex=r"Job cancelled after \d+ seconds\."),
    }
    assert again == cancelled | {
        "status": "already_finished",
        "partial_result": None,
        "message": "The job is cancelled already.",
    }


async def test_invoking_answers_with_a_handle(agent: Client):
    result = await agent.call_tool("invoke_persona", {"persona": "qa", "task": TASK})

    assert result.structured_content == {
        "status": "started",
        "job_id": IsUUID(4),
        "persona": "qa",
        "estimated_duration_seconds": 60,
        "poll_command": IsStr(
            regex=r'check_persona_job\(job_id="[0-9a-f-]{36}", wait_seconds=50\)'
        ),
        "message": IsStr(regex=r"QA works in the background\. .*"),
    }
    assert result.meta == IsPartialDict(
        {
            JOB: result.structured_content["job_id"],
            MESSAGE: result.structured_content["message"],
            "dramatis/trace": TRACE,
        }
    )
    assert said(result).startswith('{\n  "status": "started",\n')


async def test_each_status_has_the_fields_that_it_is_to_have(
    agent: Client, app: App, caller: Caller
):
    waiting = await invoked(app, caller, "qa")
    pending = await checked(agent, waiting)
    await called(agent, "cancel_persona_job", job_id=str(waiting))
    run = await begun(app, caller, "qa")
    await run.progress("generating", 50, "writing")
    await run.text("So far")
    await run.write()
    running = await checked(agent, run.job_id)
    await ended(run, "failed", error="It broke.", error_code="run_failed")

    assert running == {
        "status": "running",
        "job_id": str(run.job_id),
        "persona": "qa",
        "progress": {
            "phase": "generating",
            "percent_complete": 50,
            "message": "writing",
            "eta_seconds": None,
            "tool_calls_completed": 0,
        },
        "elapsed_seconds": IsFloat(ge=0),
    }
    assert await checked(agent, run.job_id) == {
        "status": "failed",
        "job_id": str(run.job_id),
        "persona": "qa",
        "error": "It broke.",
        "partial_result": "So far",
        "elapsed_seconds": IsFloat(ge=0),
    }
    assert pending == {
        "status": "pending",
        "job_id": str(waiting),
        "persona": "qa",
        "position": 1,
        "elapsed_seconds": IsFloat(ge=0),
        "message": "Waiting: next in the queue.",
    }
    assert await checked(agent, waiting) == {
        "status": "cancelled",
        "job_id": str(waiting),
        "persona": "qa",
        "partial_result": None,
        "elapsed_seconds": IsFloat(ge=0),
    }
    assert await checked(agent, "nonsense") == {
        "status": "not_found",
        "job_id": "nonsense",
        "persona": "",
        "message": IsStr(regex=r".*may have expired.*"),
    }


async def test_jobs_are_listed_counted_retried_and_removed(agent: Client, app: App, caller: Caller):
    done = await completed(app, caller)
    broken = await failed(app, caller, "qa")

    listed = await called(agent, "list_persona_jobs", status="failed", persona=None, limit=1)
    retried = await called(agent, "retry_persona_job", job_id=str(broken))
    counted = await called(agent, "persona_database_stats")
    unsure = await called(agent, "reset_persona_jobs")
    removed = await called(agent, "reset_persona_jobs", confirm=True)

    assert listed == {
        "jobs": [
            {
                "job_id": str(broken),
                "persona": "qa",
                "status": "failed",
                "task": TASK,
                "created_at": IsDatetime(iso_string=True),
                "duration_seconds": IsFloat(ge=0),
            }
        ],
        "total_count": 2,
        "filtered_count": 1,
    }
    assert retried == IsPartialDict(status="started", persona="qa")
    assert counted == {
        "database_size_mb": IsFloat(gt=0),
        "total_jobs": 3,
        "jobs_by_status": {"complete": 1, "failed": 1, "pending": 1},
        "oldest_job_days": 0,
        "next_cleanup": IsDatetime(iso_string=True),
        "cleanup_recommendation": "healthy",
    }
    assert (unsure["status"], unsure["jobs_deleted"]) == ("confirmation_needed", 0)
    assert (removed["status"], removed["jobs_deleted"]) == ("reset", 3)
    assert (await checked(agent, done))["status"] == "not_found"


async def test_a_registered_persona_is_invoked_by_name_with_what_belongs_to_the_task(
    agent: Client, app: App, caller: Caller
):
    con = await register_persona(app, caller, name="Con", role="developer")

    started = await called(
        agent, "invoke_persona", persona="@con", task=TASK, context="def f(): pass", priority="high"
    )
    run = await called(agent, "get_persona_run", job_id=started["job_id"])

    assert (run["persona"], run["context_bytes"], run["priority"]) == (con.slug, 13, "high")


@pytest.mark.parametrize("tool", ["invoke_persona", "invoke_qa"])
@pytest.mark.parametrize("left_out", ["", None])
async def test_a_priority_that_is_left_out_is_the_normal_one(
    agent: Client, tool: str, left_out: str | None
):
    who = {"persona": "qa"} if tool == "invoke_persona" else {}

    started = await called(agent, tool, task=TASK, priority=left_out, **who)
    run = await called(agent, "get_persona_run", job_id=started["job_id"])

    assert run["priority"] == "normal"


async def test_the_prompt_is_in_the_record_of_a_run_for_whoever_asks_for_it(agent: Client):
    started = await called(agent, "invoke_persona", persona="qa", task=TASK)

    brief = await called(agent, "get_persona_run", job_id=started["job_id"])
    whole = await called(agent, "get_persona_run", job_id=started["job_id"], include_prompt=True)

    assert brief == whole | {"prompt": ""}
    assert whole["prompt"].startswith("You are QA")


@pytest.mark.parametrize("core_id", CORE)
async def test_each_core_persona_is_invoked_by_a_tool_of_its_own(agent: Client, core_id: str):
    started = await called(agent, f"invoke_{core_id}", task=TASK, context=None, priority="low")
    run = await called(agent, "get_persona_run", job_id=started["job_id"])

    assert (run["persona"], run["persona_name"], run["priority"]) == (
        core_id,
        CORE[core_id][0],
        "low",
    )


def test_the_tools_of_core_personas_say_what_the_prompt_files_say():
    shipped = read_core_personas(None).personas

    assert {one.id: (one.name, one.summary) for one in shipped} == CORE


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        (
            "invoke_persona",
            {"persona": "nobody", "task": TASK},
            "persona_not_found: No persona fits 'nobody'. Available: architect, engineer, data, qa,"
            " security, sre.",
        ),
        ("invoke_qa", {"task": " "}, "invalid: task: must not be empty or blank."),
        (
            "invoke_qa",
            {"task": TASK, "context": "x" * 100_001},
            "invalid: context: must be at most 100,000 bytes, and has 100,001; name files instead,"
            " which the persona can read.",
        ),
        (
            "check_persona_job",
            {"job_id": "x", "wait_seconds": 51},
            "invalid: wait_seconds: must be less than or equal to 50.",
        ),
        (
            "invoke_qa",
            {"task": TASK, "priority": "urgent"},
            "invalid: priority: must be 'low', 'normal' or 'high'.",
        ),
        (
            "get_persona_run",
            {"job_id": "x"},
            "job_not_found: There is no job with this id; it may have expired. list_persona_jobs"
            " has those there are.",
        ),
    ],
)
async def test_what_cannot_be_is_refused_with_what_to_do(
    agent: Client, tool: str, arguments: dict[str, Any], message: str
):
    assert await refused(agent, tool, **arguments) == f"Error executing tool {tool}: {message}"


async def test_without_a_model_the_agent_is_told_how_to_play_the_persona_itself(
    app: App, each_era: Any
):
    server = build(Opened(but(app, jobs=JobSettings())), toolsets=["jobs"])
    async with Client(server, mode=each_era, cache=None) as client:
        message = await refused(client, "invoke_persona", persona="qa", task=TASK)
        offered = {tool.name for tool in (await client.list_tools()).tools}

    assert message.startswith("Error executing tool invoke_persona: model_not_configured: ")
    assert "call become_persona" in message
    assert "become_persona" in offered


async def test_a_read_only_server_follows_jobs_and_starts_none(app: App):
    server = build(Opened(app), toolsets=JOBS, read_only=True)
    async with Client(server, cache=None) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]

    assert names == snapshot(
        [
            "check_persona_job",
            "list_persona_jobs",
            "get_persona_run",
            "persona_database_stats",
            "become_persona",
        ]
    )


@pytest.mark.parametrize(
    ("toolset", "read_only", "offered"),
    [
        ("jobs", False, True),
        ("core-personas", False, True),
        ("jobs", True, False),
        ("personas", False, False),
    ],
)
async def test_tasks_are_offered_where_a_tool_starts_a_job(
    app: App, toolset: str, read_only: bool, offered: bool
):
    server = build(Opened(app), toolsets=[toolset], read_only=read_only)
    async with Client(server, cache=None) as client:
        extensions = client.server_capabilities.extensions or {}

    assert (TASKS in extensions) is offered


class Companion:
    """Notes that it ran, and with what effect."""

    def __init__(self) -> None:
        self.calls = 0
        self.ended = anyio.Event()

    def start_worker(self, _: object) -> None:
        self.calls += 1

    async def __call__(self, app: App, audience: Any) -> None:
        await take_up_jobs(but(app, jobs=but(app.jobs, start_worker=self.start_worker)), audience)
        self.ended.set()


@pytest.mark.parametrize(("waiting", "calls"), [(True, 1), (False, 0)])
async def test_a_server_that_starts_calls_a_worker_for_jobs_that_have_none(
    app: App, caller: Caller, waiting: bool, calls: int
):
    if waiting:
        await invoked(app, caller)
    companion = Companion()

    async with Client(build(Opened(app), toolsets=["jobs"], take_up=companion), cache=None) as one:
        await one.list_tools()
        with anyio.fail_after(5):
            await companion.ended.wait()

    assert companion.calls == calls


async def test_a_database_that_is_away_ends_the_look_for_jobs_and_not_the_server(
    app: App, caplog: pytest.LogCaptureFixture
):
    away = connect("postgresql://me@127.0.0.1:1/none", pool_size=1)

    await take_up_jobs(but(app, database=away), Audience(InMemorySubscriptionBus()))

    assert "no worker was looked for: The database does not answer." in caplog.text


async def test_a_server_that_starts_no_jobs_calls_no_worker(app: App, caller: Caller):
    await invoked(app, caller)
    companion = Companion()

    async with Client(build(Opened(app), take_up=companion), cache=None) as client:
        await called(client, "list_personas")

    assert not companion.ended.is_set()


def test_serving_jobs_loads_nothing_of_what_runs_them():
    code = (
        "import sys, server.serving; _, surface = server.serving._import_surface();"
        "[surface.TOOLSETS[name] for name in ('jobs', 'core-personas')];"
        "import server.surfaces.mcp.job_tasks; light = set(sys.modules);"
        "import server.app, server.jobs.following, server.jobs.record;"
        "print(*sorted(name.partition('.')[0] for name in light));"
        "print(*sorted(name.partition('.')[0] for name in sys.modules))"
    )

    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    ready, working = (set(line.split()) for line in loaded.stdout.splitlines())
    assert ready & {"sqlalchemy", "psycopg", "jinja2"} == set()
    assert working & {"procrastinate", "pydantic_ai", "openai", "pathspec"} == set()
