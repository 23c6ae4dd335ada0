"""A proposal of an agent's, and what a person may answer to the question about it."""

from typing import Any

import pytest
from mcp import Client
from mcp.types import ElicitResult

from server.standards import service
from server.standards.proposals import Proposed
from server.work import App
from tests.standards.conftest import agent_of, proposed, using
from tests.surfaces.test_mcp_tools import called

TOOL = "request_standard_approval"
FILE = ".agent-os/standards/testing/flaky-tests.md"


def accepts(**content: Any) -> ElicitResult:
    return ElicitResult(action="accept", content=content)


APPROVE = accepts(decision="approve")


NO = ElicitResult(action="decline")


@pytest.fixture
async def draft(placed: App) -> Proposed:
    return await proposed(placed, agent_of(placed))


async def revise(app: App, proposal: int, content: str) -> None:
    await using(
        app,
        agent_of(app),
        lambda work: service.revise_proposal(work, proposal, content=content),
    )


async def status(client: Client, proposal: int) -> tuple[str, str]:
    shown = (await called(client, "list_standard_proposals", proposal=proposal))["detail"]
    return shown["status"], shown["waits_for"]
