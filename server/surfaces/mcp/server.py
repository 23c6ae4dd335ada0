"""Put the toolsets in front of the app."""

import logging
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import anyio
from mcp import MCPError
from mcp.server import CacheHint, MCPServer
from mcp.server.context import CallNext, HandlerResult
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.subscriptions import InMemorySubscriptionBus
from mcp.types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CallToolResult,
    GetPromptResult,
    InputRequiredResult,
)
from pydantic import ValidationError

from server.errors import Invalid
from server.surfaces.mcp.arguments import make_strict, readable
from server.surfaces.mcp.attachment import Attachment, Companion, FindPlace, nowhere
from server.surfaces.mcp.audience import Audience
from server.surfaces.mcp.notices import serve_subscriptions
from server.surfaces.mcp.prompts import add_prompts, lift_meta
from server.surfaces.mcp.resources import add_resources
from server.surfaces.mcp.skills import Skills, add_skill_resource
from server.surfaces.mcp.spec_resources import add_spec_resources
from server.surfaces.mcp.standard_resources import add_standard_resources
from server.surfaces.mcp.toolset import Request, Toolset

if TYPE_CHECKING:
    from mcp.server.extension import Extension

    from server.surfaces.mcp.tasks import Tasks
    from server.work import OpenApp

_log = logging.getLogger(__name__)


class _Toolsets(Mapping[str, Toolset]):
    """The toolsets there are. The module of each is imported when it is looked at.

    What specs need to be described would cost every start about 40 ms, and most serve none.
    """

    _modules = ("personas", "specs", "standards", "jobs", "core-personas")

    def __getitem__(self, name: str) -> Toolset:
        if name not in self._modules:
            raise KeyError(name)
        return import_module(f"server.surfaces.mcp.{name.replace('-', '_')}").TOOLSET

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


TOOLSETS = _Toolsets()

INSTRUCTIONS = """\
Use Dramatis when the user speaks of personas, roles or the people of their AI team: to add one \
("register Con as a developer"), to find who does a kind of work, or to work as one of them.

- To work as a persona, call become_persona and follow what it returns. `/dramatis:become_persona` \
is the same for people.
- Before adding one, call lookup_role or list_personas: the same name and role again makes a \
second persona.
- A persona is meant by slug (`developer-con-1`), id, name, or an unambiguous part of its name. When \
several fit, ask the user which.
- skill.md says who a persona is: read it with read_persona_files, pass its sha256 on when you \
replace it with write_persona_skill. experience.md is a log: add_persona_experience after a piece \
of work that taught something.
- Archive with update_persona instead of deleting; only the user deletes, with `dramatis persona \
delete`.
"""
READ_ONLY_NOTE = "This server is read-only: of the tools below, those that write are absent.\n\n"
# Each costs every conversation its tokens. What several toolsets offer gives way to the others.
MOST_ALWAYS_LOADED = 2
FIVE_MINUTES = CacheHint(ttl_ms=300_000, scope="public")


class Dramatis(MCPServer[Attachment]):
    def serves(self, name: str) -> bool:
        return self._tool_manager.get_tool(name) is not None

    def make_strict(self, name: str) -> None:
        tool = self._tool_manager.get_tool(name)
        assert tool is not None
        make_strict(tool)

    async def call_tool(
        self,
        name: str,
        arguments: dict[str, Any],
        context: Context[Attachment, Any] | None = None,
    ) -> CallToolResult | InputRequiredResult:
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            tool = self._tool_manager.get_tool(name)
            raise readable(tool, error) if tool is not None else error from error.__cause__

    async def get_prompt(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        context: Context[Attachment, Any] | None = None,
    ) -> GetPromptResult | InputRequiredResult:
        # The SDK would report either as a crash of ours, with a traceback in the log.
        prompts = {prompt.name: prompt for prompt in self._prompt_manager.list_prompts()}
        if name not in prompts:
            raise MCPError(
                code=INVALID_PARAMS,
                message=f"invalid: No prompt is called {name!r}. Known: {', '.join(prompts)}.",
            )
        known = [argument.name for argument in prompts[name].arguments or []]
        if unknown := [key for key in arguments or {} if key not in known]:
            raise MCPError(
                code=INVALID_PARAMS,
                message=f"invalid: {unknown[0]}: is not known here. Known: {', '.join(known)}.",
            )
        result = await super().get_prompt(name, arguments, context)
        return lift_meta(result) if isinstance(result, GetPromptResult) else result


