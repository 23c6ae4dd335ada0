"""A project with standards, behind a server that serves every tool for them."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.client import ClientRequestContext
from mcp.types import (
    ElicitRequestFormParams,
    ElicitRequestParams,
    ElicitResult,
)

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


class Person:
    """Sits in front of a client, and answers with what it was told, in turn."""

    def __init__(self, *answers: ElicitResult) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.forms: list[dict[str, Any]] = []
        self.meanwhile: Callable[[], Any] | None = None

    async def __call__(
        self, context: ClientRequestContext, params: ElicitRequestParams
    ) -> ElicitResult:
        assert isinstance(params, ElicitRequestFormParams)
        self.asked.append(params.message)
        self.forms.append(params.requested_schema)
        if self.meanwhile is not None:
            happens, self.meanwhile = self.meanwhile, None
            await happens()
        return self.answers.pop(0)
