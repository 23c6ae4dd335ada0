"""Tools as data, and the one place where our errors become MCP's."""

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError, ToolError
from mcp.types import INTERNAL_ERROR, INVALID_PARAMS, ToolAnnotations

from server.errors import Conflict, DramatisError, Invalid, NotFound, Unavailable
from server.surfaces.mcp.attachment import Attachment

if TYPE_CHECKING:
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


@dataclass(frozen=True, slots=True)
class Toolset:
    name: str
    summary: str
    tools: tuple[Tool, ...]


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


def said(error: DramatisError) -> str:
    return f"{error.code}: {error}"


def _client(request: Request) -> str:
    """Name the client for bylines, as it names itself."""
    params = request.session.client_params
    client = params.client_info.name if params is not None else "an MCP client"
    shown = "".join(char for char in client if char.isprintable())[:60].strip()
    return shown or "an MCP client"