def build(
    open_app: "OpenApp",
    *,
    toolsets: Sequence[str] = ("personas",),
    read_only: bool = False,
    follow: Companion | None = None,
    take_up: Companion | None = None,
    find_place: FindPlace | None = None,
    tasks: "Tasks | None" = None,
) -> Dramatis:
    """Build the server. The app is opened when the first request has been answered.

    Args:
        read_only: leave out the tools that write.
        follow: keeps the index of standards like their files while the app is open; started only
            where a tool searches it.
        take_up: starts a worker for the jobs that have none, when the app is open; run only where
            tools start jobs.
        find_place: finds the project without the database, so that its files can be searched.
        tasks: what serves tasks instead of those of the jobs.

    Raises:
        Invalid: a toolset is unknown.
    """
    # By name, so that one that is named twice is served once.
    chosen = [_toolset(name) for name in dict.fromkeys(toolsets)]
    starts_jobs = not read_only and any(toolset.starts_jobs for toolset in chosen)
    bus = InMemorySubscriptionBus()

    @asynccontextmanager
    async def lifespan(_: MCPServer[Attachment]) -> AsyncGenerator[Attachment]:
        beside = ((server.serves("search_standards"), follow), (starts_jobs, take_up))
        attachment = Attachment(
            open_app,
            Audience(bus),
            read_only=read_only,
            companions=[companion for wanted, companion in beside if wanted and companion],
            find_place=find_place or nowhere,
        )
        async with anyio.create_task_group() as group:
            group.start_soon(attachment.hold)
            try:
                yield attachment
            finally:
                group.cancel_scope.cancel()

    server = Dramatis(
        "dramatis",
        title="Dramatis",
        description="The cast of your AI team: named personas for coding agents.",
        instructions=_instructions(chosen, read_only=read_only),
        version=version("dramatis-mcp"),
        lifespan=lifespan,
        subscriptions=bus,
        log_level="WARNING",
        extensions=_extensions(tasks, starts_jobs=starts_jobs),
        middleware=[_keep_crashes_to_ourselves, _attach_after_the_first_answer],
        cache_hints={
            "tools/list": FIVE_MINUTES,
            "prompts/list": FIVE_MINUTES,
            "resources/templates/list": FIVE_MINUTES,
            "server/discover": FIVE_MINUTES,
        },
    )
    _add(server, chosen, read_only=read_only)
    add_resources(server)
    add_spec_resources(server)
    add_standard_resources(server)
    add_skill_resource(server)
    add_prompts(server)
    serve_subscriptions(server)
    return server


def _toolset(name: str) -> Toolset:
    toolset = TOOLSETS.get(name)
    if toolset is None:
        raise Invalid(f"No toolset is called {name!r}.", hint=f"Known: {', '.join(TOOLSETS)}.")
    return toolset


def _extensions(tasks: "Tasks | None", *, starts_jobs: bool) -> "list[Extension]":
    if tasks is None and starts_jobs:
        from server.surfaces.mcp.job_tasks import JobTasks
        from server.surfaces.mcp.tasks import Tasks

        tasks = Tasks(JobTasks())
    return [Skills(), tasks] if tasks is not None else [Skills()]


def _instructions(toolsets: Sequence[Toolset], *, read_only: bool) -> str:
    note = READ_ONLY_NOTE if read_only else ""
    return note + INSTRUCTIONS + "".join(toolset.instructions for toolset in toolsets)


def _add(server: Dramatis, toolsets: Sequence[Toolset], *, read_only: bool) -> None:
    offered = [tool for one in toolsets for tool in one.tools if not (read_only and tool.writes)]
    # Some tools are in two toolsets.
    tools = {tool.function.__name__: tool for tool in offered}
    crowded = sum(tool.always_loaded for tool in tools.values()) > MOST_ALWAYS_LOADED
    for name, tool in tools.items():
        gives_way = crowded and offered.count(tool) > 1
        server.add_tool(
            tool.function,
            title=tool.title,
            description=" ".join((tool.function.__doc__ or "").split()),
            annotations=tool.annotations,
            structured_output=not tool.prose,
            meta=tool.meta_when_looked_up if gives_way else tool.meta,
        )
        server.make_strict(name)


async def _keep_crashes_to_ourselves(ctx: Request, call_next: CallNext) -> HandlerResult:
    """Answer a bug in a handler without its text, which the SDK sends to older clients."""
    try:
        return await call_next(ctx)
    except (MCPError, ValidationError):
        # The second is the SDK's own: of parameters, before any handler has run.
        raise
    except Exception as error:
        _log.exception("%s failed", ctx.method)
        message = "Internal error; the server's log has it."
        raise MCPError(code=INTERNAL_ERROR, message=message) from error


async def _attach_after_the_first_answer(ctx: Request, call_next: CallNext) -> HandlerResult:
    result = await call_next(ctx)
    ctx.lifespan_context.audience.join(ctx)
    ctx.lifespan_context.begin()
    return result
