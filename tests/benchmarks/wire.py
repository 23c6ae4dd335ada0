"""A client of a few lines, so that what is measured is the server: JSON-RPC over stdio, no SDK."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any, Literal

Era = Literal["2025-11-25", "2026-07-28"]
LEGACY: Era = "2025-11-25"
MODERN: Era = "2026-07-28"

Command = tuple[str, ...]
DRAMATIS: Command = (str(Path(sys.executable).with_name("dramatis")), "mcp")
BARE: Command = (sys.executable, str(Path(__file__).with_name("bare_server.py")))

# A server that answers nothing for this long is ended, and the benchmark with it.
PATIENCE_S = 120.0

CLIENT = {"name": "benchmark", "version": "1"}
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": CLIENT,
    "io.modelcontextprotocol/clientCapabilities": {},
}


class ServerFailed(Exception):
    """The server went away, or answered with an error."""


class Wire:
    """One server process and the connection to it."""

    def __init__(self, process: "subprocess.Popen[bytes]", era: Era, spawned_at: float) -> None:
        assert process.stdin
        assert process.stdout
        self.pid = process.pid
        self._input, self._output = process.stdin, process.stdout
        self._era = era
        self._spawned_at = spawned_at
        self._asked = 0
        self.answer_bytes = 0
        """Size of the last answer, as it came."""

    def since_spawn_ms(self) -> float:
        return (time.perf_counter() - self._spawned_at) * 1000

    def open(self) -> None:
        """Shake hands as the era does it, and wait for the answer."""
        if self._era == MODERN:
            self.ask("server/discover")
            return
        parameters = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": CLIENT}
        self.ask("initialize", parameters)
        self._send({"method": "notifications/initialized"})

    def call(self, tool: str, arguments: dict[str, Any]) -> Any:
        result = self.ask("tools/call", {"name": tool, "arguments": arguments})
        if result.get("isError"):
            raise ServerFailed(json.dumps(result))
        return result.get("structuredContent")

    def ask(self, method: str, parameters: dict[str, Any] | None = None) -> Any:
        self._asked += 1
        given = parameters or {}
        if self._era == MODERN:
            given = given | {"_meta": META}
        self._send({"id": self._asked, "method": method, "params": given})
        while True:
            line = self._output.readline()
            if not line:
                raise ServerFailed(f"The server left without answering {method}.")
            message = json.loads(line)
            if message.get("id") == self._asked:
                self.answer_bytes = len(line)
                if "error" in message:
                    raise ServerFailed(json.dumps(message["error"]))
                return message["result"]

    def _send(self, message: dict[str, Any]) -> None:
        self._input.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        self._input.flush()


@contextmanager
def spawned(
    command: Command, data_root: Path | None = None, *, era: Era = LEGACY
) -> Generator[Wire]:
    """Start a server; it ends when its input does, or is killed."""
    environment = dict(os.environ)
    if data_root is not None:
        environment["DRAMATIS_DATA_ROOT"] = str(data_root)
    spawned_at = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    watchdog = Timer(PATIENCE_S, process.kill)
    watchdog.daemon = True
    watchdog.start()
    try:
        yield Wire(process, era, spawned_at)
    finally:
        process.communicate()
        watchdog.cancel()
