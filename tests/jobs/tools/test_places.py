"""Which tools a run has, by where its project is."""

import pytest

from server.jobs.running import RunJob
from server.jobs.tools import tools_for
from server.standards.indexer import index_standards
from server.standards.search import NotIndexed
from server.work import App
from tests.conftest import but
from tests.jobs.tools.conftest import call
from tests.standards.conftest import RETRIES, Project

pytestmark = pytest.mark.anyio


async def test_a_run_in_a_project_reads_and_proposes_and_can_do_nothing_else(job: RunJob):
    tools = tools_for(job)

    assert [tool.name for tool in tools] == [
        "search_standards",
        "list_standards",
        "read_standard",
        "propose_standard",
        "list_project_files",
        "read_project_file",
    ]
    assert all(tool.description.startswith("Use ") for tool in tools)


async def test_a_run_without_a_project_has_no_tools(app: App, job: RunJob):
    assert tools_for(but(job, place=None, app=but(app, place=None))) == ()


async def test_a_run_whose_project_is_elsewhere_asks_its_index(
    app: App, project: Project, job: RunJob
):
    project.write("data/retries.md", RETRIES)
    await index_standards(app, job.caller)
    here = [
        await call(job, "search_standards", queries=["retries"]),
        await call(job, "list_standards"),
    ]
    app.memory.clear()
    project.place.root.rename(project.place.root.with_name("moved"))
    job = but(job, place=None)

    answers = [
        await call(job, "search_standards", queries=["retries"]),
        await call(job, "list_standards"),
    ]

    assert answers == here
    assert [answer.details["found"] for answer in answers] == [1, 1]
    assert [tool.name for tool in tools_for(job)] == ["search_standards", "list_standards"]


async def test_a_run_whose_project_is_elsewhere_takes_no_other_for_it(
    project: Project, job: RunJob
):
    project.write("data/retries.md", RETRIES)
    job = but(job, place=None)

    with pytest.raises(NotIndexed, match="on another machine"):
        await call(job, "search_standards", queries=["retries"])
    listing = await call(job, "list_standards")

    assert listing.details == {"found": 0}
