"""Tools as data, and the one place where our errors become MCP's."""

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError, ToolError
from mcp.types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CallToolResult,
    TextContent,
    ToolAnnotations,
)
from pydantic import BaseModel

from server.errors import Conflict, DramatisError, Invalid, NotFound, Unavailable
from server.surfaces.mcp.attachment import Attachment

if TYPE_CHECKING:
    from server.specs.trace import Trace
    from server.work import App, Caller, Work

Ctx = Context[Attachment, Any]
Request = ServerRequestContext[Attachment, Any]

READS = ToolAnnotations(
    read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)
ADDS = ToolAnnotations(
    read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False
)
COMPLETES = ToolAnnotations(
    read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)
REPLACES = ToolAnnotations(
    read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
)
DECIDES = ToolAnnotations(
    read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=False
)
# Speaks to a model that may be anywhere.
INVOKES = ToolAnnotations(
    read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=True
)
# Claude Code keeps longer results than this many characters in a file, away from the model.
LONG_RESULT = {"anthropic/maxResultSizeChars": 500_000}
# Claude Code looks other tools up before it calls them.
ALWAYS_LOAD = "anthropic/alwaysLoad"


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as it is published. The function's docstring is its description.

    Attributes:
        prose: the answer is text for the model to read, without structured content: clients
            show a model the structured content instead of the text where there is both.
    """

    function: Callable[..., Any]
    title: str
    annotations: ToolAnnotations
    prose: bool = False
    meta: dict[str, Any] | None = None

    @property
    def writes(self) -> bool:
        return not self.annotations.read_only_hint

    @property
    def always_loaded(self) -> bool:
        return ALWAYS_LOAD in (self.meta or {})

    @property
    def meta_when_looked_up(self) -> dict[str, Any] | None:
        meta = {key: value for key, value in (self.meta or {}).items() if key != ALWAYS_LOAD}
        return meta or None


@dataclass(frozen=True, slots=True)
class Toolset:
    """A group of tools that is served, or not, as a whole.

    Attributes:
        instructions: what the server's instructions say of it, only where it is served.
        starts_jobs: whether its tools start jobs, which some clients follow as tasks.
    """

    summary: str
    tools: tuple[Tool, ...]
    instructions: str = ""
    starts_jobs: bool = False


async def acting(ctx: Ctx | Request) -> "tuple[App, Caller]":
    """Get the app, and who calls: over stdio, the local user's agent."""
    from server.access import login_name
    from server.work import AGENT_SCOPES, READ_ONLY, Caller

    request = ctx if isinstance(ctx, ServerRequestContext) else ctx.request_context
    attachment = request.lifespan_context
    app = await attachment.app()
    scopes = READ_ONLY if attachment.read_only else AGENT_SCOPES
    caller = Caller("agent", f"{login_name()} via {_client(request)}", app.tenant_id, scopes)
    return app, caller


@asynccontextmanager
async def use_case(ctx: Ctx | Request) -> "AsyncGenerator[Work]":
    """Open the caller's transaction."""
    app, caller = await acting(ctx)
    async with app.work(caller) as work:
        yield work


def can_ask(ctx: Ctx | Request) -> bool:
    """Say whether the client shows forms; one that names no kind of question does."""
    capabilities = ctx.session.client_capabilities
    asking = capabilities.elicitation if capabilities else None
    return asking is not None and (asking.form is not None or asking.url is None)


@contextmanager
def refusals() -> Generator[None]:
    """Hand expected failures of a tool to the model as text that it can act on."""
    try:
        yield
    except DramatisError as error:
        raise ToolError(said(error)) from error


@contextmanager
def resource_refusals() -> Generator[None]:
    try:
        yield
    except (NotFound, Invalid, Conflict) as error:
        raise ResourceNotFoundError(said(error)) from error
    except DramatisError as error:
        raise ResourceError(said(error)) from error


@contextmanager
def protocol_refusals() -> Generator[None]:
    """Prompts and methods have no error result; the client gets a JSON-RPC error."""
    try:
        yield
    except Unavailable as error:
        raise MCPError(code=INTERNAL_ERROR, message=said(error)) from error
    except DramatisError as error:
        raise MCPError(code=INVALID_PARAMS, message=said(error)) from error


def proven(trace: "Trace", *texts: str) -> CallToolResult:
    """Answer with prose, and with proof of the prompt that it is for programs to read."""
    return CallToolResult(
        content=[TextContent(type="text", text=text) for text in texts], _meta=traced(trace)
    )


def structured(shape: BaseModel, meta: dict[str, Any] | None = None) -> CallToolResult:
    """Answer with a shape as the SDK does, and with something that is for programs to read."""
    return CallToolResult(
        content=[TextContent(type="text", text=shape.model_dump_json(indent=2))],
        structured_content=shape.model_dump(mode="json"),
        _meta=meta,
    )


def traced(trace: "Trace") -> dict[str, Any]:
    return {"dramatis/trace": trace.model_dump(mode="json")}


def said(error: DramatisError) -> str:
    return f"{error.code}: {error}"


def _client(request: Request) -> str:
    """Name the client for bylines, as it names itself."""
    params = request.session.client_params
    client = params.client_info.name if params is not None else "an MCP client"
    shown = "".join(char for char in client if char.isprintable())[:60].strip()
    return shown or "an MCP client"
