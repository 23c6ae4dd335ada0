"""Jobs as tasks: the extension io.modelcontextprotocol/tasks (SEP-2663).

A tool that starts a job answers with a handle. For a client that declares the extension, the
handle becomes a task, which the client polls, answers and cancels by itself.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from mcp import MCPError
from mcp.server.context import CallNext, HandlerResult
from mcp.server.extension import Extension, MethodBinding
from mcp.server.mcpserver import require_client_extension
from mcp.shared.inbound import decode_header_value
from mcp.types import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ErrorData,
    InputRequest,
    RequestParams,
)
from pydantic import BaseModel, JsonValue

from server.errors import DramatisError
from server.surfaces.mcp.toolset import Request, protocol_refusals

TASKS = "io.modelcontextprotocol/tasks"
# Where the `_meta` of a tool's result names the job that the tool has started.
JOB = "dramatis/job"
# What is said of it then. It may be said nowhere else, such as that no worker can be started.
MESSAGE = "dramatis/message"
VERSIONS = frozenset({"2026-07-28"})

TaskStatus = Literal["working", "input_required", "completed", "failed", "cancelled"]


@dataclass(frozen=True, kw_only=True)
class TaskState:
    """Where a task stands.

    Attributes:
        ttl_ms: how long after its creation it can be asked for; `None` when that has no end.
        poll_interval_ms: at least 1. Clients obey it literally.
        result: of the tool, when completed. A tool that failed has completed, with an error in it.
        error: when failed, which only the protocol's own errors are. Jobs of ours never are; the
            official conformance suite has some that do.
        input_requests: the open questions while input is required. A key is never used again.
    """

    task_id: str
    status: TaskStatus
    created_at: datetime
    last_updated_at: datetime
    ttl_ms: int | None
    poll_interval_ms: int
    status_message: str | None = None
    result: CallToolResult | None = None
    error: ErrorData | None = None
    input_requests: Mapping[str, InputRequest] = field(default_factory=dict[str, InputRequest])


class TaskStore(Protocol):
    """What keeps the tasks. To each caller, the tasks of others are unknown."""

    async def get(self, ctx: Request, task_id: str) -> TaskState | None:
        """Find a task; `None` when it is unknown."""
        ...

    async def answer(self, ctx: Request, task_id: str, answers: Mapping[str, JsonValue]) -> bool:
        """Take answers to some of the open questions and say whether the task is known.

        The other questions stay open. Answers to what was never asked are ignored, and nothing has
        checked that an answer fits its question.

        Raises:
            DramatisError: an answer to what was asked cannot be taken.
        """
        ...

    async def cancel(self, ctx: Request, task_id: str) -> bool:
        """Ask a task to end and say whether it is known. One that has ended stays as it is."""
        ...


class TaskParams(RequestParams):
    task_id: str


class UpdateTaskParams(TaskParams):
    input_responses: dict[str, JsonValue]


class Tasks(Extension):
    """Serves the tasks of a store.

    Args:
        required: tools that are refused to clients without the extension. None of ours is; the
            official conformance suite wants to see it.
    """

    identifier = TASKS

    def __init__(self, store: TaskStore, *, required: Collection[str] = ()) -> None:
        self._store = store
        self._required = required

    def methods(self) -> Sequence[MethodBinding]:
        return [
            MethodBinding("tasks/get", TaskParams, self._get, VERSIONS),
            MethodBinding("tasks/update", UpdateTaskParams, self._update, VERSIONS),
            MethodBinding("tasks/cancel", TaskParams, self._cancel, VERSIONS),
        ]

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: Request, call_next: CallNext
    ) -> HandlerResult:
        if params.name in self._required:
            require_client_extension(ctx, TASKS)
        result = await call_next(ctx)
        if not isinstance(result, CallToolResult) or result.is_error or not _takes_tasks(ctx):
            return result
        meta = result.meta or {}
        job = meta.get(JOB)
        task = await self._started(ctx, job) if isinstance(job, str) else None
        if task is None:
            return result
        first = replace(task, status_message=meta.get(MESSAGE, task.status_message))
        return {**envelope(first), "resultType": "task"}

    async def _started(self, ctx: Request, job: str) -> TaskState | None:
        try:
            return await self._store.get(ctx, job)
        except DramatisError:
            # The job runs already, and with an error for an answer nobody would find it.
            return None

    async def _get(self, ctx: Request, params: TaskParams) -> dict[str, Any]:
        _check(ctx, params)
        with protocol_refusals():
            task = await self._store.get(ctx, params.task_id)
        if task is None:
            raise _unknown()
        return envelope(task) | outcome(task)

    async def _update(self, ctx: Request, params: UpdateTaskParams) -> dict[str, Any]:
        _check(ctx, params)
        with protocol_refusals():
            known = await self._store.answer(ctx, params.task_id, params.input_responses)
        return _acknowledged(known=known)

    async def _cancel(self, ctx: Request, params: TaskParams) -> dict[str, Any]:
        _check(ctx, params)
        with protocol_refusals():
            known = await self._store.cancel(ctx, params.task_id)
        return _acknowledged(known=known)


def envelope(task: TaskState) -> dict[str, Any]:
    """A task on the wire, without what came of it: all that may be said when it is created."""
    message = {"statusMessage": task.status_message} if task.status_message else {}
    return {
        "taskId": task.task_id,
        "status": task.status,
        "createdAt": _utc(task.created_at),
        "lastUpdatedAt": _utc(task.last_updated_at),
        "ttlMs": task.ttl_ms,
        "pollIntervalMs": task.poll_interval_ms,
        **message,
    }


def outcome(task: TaskState) -> dict[str, Any]:
    """What `tasks/get` adds to the envelope, and only in the status that it belongs to."""
    match task:
        case TaskState(status="completed", result=CallToolResult() as result):
            return {"result": _dumped(result)}
        case TaskState(status="failed", error=ErrorData() as error):
            return {"error": _dumped(error)}
        case TaskState(status="input_required", input_requests=requests):
            return {"inputRequests": {key: _dumped(asked) for key, asked in requests.items()}}
        case _:
            return {}


def _dumped(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _takes_tasks(ctx: Request) -> bool:
    """Say whether the client of this request understands a task for an answer."""
    capabilities = ctx.session.client_capabilities
    declared = capabilities.extensions if capabilities is not None else None
    return ctx.protocol_version in VERSIONS and TASKS in (declared or {})


def _check(ctx: Request, params: TaskParams) -> None:
    """Refuse clients without the extension, and a routing header that names another task.

    Over HTTP the SDK compares that header for the core's methods only.
    """
    require_client_extension(ctx, TASKS)
    name = ctx.request.headers.get("mcp-name") if ctx.request is not None else None
    if name is not None and decode_header_value(name) != params.task_id:
        raise MCPError(code=HEADER_MISMATCH, message="The header Mcp-Name names another task.")


def _acknowledged(*, known: bool) -> dict[str, Any]:
    """Answer with nothing: what became of the task is for `tasks/get` to say."""
    if not known:
        raise _unknown()
    return {}


def _unknown() -> MCPError:
    message = "not_found: There is no such task, or not for you. It may have expired."
    return MCPError(code=INVALID_PARAMS, message=message)
