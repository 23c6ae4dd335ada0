"""A job becomes a task for clients that take tasks, and stays a handle for all others."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Any, Literal

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot
from mcp import Client, MCPError
from mcp.client import ClaimContext, ClientExtension, ResultClaim, advertise
from mcp.client.session import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer
from mcp.server.mcpserver import Elicit, Resolve
from mcp.types import (
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CallToolResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    ErrorData,
    InputRequest,
    Request,
    Result,
    TextContent,
)
from pydantic import BaseModel, ConfigDict, JsonValue

from server.errors import DramatisError, Forbidden, Unavailable
from server.surfaces.mcp import toolset
from server.surfaces.mcp.tasks import JOB, TASKS, Tasks, TaskState, envelope, outcome

pytestmark = pytest.mark.anyio

URL = "http://127.0.0.1:8000"
NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
WORKING = TaskState(
    task_id="job-1",
    status="working",
    created_at=NOON,
    last_updated_at=NOON + timedelta(milliseconds=1500),
    ttl_ms=None,
    poll_interval_ms=1000,
)
REVIEWED = CallToolResult(content=[TextContent(type="text", text="Looks good.")])
BROKEN = CallToolResult(content=[TextContent(type="text", text="Broken.")], is_error=True)
DONE = replace(WORKING, status="completed", result=REVIEWED)
CANCELLED = replace(WORKING, status="cancelled")
YES = {"action": "accept", "content": {"go": True}}


def form(message: str) -> InputRequest:
    schema = {"type": "object", "properties": {"go": {"type": "boolean"}}}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


ASKING = replace(
    WORKING,
    status="input_required",
    input_requests={"deploy-1": form("Deploy?"), "notify-1": form("Notify?")},
)


class Down(Unavailable):
    code = "down"


@dataclass
class Store:
    """Tasks as a test wrote them, which are done as soon as nothing is left to answer."""

    tasks: dict[str, TaskState] = field(default_factory=dict[str, TaskState])
    answers: list[Mapping[str, JsonValue]] = field(default_factory=list[Mapping[str, JsonValue]])
    refusal: DramatisError | None = None

    async def get(self, ctx: toolset.Request, task_id: str) -> TaskState | None:
        if self.refusal is not None:
            raise self.refusal
        return self.tasks.get(task_id)

    async def answer(
        self, ctx: toolset.Request, task_id: str, answers: Mapping[str, JsonValue]
    ) -> bool:
        task = await self.get(ctx, task_id)
        if task is None:
            return False
        self.answers.append(answers)
        left = {key: asked for key, asked in task.input_requests.items() if key not in answers}
        self.tasks[task_id] = replace(task, input_requests=left) if left else DONE
        return True

    async def cancel(self, ctx: toolset.Request, task_id: str) -> bool:
        task = await self.get(ctx, task_id)
        if task == WORKING:
            self.tasks[task_id] = CANCELLED
        return task is not None


class Named(BaseModel):
    name: str


async def ask_for_a_name() -> Named | Elicit[Named]:
    return Elicit("Which branch?", Named)


def handle(job: object = "job-1", *, is_error: bool = False) -> CallToolResult:
    content = TextContent(type="text", text="Started.")
    return CallToolResult(content=[content], is_error=is_error, _meta={JOB: job} if job else None)


@pytest.fixture
def store() -> Store:
    return Store({"job-1": WORKING})


@pytest.fixture
def server(store: Store) -> MCPServer:
    extension = Tasks(store, required={"only_as_a_task"})
    server = MCPServer("tasks", log_level="WARNING", extensions=[extension])

    @server.tool()
    async def start() -> CallToolResult:
        return handle()

    @server.tool()
    async def ask_and_start(named: Annotated[Named, Resolve(ask_for_a_name)]) -> CallToolResult:
        return handle()

    @server.tool()
    async def only_as_a_task() -> CallToolResult:
        return handle()

    @server.tool()
    async def fail() -> CallToolResult:
        return handle(is_error=True)

    @server.tool()
    async def start_nothing() -> CallToolResult:
        return handle(None)

    @server.tool()
    async def start_something_odd() -> CallToolResult:
        return handle(1)

    @server.tool()
    async def start_something_unknown() -> CallToolResult:
        return handle("job-2")

    return server


@pytest.fixture
async def client(server: MCPServer) -> AsyncIterator[Client]:
    """A client that declares the extension, and would choke on a task for an answer."""
    async with Client(server, cache=None, extensions=[advertise(TASKS)]) as client:
        yield client


class Answer(Result):
    """Whatever the wire says."""

    model_config = ConfigDict(extra="allow")


async def sent(session: ClientSession, method: str, **params: Any) -> dict[str, Any]:
    return await carried(session, Request[dict[str, Any], str](method=method, params=params))


async def carried(session: ClientSession, request: Request[dict[str, Any], str]) -> dict[str, Any]:
    answer = await session.send_request(request, Answer)
    return answer.model_dump(by_alias=True, exclude={"meta"})


async def refused(client: Client, method: str, **params: Any) -> ErrorData:
    with pytest.raises(MCPError) as refusal:
        await sent(client.session, method, **params)
    return refusal.value.error


class Created(Answer):
    result_type: Literal["task"] = "task"
    task_id: str


class Waiting(ClientExtension):
    """Polls a task to its end, and says yes to one question after the other."""

    identifier = TASKS

    def __init__(self) -> None:
        self.created: list[dict[str, Any]] = []
        self.seen: list[str] = []

    def claims(self) -> Sequence[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=Created, resolve=self._wait)]

    async def _wait(self, created: Created, ctx: ClaimContext) -> CallToolResult:
        self.created.append(created.model_dump(by_alias=True, exclude={"meta"}))
        while True:
            task = await sent(ctx.session, "tasks/get", taskId=created.task_id)
            self.seen.append(task["status"])
            if task["status"] == "completed":
                return CallToolResult.model_validate(task["result"])
            key, *_ = task["inputRequests"]
            await sent(
                ctx.session, "tasks/update", taskId=created.task_id, inputResponses={key: YES}
            )


async def test_a_client_that_takes_tasks_follows_one_to_its_result(server: MCPServer, store: Store):
    store.tasks["job-1"] = ASKING
    waiting = Waiting()

    async with Client(server, cache=None, extensions=[waiting]) as client:
        result = await client.call_tool("start")

    assert result == REVIEWED
    assert waiting.created == snapshot(
        [
            {
                "resultType": "task",
                "taskId": "job-1",
                "status": "input_required",
                "createdAt": "2026-11-26T12:00:00.000Z",
                "lastUpdatedAt": "2026-11-26T12:00:01.500Z",
                "ttlMs": None,
                "pollIntervalMs": 1000,
            }
        ]
    )
    assert waiting.seen == ["input_required", "input_required", "completed"]
    assert store.answers == [{"deploy-1": YES}, {"notify-1": YES}]


async def test_what_a_tool_asks_before_it_starts_a_job_is_asked_first(
    server: MCPServer, store: Store
):
    store.tasks["job-1"] = DONE
    waiting = Waiting()

    async def answer(context: Any, params: Any) -> ElicitResult:
        assert waiting.created == []
        return ElicitResult(action="accept", content={"name": "main"})

    async with Client(
        server, cache=None, extensions=[waiting], elicitation_callback=answer
    ) as client:
        result = await client.call_tool("ask_and_start")

    assert (result, len(waiting.created)) == (REVIEWED, 1)


@pytest.mark.parametrize(
    ("mode", "extensions"), [("auto", []), ("legacy", []), ("legacy", [advertise(TASKS)])]
)
async def test_everyone_else_gets_the_handle_as_it_is(
    server: MCPServer, mode: Any, extensions: list[ClientExtension]
):
    async with Client(server, mode=mode, cache=None, extensions=extensions) as client:
        result = await client.call_tool("start")

    assert (result.content, (result.meta or {})[JOB]) == (handle().content, "job-1")


@pytest.mark.parametrize(
    "tool", ["fail", "start_nothing", "start_something_odd", "start_something_unknown"]
)
async def test_what_started_no_job_of_the_caller_is_no_task(client: Client, tool: str):
    result = await client.call_tool(tool)

    assert (result.content, result.is_error) == (handle().content, tool == "fail")


async def test_a_job_that_cannot_be_looked_up_now_is_found_by_its_handle(
    client: Client, store: Store
):
    store.refusal = Down("The database is away.")

    result = await client.call_tool("start")

    assert result.content == handle().content


async def test_a_task_is_flat_and_its_ttl_is_null_when_it_has_no_end(client: Client):
    assert await sent(client.session, "tasks/get", taskId="job-1") == snapshot(
        {
            "taskId": "job-1",
            "status": "working",
            "createdAt": "2026-11-26T12:00:00.000Z",
            "lastUpdatedAt": "2026-11-26T12:00:01.500Z",
            "ttlMs": None,
            "pollIntervalMs": 1000,
            "resultType": "complete",
        }
    )


@pytest.mark.parametrize(
    ("task", "added"),
    [
        (WORKING, {}),
        (replace(WORKING, result=REVIEWED), {}),
        (CANCELLED, {}),
        (
            ASKING,
            snapshot(
                {
                    "inputRequests": {
                        "deploy-1": {
                            "method": "elicitation/create",
                            "params": {
                                "mode": "form",
                                "message": "Deploy?",
                                "requestedSchema": {
                                    "type": "object",
                                    "properties": {"go": {"type": "boolean"}},
                                },
                            },
                        },
                        "notify-1": {
                            "method": "elicitation/create",
                            "params": {
                                "mode": "form",
                                "message": "Notify?",
                                "requestedSchema": {
                                    "type": "object",
                                    "properties": {"go": {"type": "boolean"}},
                                },
                            },
                        },
                    }
                }
            ),
        ),
        (
            DONE,
            snapshot(
                {
                    "result": {
                        "content": [{"type": "text", "text": "Looks good."}],
                        "isError": False,
                        "resultType": "complete",
                    }
                }
            ),
        ),
        (
            replace(DONE, result=BROKEN),
            snapshot(
                {
                    "result": {
                        "content": [{"type": "text", "text": "Broken."}],
                        "isError": True,
                        "resultType": "complete",
                    }
                }
            ),
        ),
        (
            replace(
                WORKING, status="failed", error=ErrorData(code=INTERNAL_ERROR, message="It broke.")
            ),
            snapshot({"error": {"code": -32603, "message": "It broke."}}),
        ),
    ],
)
def test_what_came_of_a_task_is_told_in_the_status_it_belongs_to(
    task: TaskState, added: dict[str, Any]
):
    assert outcome(task) == added


def test_what_can_be_left_out_is_on_the_wire_when_it_is_there():
    task = replace(WORKING, ttl_ms=3_600_000, status_message="Reading.")

    assert envelope(task) == snapshot(
        {
            "taskId": "job-1",
            "status": "working",
            "createdAt": "2026-11-26T12:00:00.000Z",
            "lastUpdatedAt": "2026-11-26T12:00:01.500Z",
            "ttlMs": 3600000,
            "pollIntervalMs": 1000,
            "statusMessage": "Reading.",
        }
    )


@given(
    st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2200, 1, 1)),  # noqa: DTZ001
    st.integers(-14 * 60, 14 * 60),
)
def test_moments_are_told_in_utc_and_to_the_millisecond(moment: datetime, offset_min: int):
    local = moment.replace(tzinfo=timezone(timedelta(minutes=offset_min)))

    told = envelope(replace(WORKING, created_at=local))["createdAt"]

    assert told.endswith("Z")
    assert timedelta(0) <= local - datetime.fromisoformat(told) < timedelta(milliseconds=1)


async def test_a_part_of_the_answers_leaves_the_other_questions_open(client: Client, store: Store):
    store.tasks["job-1"] = ASKING
    some = {"notify-1": YES, "never-asked": {"ignored": True}}

    acknowledged = await sent(client.session, "tasks/update", taskId="job-1", inputResponses=some)
    task = await sent(client.session, "tasks/get", taskId="job-1")

    assert acknowledged == {"resultType": "complete"}
    assert (task["status"], list(task["inputRequests"])) == ("input_required", ["deploy-1"])
    assert store.answers == [some]


@pytest.mark.parametrize(("task", "then"), [(WORKING, CANCELLED), (DONE, DONE)])
async def test_cancelling_is_acknowledged_also_when_the_task_has_ended(
    client: Client, store: Store, task: TaskState, then: TaskState
):
    store.tasks["job-1"] = task

    acknowledged = await sent(client.session, "tasks/cancel", taskId="job-1")

    assert acknowledged == {"resultType": "complete"}
    assert store.tasks == {"job-1": then}


METHODS = pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel"])


@METHODS
async def test_an_unknown_task_is_refused(client: Client, method: str):
    error = await refused(client, method, taskId="job-2", inputResponses={})

    assert error == ErrorData(
        code=INVALID_PARAMS,
        message="not_found: There is no such task, or not for you. It may have expired.",
    )


@METHODS
async def test_a_client_that_does_not_declare_tasks_is_told_to(server: MCPServer, method: str):
    async with Client(server, cache=None) as client:
        error = await refused(client, method, taskId="job-1", inputResponses={})

    assert (error.code, error.data) == (
        MISSING_REQUIRED_CLIENT_CAPABILITY,
        {"requiredCapabilities": {"extensions": {TASKS: {}}}},
    )


@METHODS
async def test_older_clients_have_no_such_methods(server: MCPServer, method: str):
    async with Client(server, mode="legacy", cache=None, extensions=[advertise(TASKS)]) as client:
        error = await refused(client, method, taskId="job-1", inputResponses={})

    assert error.code == METHOD_NOT_FOUND


@pytest.mark.parametrize("method", ["tasks/list", "tasks/result"])
async def test_methods_of_the_tasks_of_2025_are_not_there(client: Client, method: str):
    assert (await refused(client, method, taskId="job-1")).code == METHOD_NOT_FOUND


@METHODS
@pytest.mark.parametrize(
    ("refusal", "code", "message"),
    [
        (Down("The database is away."), INTERNAL_ERROR, "down: The database is away."),
        (Forbidden("Not yours to see."), INVALID_PARAMS, "forbidden: Not yours to see."),
    ],
)
async def test_a_refusal_of_the_store_is_an_error_of_the_protocol(
    client: Client, store: Store, method: str, refusal: DramatisError, code: int, message: str
):
    store.refusal = refusal

    error = await refused(client, method, taskId="job-1", inputResponses={})

    assert error == ErrorData(code=code, message=message)


async def test_a_tool_that_needs_tasks_refuses_clients_without(server: MCPServer, store: Store):
    store.tasks["job-1"] = DONE
    async with Client(server, cache=None) as client:
        with pytest.raises(MCPError) as refusal:
            await client.call_tool("only_as_a_task")
    async with Client(server, cache=None, extensions=[Waiting()]) as client:
        result = await client.call_tool("only_as_a_task")

    assert refusal.value.error.code == MISSING_REQUIRED_CLIENT_CAPABILITY
    assert result == REVIEWED


class Routed(Request[dict[str, Any], str]):
    """A request whose header Mcp-Name is what its parameter `to` says."""

    name_param = "to"


def routed(method: str, *, to: str) -> Routed:
    return Routed(method=method, params={"taskId": "job-1", "inputResponses": {}, "to": to})


@METHODS
async def test_a_routing_header_that_names_another_task_is_refused(server: MCPServer, method: str):
    app = server.streamable_http_app()
    transport = httpx2.ASGITransport(app=app)
    async with (
        server.session_manager.run(),
        httpx2.AsyncClient(transport=transport, base_url=URL) as http,
        Client(
            streamable_http_client(f"{URL}/mcp", http_client=http),
            cache=None,
            extensions=[advertise(TASKS)],
        ) as client,
    ):
        with pytest.raises(MCPError) as refusal:
            await carried(client.session, routed(method, to="job-2"))
        answer = await carried(client.session, routed(method, to="job-1"))

    assert refusal.value.error.code == HEADER_MISMATCH
    assert answer["resultType"] == "complete"
