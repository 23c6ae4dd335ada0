"""Jobs of personas as tasks, with the person in front of the client asked while they run."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import anyio
import pytest
from dirty_equals import IsDatetime, IsPartialDict, IsStr
from mcp import Client
from mcp.client import ClaimContext, ClientExtension, ResultClaim, advertise
from mcp.types import INVALID_PARAMS, CallToolResult
from sqlalchemy import select

from db.tables import DecisionRow
from server import access
from server.jobs.reporting import JobReporting
from server.jobs.starting import WorkerNotStarted
from server.standards.proposals import Proposed
from server.standards.service import revise_proposal
from server.surfaces.mcp.server import Dramatis, build
from server.surfaces.mcp.tasks import TASKS
from server.work import App, Caller
from tests.conftest import Opened, but
from tests.jobs.conftest import begun, configured, ended, invoked
from tests.jobs.test_following import propose
from tests.jobs.workers import working
from tests.standards.conftest import (
    FLAKY,
    Project,
    agent_of,
    person_of,
    proposed,
    rejected,
    shown,
    using,
)
from tests.surfaces.conftest import Person
from tests.surfaces.test_mcp_jobs import FINE, Told
from tests.surfaces.test_mcp_tasks import Created, refused, sent
from tests.surfaces.test_mcp_tools import called

pytestmark = pytest.mark.anyio

TASK = "Review the queue."
FLAKY_TESTS = "standard://testing/flaky-tests"
APPROVE = {"action": "accept", "content": {"decision": "approve"}}
UNEXPLAINED = {"action": "accept", "content": {"decision": "approve", "feedback": ""}}
CHANGE = {"action": "accept", "content": {"decision": "ask for changes", "feedback": "Why?"}}
NO = {"action": "decline"}
AWAY = {"action": "cancel"}


@pytest.fixture
def app(placed: App) -> App:
    return configured(placed)


@pytest.fixture
def server(app: App) -> Dramatis:
    return build(Opened(app), toolsets=["jobs", "standards"])


@pytest.fixture
async def client(server: Dramatis) -> AsyncIterator[Client]:
    """A client that takes tasks and shows forms."""
    async with Client(
        server, cache=None, extensions=[advertise(TASKS)], elicitation_callback=Person()
    ) as client:
        yield client


@pytest.fixture
async def run(app: App, caller: Caller) -> JobReporting:
    return await begun(app, caller)


async def task(client: Client, job_id: UUID) -> dict[str, Any]:
    return await sent(client.session, "tasks/get", taskId=str(job_id))


async def key_of(client: Client, job_id: UUID, made: Proposed) -> str:
    """Have a proposal asked about, and return under which key it is."""
    found = await task(client, job_id)
    (key,) = [one for one in found["inputRequests"] if one.startswith(f"proposal-{made.id}-")]
    return key


async def answered(client: Client, job_id: UUID, answers: dict[str, Any]) -> dict[str, Any]:
    """Answer open questions, and return how the task is then."""
    params = {"taskId": str(job_id), "inputResponses": answers}
    assert await sent(client.session, "tasks/update", **params) == {"resultType": "complete"}
    return await task(client, job_id)


async def not_taken(client: Client, job_id: UUID, answers: dict[str, Any]) -> str:
    """Answer what cannot be answered so, and return what is said to that."""
    error = await refused(client, "tasks/update", taskId=str(job_id), inputResponses=answers)
    assert error.code == INVALID_PARAMS
    return error.message


def command_of(made: Proposed) -> str:
    return f"`dramatis standards review {made.id}` shows it."


class Following(ClientExtension):
    """Polls a task until it has ended, and answers every question alike."""

    identifier = TASKS

    def __init__(self, runner: Told, answer: dict[str, Any]) -> None:
        self._runner = runner
        self._answer = answer
        self.seen: list[str] = []

    def claims(self) -> list[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=Created, resolve=self._follow)]

    async def _follow(self, created: Created, ctx: ClaimContext) -> CallToolResult:
        await self._runner.began.wait()
        while True:
            found = await sent(ctx.session, "tasks/get", taskId=created.task_id)
            if found["status"] not in self.seen:
                self.seen.append(found["status"])
            match found["status"]:
                case "completed":
                    return CallToolResult.model_validate(found["result"])
                case "input_required":
                    answers = dict.fromkeys(found["inputRequests"], self._answer)
                    params = {"taskId": created.task_id, "inputResponses": answers}
                    await sent(ctx.session, "tasks/update", **params)
                case _:
                    self._runner.may_end.set()


class Beginning(ClientExtension):
    """Notes what a task begins with, and does not follow it."""

    identifier = TASKS
    message = ""

    def claims(self) -> list[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=Created, resolve=self._note)]

    async def _note(self, created: Created, ctx: ClaimContext) -> CallToolResult:
        self.message = created.model_dump(by_alias=True)["statusMessage"]
        return CallToolResult(content=[], is_error=True)


async def test_an_invocation_is_a_task_that_asks_and_ends_with_the_result(
    own_app: App, project: Project
):
    app = but(configured(own_app), place=project.place)
    made = await proposed(app, agent_of(app, "architect"))
    runner = Told({"proposal_id": made.id})
    following = Following(runner, APPROVE)
    server = build(Opened(app), toolsets=["jobs"])

    async with (
        working(app, runner),
        Client(server, cache=None, extensions=[following], elicitation_callback=Person()) as client,
    ):
        with anyio.fail_after(20):
            result = await client.call_tool("invoke_persona", {"persona": "qa", "task": TASK})

    assert following.seen == ["input_required", "working", "completed"]
    assert result.structured_content == IsPartialDict(
        status="complete", persona="qa", result=FINE, tool_calls_made=1
    )
    assert project.read("testing/flaky-tests.md").endswith(FLAKY)


async def test_a_task_tells_how_its_job_goes(client: Client, app: App, run: JobReporting):
    waiting = await task(client, await invoked(app, run.caller))
    await run.progress("analyzing", 40, "reading the code")
    running = await task(client, run.job_id)
    await ended(run, "complete", result="Fine.")
    done = await task(client, run.job_id)

    assert waiting == IsPartialDict(status="working", statusMessage=IsStr(regex="Waiting: .*"))
    assert running == {
        "taskId": str(run.job_id),
        "status": "working",
        "createdAt": IsDatetime(iso_string=True),
        "lastUpdatedAt": IsDatetime(iso_string=True),
        "ttlMs": 604_800_000,
        "pollIntervalMs": 2000,
        "statusMessage": "reading the code",
        "resultType": "complete",
    }
    assert "statusMessage" not in done
    assert done["result"] == {
        "content": [{"type": "text", "text": IsStr(regex=r'(?s)\{\n  "status": "complete",.*')}],
        "structuredContent": IsPartialDict(status="complete", result="Fine."),
        "isError": False,
        "resultType": "complete",
        "_meta": IsPartialDict({"dramatis/trace": IsPartialDict(source="core")}),
    }


@pytest.mark.parametrize(
    ("partial", "written"), [("", []), ("So far", ["What it wrote until then:\n\nSo far"])]
)
async def test_a_job_that_failed_is_a_task_that_completed_with_a_tools_error(
    client: Client, run: JobReporting, partial: str, written: list[str]
):
    await run.text(partial)
    await run.write()
    await ended(run, "failed", error="It broke.", error_code="run_failed")

    found = await task(client, run.job_id)

    texts = [
        f"architect failed: It broke.\nIts job_id is {run.job_id}: retry_persona_job runs it again,"
        " get_persona_run says why it failed.",
        *written,
    ]
    assert found["status"] == "completed"
    assert found["result"] == {
        "content": [{"type": "text", "text": text} for text in texts],
        "isError": True,
        "resultType": "complete",
    }


async def test_cancelling_a_task_cancels_its_job(client: Client, run: JobReporting):
    acknowledged = await sent(client.session, "tasks/cancel", taskId=str(run.job_id))
    found = await task(client, run.job_id)
    again = await sent(client.session, "tasks/cancel", taskId=str(run.job_id))

    assert acknowledged == again == {"resultType": "complete"}
    assert (found["status"], "result" in found) == ("cancelled", False)


@pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel"])
@pytest.mark.parametrize("task_id", ["nonsense", str(UUID(int=1))])
async def test_what_is_no_job_is_no_task(client: Client, method: str, task_id: str):
    error = await refused(client, method, taskId=task_id, inputResponses={})

    assert error.code == INVALID_PARAMS


async def test_a_proposal_of_the_run_is_asked_about_with_the_form_for_standards(
    client: Client, app: App, run: JobReporting
):
    made = await propose(app, run)

    found = await task(client, run.job_id)

    assert found["status"] == "input_required"
    ((key, asked),) = found["inputRequests"].items()
    assert key == IsStr(regex=rf"proposal-{made.id}-[\w-]{{22}}")
    assert asked == {
        "method": "elicitation/create",
        "params": {
            "mode": "form",
            "message": IsStr(regex="(?s)Make this a standard for everybody .*│ # Flaky tests.*"),
            "requestedSchema": IsPartialDict(
                properties={
                    "decision": IsPartialDict(default="approve"),
                    "feedback": IsPartialDict(default=""),
                }
            ),
        },
    }


@pytest.mark.parametrize("answer", [APPROVE, UNEXPLAINED])
async def test_a_yes_makes_it_a_standard_in_the_persons_name(
    client: Client, app: App, run: JobReporting, project: Project, answer: dict[str, Any]
):
    made = await propose(app, run)
    key = await key_of(client, run.job_id, made)

    found = await answered(client, run.job_id, {key: answer})

    async with app.work(run.caller) as work:
        (decision,) = await work.session.scalars(select(DecisionRow))
    assert found["status"] == "working"
    assert (decision.person, decision.channel, decision.digest) == (
        access.login_name(),
        "elicitation",
        made.digest,
    )
    assert project.read("testing/flaky-tests.md").endswith(FLAKY)


@pytest.mark.parametrize("answer", [NO, AWAY])
async def test_whoever_does_not_decide_is_not_asked_again(
    client: Client, app: App, run: JobReporting, answer: dict[str, Any]
):
    made = await propose(app, run)
    key = await key_of(client, run.job_id, made)

    found = await answered(client, run.job_id, {key: answer})

    assert found["status"] == "working"
    assert (await shown(app, run.caller, made.id)).status == "draft"


async def test_whoever_left_it_open_may_still_say_yes(
    client: Client, app: App, run: JobReporting, project: Project
):
    key = await key_of(client, run.job_id, await propose(app, run))
    await answered(client, run.job_id, {key: NO})

    await answered(client, run.job_id, {key: APPROVE})

    assert project.read("testing/flaky-tests.md").endswith(FLAKY)


async def test_a_question_keeps_its_key_until_it_is_answered_and_no_key_can_be_worked_out(
    client: Client, server: Dramatis, app: App, run: JobReporting, project: Project
):
    made = await propose(app, run)
    first = await key_of(client, run.job_id, made)
    second = await key_of(client, run.job_id, made)
    async with Client(
        build(Opened(app), toolsets=["jobs"]),
        cache=None,
        extensions=[advertise(TASKS)],
        elicitation_callback=Person(),
    ) as other:
        elsewhere = await key_of(other, run.job_id, made)

    keys = [elsewhere, f"proposal-{made.id}", f"proposal-{made.id}-{made.digest}"]
    found = await answered(client, run.job_id, dict.fromkeys(keys, APPROVE))

    assert first == second != elsewhere
    assert [*found["inputRequests"]] == [first]
    assert project.files() == []


async def test_a_question_of_one_task_is_not_answered_through_another(
    client: Client, app: App, run: JobReporting, project: Project
):
    key = await key_of(client, run.job_id, await propose(app, run))
    other = await begun(app, run.caller)

    await answered(client, other.job_id, {key: APPROVE})

    assert project.files() == []


@pytest.mark.parametrize(
    "answer",
    [
        "yes",
        None,
        {"action": "accept"},
        {"action": "accept", "content": {}},
        {"action": "accept", "content": {"x": 1}},
        {"action": "accept", "content": {"feedback": ""}},
        {"action": "accept", "content": {"decision": "approve", "x": 1}},
        {"action": "accept", "content": {"decision": "x"}},
    ],
)
async def test_what_is_no_answer_to_the_form_is_refused_and_asked_anew(
    client: Client, app: App, run: JobReporting, answer: object
):
    made, other = await propose(app, run), await propose(app, run, "other")
    key = await key_of(client, run.job_id, made)
    left = await key_of(client, run.job_id, other)

    said = await not_taken(client, run.job_id, {key: answer, left: NO, "unknown": APPROVE})
    found = await task(client, run.job_id)

    assert said.startswith(
        f"answer_not_taken: That is no answer to the form about proposal {made.id}. "
        f"{command_of(made)}"
    )
    (anew,) = found["inputRequests"]
    assert anew.startswith(f"proposal-{made.id}-")
    assert anew != key


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"decision": "reject"}, "Nothing was decided: the user would reject, not why."),
        (
            {"decision": "approve", "feedback": "Not so."},
            "Nothing was decided: the user approved and gave feedback.",
        ),
        ({"decision": "reject", "feedback": "x" * 5_001}, "feedback: must have at most 5000 char"),
    ],
)
async def test_an_answer_that_is_no_clear_decision_is_refused_and_asked_anew(
    client: Client, app: App, run: JobReporting, content: dict[str, Any], why: str
):
    made = await propose(app, run)
    key = await key_of(client, run.job_id, made)

    said = await not_taken(client, run.job_id, {key: {"action": "accept", "content": content}})
    again = await key_of(client, run.job_id, made)
    await answered(client, run.job_id, {again: APPROVE})

    assert said.startswith(f"answer_not_taken: {why}")
    assert command_of(made) in said
    assert again != key
    assert (await shown(app, run.caller, made.id)).status == "approved"


async def test_a_yes_to_what_was_revised_meanwhile_is_refused_and_the_revision_asked_about(
    client: Client, app: App, run: JobReporting, project: Project
):
    made = await propose(app, run)
    key = await key_of(client, run.job_id, made)
    await using(
        app,
        agent_of(app),
        lambda work: revise_proposal(work, made.id, content=f"{FLAKY}\nSleep."),
    )

    said = await not_taken(client, run.job_id, {key: APPROVE})

    assert said.startswith(f"answer_not_taken: Proposal {made.id} was revised since it was shown")
    assert command_of(made) in said
    assert await key_of(client, run.job_id, made) != key
    assert project.files() == []


async def test_a_revision_that_was_asked_for_is_asked_about_anew(
    client: Client, app: App, run: JobReporting
):
    made = await propose(app, run)
    key = await key_of(client, run.job_id, made)
    changes = await answered(client, run.job_id, {key: CHANGE})
    await using(
        app,
        agent_of(app),
        lambda work: revise_proposal(work, made.id, content=f"{FLAKY}\nSleep."),
    )

    assert changes["status"] == "working"
    assert await key_of(client, run.job_id, made) != key


async def test_a_text_that_changes_around_a_proposal_is_another_question(
    client: Client, app: App, run: JobReporting, project: Project
):
    made = await propose(app, run)
    before = await key_of(client, run.job_id, made)
    await proposed(app, agent_of(app, "qa"), content="Delete it.")

    after = await key_of(client, run.job_id, made)
    await answered(client, run.job_id, {before: APPROVE})

    assert before != after
    assert project.read("testing/flaky-tests.md").endswith(FLAKY)


async def test_what_cannot_be_carried_out_does_not_keep_the_rest_from_it(
    client: Client, app: App, run: JobReporting, project: Project
):
    made = [await propose(app, run, topic) for topic in ("one", "two", "three")]
    keys = [await key_of(client, run.job_id, one) for one in made]
    await rejected(app, person_of(app), made[0].id, "No.")
    project.write("testing/two.md", "By hand.")

    said = await not_taken(client, run.job_id, dict.fromkeys(keys, APPROVE))

    assert [command_of(one) in said for one in made] == [True, True, False]
    assert f"Proposal {made[0].id} is rejected already" in said
    assert "two.md has changed since this was proposed, so nothing was approved" in said
    assert project.files() == ["testing/three.md", "testing/two.md"]


@pytest.mark.parametrize("status", ["complete", "cancelled"])
async def test_an_answer_counts_also_when_the_job_has_ended_meanwhile(
    client: Client, app: App, run: JobReporting, project: Project, status: Any
):
    key = await key_of(client, run.job_id, await propose(app, run))
    await ended(run, status)

    found = await answered(client, run.job_id, {key: APPROVE})

    assert found["status"] == {"complete": "completed"}.get(status, status)
    assert project.read("testing/flaky-tests.md").endswith(FLAKY)


async def test_an_answer_that_is_sent_again_is_acknowledged_again(
    client: Client, app: App, run: JobReporting
):
    made = await propose(app, run)
    key = await key_of(client, run.job_id, made)
    await answered(client, run.job_id, {key: APPROVE})

    found = await answered(client, run.job_id, {key: UNEXPLAINED})
    said = await not_taken(client, run.job_id, {key: CHANGE})

    assert found["status"] == "working"
    assert f"Proposal {made.id} is approved already" in said


@pytest.mark.parametrize("key", ["proposal-1", "unknown"])
async def test_what_was_never_asked_is_not_answered(
    client: Client, app: App, run: JobReporting, project: Project, key: str
):
    made = await propose(app, run)
    await ended(run, "complete", result="Fine.")

    found = await answered(client, run.job_id, {key: APPROVE})

    assert found["status"] == "completed"
    assert (await shown(app, run.caller, made.id)).status == "draft"
    assert project.files() == []


async def test_a_client_that_shows_no_forms_is_not_asked(
    server: Dramatis, app: App, run: JobReporting, project: Project
):
    made = await propose(app, run)
    async with Client(server, cache=None, extensions=[advertise(TASKS)]) as client:
        found = await answered(client, run.job_id, {f"proposal-{made.id}-{made.digest}": APPROVE})

    assert found["status"] == "working"
    assert (await shown(app, run.caller, made.id)).status == "draft"
    assert project.files() == []


async def test_clients_hear_of_an_approval_in_a_task(client: Client, app: App, run: JobReporting):
    key = await key_of(client, run.job_id, await propose(app, run))

    with anyio.fail_after(10):
        async with client.listen(
            resource_subscriptions=[FLAKY_TESTS], resources_list_changed=True
        ) as events:
            await answered(client, run.job_id, {key: APPROVE})
            heard = [await anext(events), await anext(events)]

    assert [getattr(event, "uri", "list_changed") for event in heard] == [
        "list_changed",
        FLAKY_TESTS,
    ]


async def test_a_task_begins_with_what_its_handle_says(app: App):
    def refuse(_: object) -> None:
        raise WorkerNotStarted("No worker can be started here.")

    following = Beginning()
    app = but(app, jobs=but(app.jobs, start_worker=refuse))
    async with Client(
        build(Opened(app), toolsets=["jobs"]), cache=None, extensions=[following]
    ) as client:
        await client.call_tool("invoke_persona", {"persona": "qa", "task": TASK})

    assert following.message == "No worker can be started here."


async def test_a_proposal_that_is_too_long_for_a_form_is_left_to_the_command_line(
    client: Client, app: App, run: JobReporting
):
    made = await propose(app, run)
    await using(
        app,
        agent_of(app),
        lambda work: revise_proposal(work, made.id, content=f"{FLAKY}\n" + "Do it.\n" * 300),
    )

    assert (await task(client, run.job_id))["status"] == "working"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_for_everybody_else_it_is_a_handle(server: Dramatis, mode: Any):
    async with Client(server, mode=mode, cache=None) as client:
        started = await called(client, "invoke_persona", persona="qa", task=TASK)

    assert started["status"] == "started"
