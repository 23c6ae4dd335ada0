"""Start the MCP server: answer first, load the rest behind the answer."""

import gc
import logging
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING

import anyio.to_thread
import pydantic

from server.settings import Settings

if TYPE_CHECKING:
    from server.work import App

ROOMS = (
    "server.app",
    "server.personas.becoming",
    "server.personas.skills",
)


def serve(settings: Settings) -> None:
    """Serve MCP over standard input and output until the client leaves."""
    # Before the SDK configures logging: with `rich` installed it would draw boxes.
    logging.basicConfig(
        stream=sys.stderr, level=settings.log_level, format="dramatis: %(levelname)s: %(message)s"
    )
    stdio, server = _import_surface()

    @asynccontextmanager
    async def open_app() -> "AsyncGenerator[App]":
        for room in ROOMS:
            await anyio.to_thread.run_sync(import_module, room)
        from server.app import open_app

        async with open_app(settings) as app:
            yield app

    stdio.run(server.build(open_app, toolsets=settings.toolsets, read_only=settings.read_only))


def _import_surface():
    """Import the SDK at a fifth less than its usual cost.

    Its thousands of protocol models are built on first use instead of all at once, and the
    collector does not walk what imports leave behind.
    """
    gc.disable()
    pydantic.BaseModel.model_config["defer_build"] = True
    try:
        import_module("mcp.server.mcpserver")
    finally:
        pydantic.BaseModel.model_config.pop("defer_build")
    from server.surfaces.mcp import server, stdio

    gc.freeze()
    gc.enable()
    return stdio, server
