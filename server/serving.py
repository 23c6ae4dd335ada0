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

from server.settings import Settings

if TYPE_CHECKING:
    from server.work import App

ROOMS = (
    "server.app",
    "server.personas.skills",
    "server.specs.becoming",
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

    stdio.run(server.build(open_app, toolsets=settings.toolsets, read_only=settings.read_only))


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
