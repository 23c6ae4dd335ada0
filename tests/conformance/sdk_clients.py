"""Clients of the official SDKs over stdio, each on a data root of its own.

The scripts assert, and print a line for every step that held.
"""

from tests.conformance.installation import Tools
from tests.conformance.report import Report
from tests.conformance.surroundings import COMMAND, fresh, run

DONE = "ok: "


def check(report: Report, tools: Tools) -> None:
    typescript_v1 = (tools.node, tools.clients / "typescript_v1.mjs")
    typescript_v2 = (tools.node, tools.clients / "typescript_v2.mjs")
    for name, client in {
        "TypeScript SDK v1": typescript_v1,
        "TypeScript SDK v2, legacy": (*typescript_v2, "legacy", "2025-11-25"),
        "TypeScript SDK v2, auto": (*typescript_v2, "auto", "2026-07-28"),
        "Python SDK 1.30": (tools.python_v1, tools.clients / "python_v1.py"),
    }.items():
        with fresh(report, name) as surroundings:
            ended = run([*client, COMMAND, "mcp"], surroundings)
            for line in ended.out.splitlines():
                if line.startswith(DONE):
                    report.check(f"{name}: {line.removeprefix(DONE)}")
            report.check(f"{name}: ends well", ended.output if ended.code else None)
