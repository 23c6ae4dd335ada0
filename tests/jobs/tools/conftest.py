"""The tools of a run that has a project, called as a model calls them."""

from typing import Any
from uuid import UUID

import pytest

from server.jobs.running import RunJob
from server.jobs.tooling import ToolAnswer
from server.jobs.tools import tools_for
from server.work import App, Caller
from tests.conftest import but
from tests.standards.conftest import Project, agent_of


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project((tmp_path_factory.mktemp("work") / "repository").resolve())


@pytest.fixture
async def app(app: App, project: Project) -> App:
    return but(app, place=project.place)


@pytest.fixture
def job(app: App) -> RunJob:
    return job_of(app, agent_of(app, "architect"))


def job_of(app: App, caller: Caller, persona: str = "architect") -> RunJob:
    return RunJob(
        id=UUID(int=1),
        attempt=1,
        persona=persona,
        prompt="You are an architect.",
        request="Review this.",
        model="test",
        model_url=None,
        tokens_limit=1000,
        usd_limit=None,
        place=app.place,
        app=app,
        caller=caller,
    )


async def call(job: RunJob, name: str, **arguments: Any) -> ToolAnswer:
    (tool,) = [tool for tool in tools_for(job) if tool.name == name]
    answer = await tool.function(**arguments)
    assert isinstance(answer, ToolAnswer)
    return answer


def unfenced(text: str) -> str:
    """Leave out what stands in fences, as CommonMark closes them."""
    kept, fence = list[str](), ""
    for line in text.splitlines():
        ticks = line[: len(line) - len(line.lstrip("`"))]
        if fence:
            fence = "" if len(ticks) >= len(fence) and line == ticks else fence
        elif len(ticks) >= 3:
            fence = ticks
        else:
            kept.append(line)
    assert not fence
    return "\n".join(kept)
