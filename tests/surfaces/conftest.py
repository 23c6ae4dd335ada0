"""A project with standards, behind a server that serves every tool for them."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from server.surfaces.mcp.server import build
from server.work import App
from tests.conftest import Opened, but
from tests.standards.conftest import Project

Ask = Callable[[Any], AbstractAsyncContextManager[Client]]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project((tmp_path / "repository").resolve())


@pytest.fixture
def placed(app: App, project: Project) -> App:
    """The app as it is when it is started in the project."""
    return but(app, place=project.place)


@pytest.fixture(params=["auto", "legacy"])
def each_era(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def in_front(placed: App, each_era: Any) -> Ask:
    """Connect a client with somebody in front of it, or nobody."""
    server = build(Opened(placed), toolsets=["personas", "standards"])
    return lambda person: Client(server, mode=each_era, cache=None, elicitation_callback=person)


@pytest.fixture
async def agent(in_front: Ask) -> AsyncIterator[Client]:
    """A client that cannot ask anybody."""
    async with in_front(None) as client:
        yield client
