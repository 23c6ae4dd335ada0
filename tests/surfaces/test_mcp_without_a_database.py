"""What agents still get when there is no database: the files of standards are on the disk."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from inline_snapshot import snapshot
from mcp import Client

from server.surfaces.mcp.server import build
from server.work import App, DatabaseUnavailable, Place
from tests.standards.conftest import Project
from tests.surfaces.test_mcp_tools import called, refused

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def away() -> AsyncGenerator[App]:
    raise DatabaseUnavailable("The database does not answer.")
    yield


def without_database(place: Place | None, era: Any) -> Client:
    return Client(build(away, find_place=lambda: place), mode=era, cache=None)


async def test_a_search_reads_the_files(project: Project, each_era: str):
    project.write("testing/flaky-tests.md")

    async with without_database(project.place, each_era) as client:
        found = await called(client, "search_standards", queries="midnight")

    assert [hit["file"] for hit in found["hits"]] == [".agent-os/standards/testing/flaky-tests.md"]
    assert (found["found_by"], found["note"]) == snapshot(
        (
            "scan of the files",
            "The database does not answer, so the files were searched word by word.",
        )
    )


async def test_a_search_outside_a_project_says_so(each_era: str):
    async with without_database(None, each_era) as client:
        said = await refused(client, "search_standards", queries="midnight")

    assert said.startswith("Error executing tool search_standards: no_project: ")


async def test_a_query_has_to_fit_its_rules_all_the_same(project: Project, each_era: str):
    async with without_database(project.place, each_era) as client:
        said = await refused(client, "search_standards", queries=["  "])

    assert "invalid: queries" in said
