"""Con and the drafts of his spec, behind a server that serves the toolset of specs."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from mcp import Client
from mcp.types import ElicitResult

from server.personas import service as personas
from server.personas.shapes import Registered
from server.specs import gate, publishing, service
from server.surfaces.mcp.server import build
from server.work import App, Caller
from tests.conftest import Opened
from tests.surfaces.conftest import Person
from tests.surfaces.test_mcp_tools import called

TOOLSETS = ["personas", "specs"]
PUBLISH = "Error executing tool publish_persona_spec: "

YES = ElicitResult(action="accept", content={"publish": True})
NO = ElicitResult(action="decline")


@pytest.fixture(params=["auto", "legacy"])
def era(request: pytest.FixtureRequest) -> str:
    return request.param


Connect = Callable[[Person | None], AbstractAsyncContextManager[Client]]


@pytest.fixture
def connect(app: App, era: Any) -> Connect:
    server = build(Opened(app), toolsets=TOOLSETS)
    return lambda person: Client(server, mode=era, cache=None, elicitation_callback=person)


@pytest.fixture
async def client(connect: Connect) -> AsyncIterator[Client]:
    """A client that cannot ask anybody."""
    async with connect(None) as client:
        yield client


@pytest.fixture
async def con(app: App, caller: Caller) -> Registered:
    return await personas.register_persona(app, caller, name="Con", role="developer")


@pytest.fixture
async def kind(con: Registered, app: App, caller: Caller) -> Registered:
    """Con, with the draft 1.0.0."""
    async with app.work(caller) as work:
        await service.create_spec(work, con.slug, {"constitution": ["Be kind."]})
    return con


async def publish(app: App, caller: Caller, version: str, principle: str | None = None) -> None:
    async with app.work(caller) as work:
        if principle:
            await service.create_spec(
                work, "con", {"version": version, "constitution": [principle]}
            )
        await publishing.publish_spec(work, "con", version, note="by the operator")


async def check_kindness(app: App, caller: Caller, *, words: str = "be honest") -> None:
    async with app.work(caller) as work:
        await gate.set_checks(work, "con", f"- {{name: kindness, must_contain: [{words}]}}")


async def active(client: Client) -> str | None:
    listed = await called(client, "list_persona_specs", persona="con")
    return listed["personas"][0]["active"]
