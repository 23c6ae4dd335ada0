"""A raw JSON-RPC client for the real server process, with no SDK in between."""

import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

DRAMATIS = Path(sys.executable).with_name("dramatis")
TIMEOUT_S = 30

INITIALIZE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "raw", "version": "0"},
}
MODERN = {
    "_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "0"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
}


class Server:
    """`dramatis mcp` as a client starts it. Leaving the `with` closes its input and waits."""

    def __init__(self, *arguments: str, **settings: str) -> None:
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self.process = subprocess.Popen(
            [DRAMATIS, "mcp", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=inherited | settings,
        )
        self.errors: list[bytes] = []
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._number = 0
        self._reads = True
        self._readers = [
            threading.Thread(target=self._read_output),
            threading.Thread(target=self._read_errors),
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.close_input()
        try:
            self.process.wait(TIMEOUT_S)
        finally:
            self.process.kill()
            self.process.wait()
            for reader in self._readers:
                reader.join()
            for stream in (self.process.stdout, self.process.stderr):
                assert stream is not None
                stream.close()

    def send(self, method: str, params: dict[str, Any] | None = None) -> int:
        self._number += 1
        self.write({"id": self._number, "method": method, "params": params or {}})
        return self._number

    def notify(self, method: str) -> None:
        self.write({"method": method})

    def write(self, message: dict[str, Any]) -> None:
        self.write_line(json.dumps({"jsonrpc": "2.0", **message}))

    def write_line(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def receive(self, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """Wait for the next message.

        Raises:
            queue.Empty: none came in time.
            ValueError: standard output carried something else than JSON.
        """
        return json.loads(self._lines.get(timeout=timeout_s))

    def ask(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        number = self.send(method, params)
        while (answer := self.receive()).get("id") != number:
            assert "method" in answer, answer
        return answer

    def initialize(self) -> None:
        self.ask("initialize", INITIALIZE)
        self.notify("notifications/initialized")

    def call(self, tool: str, *, modern: bool = False, **arguments: Any) -> dict[str, Any]:
        more = MODERN if modern else {}
        return self.ask("tools/call", {"name": tool, "arguments": arguments, **more})["result"]

    def close_input(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def stop_reading(self) -> None:
        """Leave what it says where it is, after the next message."""
        self._reads = False

    def _read_output(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
            if not self._reads:
                return

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors.append(line)
