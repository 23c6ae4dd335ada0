"""What a hit says of who approved it."""

import pytest

from server.standards.documents import body_sha256
from server.work import App
from tests.standards.conftest import Index, Project, agent_of, approved, person_of, proposed
from tests.standards.searching.conftest import search

pytestmark = pytest.mark.anyio

APPROVED = "# Clocks\n\nA clock is passed in, never read.\n"


async def approve(app: App) -> None:
    clocks = await proposed(app, agent_of(app), topic="clocks", content=APPROVED)
    await approved(app, person_of(app, "grace"), clocks.id)


async def test_a_text_that_a_person_approved_says_who(project: Project, app: App):
    await approve(app)

    result = await search(app, "clock")

    assert [(hit.review, hit.approved_by) for hit in result.hits] == [("approved", "grace")]


async def test_an_approved_text_that_somebody_changed_is_unreviewed(
    project: Project, app: App, index: Index
):
    await approve(app)
    file = project.place.standards / "testing" / "clocks.md"
    file.write_text(f"{file.read_text()}\nOr read it twice.\n")
    await index()

    result = await search(app, "clock")

    assert {(hit.review, hit.approved_by) for hit in result.hits} == {("unreviewed", None)}


async def test_a_file_that_claims_to_be_approved_is_no_more_than_claimed(
    project: Project, app: App, index: Index
):
    claim = f"approved_by: grace\napproved_sha256: {body_sha256(APPROVED)}"
    project.write("testing/clocks.md", f"---\n{claim}\n---\n\n{APPROVED}")
    project.write("testing/others.md", f"---\n{claim}\n---\n\n{APPROVED}\nOr do not.\n")
    await index()

    result = await search(app, "clock")

    assert {(hit.topic, hit.review, hit.approved_by) for hit in result.hits} == {
        ("clocks", "claimed", "grace"),
        ("others", "unreviewed", None),
    }
