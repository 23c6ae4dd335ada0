"""Start the MCP server: answer first, load the rest behind the answer."""

import gc
import logging
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

import anyio.to_thread
import pydantic

from server.errors import DramatisError
from server.settings import Settings

if TYPE_CHECKING:
    from server.standards.shapes import IndexReport
    from server.surfaces.mcp.audience import Audience
    from server.work import App, Place

_log = logging.getLogger(__name__)

ROOMS = (
    "server.app",
    "server.personas.skills",
    "server.jobs.playing",
)


def serve(settings: Settings) -> None:
    """Serve MCP over standard input and output until the client leaves."""
    # Before the SDK configures logging: with `rich` installed it would draw boxes.
    logging.basicConfig(
        stream=sys.stderr, level=settings.log_level, format="dramatis: %(levelname)s: %(message)s"
    )
    # It warns of every query that a client's cancellation cut short.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    stdio, server = _import_surface()

    @asynccontextmanager
    async def open_app() -> "AsyncGenerator[App]":
        await anyio.to_thread.run_sync(_import_rooms)
        from server.app import open_app

        async with open_app(settings) as app:
            yield app

    def find_place() -> "Place | None":
        from server.standards.projects import find_place

        return find_place(settings, host="")

    stdio.run(
        server.build(
            open_app,
            toolsets=settings.toolsets,
            read_only=settings.read_only,
            follow=follow_standards,
            take_up=take_up_jobs,
            find_place=find_place,
        )
    )


async def follow_standards(app: "App", audience: "Audience") -> None:
    """Keep the index of the project's standards like the files, and tell clients what changed."""
    place = app.place
    if place is None:
        return
    await anyio.to_thread.run_sync(import_module, "server.standards.watcher")
    from server.access import login_name
    from server.standards.watcher import keep_indexed
    from server.surfaces.mcp.standard_resources import tell_indexed
    from server.work import READ_ONLY, Caller

    async def told(report: "IndexReport") -> None:
        await tell_indexed(audience, place, report)

    caller = Caller("operator", login_name(), app.tenant_id, READ_ONLY)
    try:
        await keep_indexed(app, caller, told)
    except DramatisError as error:
        _log.warning("the standards are not followed: %s", error)


async def take_up_jobs(app: "App", _: "Audience") -> None:
    """Start a worker for jobs whose worker has died, or that were left waiting."""
    await anyio.to_thread.run_sync(import_module, "server.jobs.following")
    from server.access import login_name
    from server.jobs import following
    from server.work import AGENT_SCOPES, Caller

    caller = Caller("operator", login_name(), app.tenant_id, AGENT_SCOPES)
    try:
        await following.take_up_jobs(app, caller)
    except DramatisError as error:
        _log.warning("no worker was looked for: %s", error)


def _import_rooms() -> None:
    with _collector_off():
        for room in ROOMS:
            import_module(room)


@contextmanager
def _collector_off() -> Generator[None]:
    """Keep the collector from walking what imports leave behind, again and again."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _import_surface() -> "tuple[ModuleType, ModuleType]":
    """Import the SDK at a fifth less than its usual cost.

    Its thousands of protocol models are built on first use instead of all at once.
    """
    with _collector_off():
        pydantic.BaseModel.model_config["defer_build"] = True
        try:
            import_module("mcp.server.mcpserver")
        finally:
            pydantic.BaseModel.model_config.pop("defer_build")
        from server.surfaces.mcp import server, stdio

    return stdio, server
