"""Tools as data, and the one place where our errors become MCP's."""

import getpass
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError, ToolError
from mcp.types import INVALID_PARAMS, ToolAnnotations

from server.errors import DramatisError, NotFound
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


@asynccontextmanager
async def acting(ctx: Ctx | Request) -> "AsyncGenerator[tuple[App, Caller]]":
    """Get the app, and who calls: over stdio, the local user's agent."""
    from server.work import READ_SCOPES, SCOPES, Caller

    request = ctx if isinstance(ctx, ServerRequestContext) else ctx.request_context
    attachment = request.lifespan_context
    app = await attachment.app()
    scopes = READ_SCOPES if attachment.read_only else SCOPES
    yield app, Caller("agent", _name(request), app.tenant_id, scopes)


@asynccontextmanager
async def use_case(ctx: Ctx | Request) -> "AsyncGenerator[Work]":
    """Open the caller's transaction."""
    async with acting(ctx) as (app, caller), app.work(caller) as work:
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
    except NotFound as error:
        raise ResourceNotFoundError(said(error)) from error
    except DramatisError as error:
        raise ResourceError(said(error)) from error


@contextmanager
def protocol_refusals() -> Generator[None]:
    """Prompts and methods have no error result; the client gets a JSON-RPC error."""
    try:
        yield
    except DramatisError as error:
        raise MCPError(code=INVALID_PARAMS, message=said(error)) from error


def said(error: DramatisError) -> str:
    return f"{error.code}: {error}"


def _name(request: Request) -> str:
    """Name the caller for bylines: the login and the client, which says of itself what it is."""
    params = request.session.client_params
    client = params.client_info.name if params is not None else "an MCP client"
    shown = "".join(char for char in client if char.isprintable())[:60].strip()
    return f"{getpass.getuser()} via {shown or 'an MCP client'}"
