"""The product's own server with the suite's fixtures, over HTTP on a free port of loopback.

The official suite tests servers over HTTP only. `python -m tests.conformance.app` prints the
address it serves as its first line and stops on SIGTERM.
"""

import socket
from functools import partial
from typing import Any

import anyio
import uvicorn
from mcp.server import MCPServer

from server.app import open_app
from server.settings import Settings
from server.surfaces.mcp.server import build
from server.surfaces.mcp.tasks import Tasks
from tests.conformance.fixtures import add_fixtures
from tests.conformance.fixtures.tasks import REQUIRED, Jobs

LOOPBACK = "127.0.0.1"
# The suite leaves listening streams open; without a limit they would hold up the end.
GRACE_S = 2


async def serve(server: MCPServer[Any]) -> None:
    """Serve until SIGTERM, protected against DNS rebinding as the SDK does for local hosts."""
    app = server.streamable_http_app(host=LOOPBACK)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=GRACE_S)
    with socket.create_server((LOOPBACK, 0)) as listening:
        print(f"http://{LOOPBACK}:{listening.getsockname()[1]}/mcp", flush=True)
        await uvicorn.Server(config).serve(sockets=[listening])


def main() -> None:
    jobs = Jobs()
    tasks = Tasks(jobs, required=REQUIRED)
    server = build(partial(open_app, Settings()), tasks=tasks)
    add_fixtures(server, jobs)
    anyio.run(serve, server)


if __name__ == "__main__":
    main()
