"""The MCP Inspector's command line, with a configuration file such as an operator writes."""

import json
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.installation import Tools
from tests.conformance.report import Report
from tests.conformance.surroundings import COMMAND, Surroundings, fresh, run

SLUG = "developer-con-1"


@dataclass(frozen=True)
class Request:
    method: str
    options: tuple[str, ...]
    expected: str
    """A text of the answer: an exit code of 0 alone may mean that there was nothing to look at."""

    @property
    def words(self) -> tuple[str, ...]:
        return (self.method, *self.options)


BOTH_ERAS = (
    Request("tools/list", ("--strict",), '"register_persona"'),
    Request("prompts/list", (), '"become_persona"'),
    Request(
        "tools/call",
        ("--tool-name", "register_persona", "--tool-arg", "name=Con", "role=Developer"),
        f'"slug":"{SLUG}"',
    ),
    Request(
        "tools/call",
        ("--tool-name", "lookup_role", "--tool-arg", "name=developer"),
        f'"slug":"{SLUG}"',
    ),
    Request("resources/list", (), SLUG),
)
REQUESTS = {
    "legacy": BOTH_ERAS,
    "modern": (*BOTH_ERAS, Request("skills/list", ("--verify", "--require-digests"), SLUG)),
}


def check(report: Report, tools: Tools) -> None:
    launcher = tools.modules / "@modelcontextprotocol/inspector/clients/launcher/build/index.js"
    for era, requests in REQUESTS.items():
        name = f"Inspector, {era}"
        with fresh(report, name) as surroundings:
            server = ("--config", _write_config(surroundings), "--server", "dramatis")
            inspector = (tools.node, launcher, "--cli", *server, "--protocol-era", era)
            for request in requests:
                method = ("--format", "json", "--method", *request.words)
                ended = run([*inspector, *method], surroundings)
                good = ended.code == 0 and request.expected in ended.out
                report.check(f"{name}: {' '.join(request.words)}", None if good else ended.output)


def _write_config(surroundings: Surroundings) -> Path:
    server = {"command": str(COMMAND), "args": ["mcp"], "env": surroundings.variables}
    config = surroundings.home / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {"dramatis": server}}))
    return config
