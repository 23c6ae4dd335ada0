"""What a yes is worth when the proposal or its file changed while the person thought."""

import pytest
from inline_snapshot import snapshot

from server.standards import approving
from server.standards.proposals import Proposed
from server.work import App
from tests.standards.conftest import Project, person_of
from tests.surfaces.conftest import Ask, Person
from tests.surfaces.mcp_standard_approval.conftest import APPROVE, FILE, NO, TOOL, revise, status
from tests.surfaces.test_mcp_tools import called, refused

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("each_era", ["auto"])
async def test_a_modern_client_is_asked_anew_about_what_was_revised_meanwhile(
    draft: Proposed, in_front: Ask, placed: App, project: Project
):
    person = Person(APPROVE, NO)
    person.meanwhile = lambda: revise(placed, draft.id, "Sleep.")
    async with in_front(person) as client:
        answered = await called(client, TOOL, proposal=draft.id)

    first, second = person.asked
    assert ("Sleep." in first, "Sleep." in second) == (False, True)
    assert answered["status"] == "left_open"
    assert project.files() == []


@pytest.mark.parametrize("each_era", ["legacy"])
async def test_an_older_clients_yes_is_void_for_what_was_revised_meanwhile(
    draft: Proposed, in_front: Ask, placed: App, project: Project
):
    person = Person(APPROVE)
    person.meanwhile = lambda: revise(placed, draft.id, "Sleep.")
    async with in_front(person) as client:
        said = await refused(client, TOOL, proposal=draft.id)
        assert await status(client, draft.id) == ("draft", "person")

    assert f"proposal_changed: Proposal {draft.id} was revised since it was shown" in said
    assert project.files() == []


async def test_a_yes_is_void_when_the_file_was_made_meanwhile(
    draft: Proposed, in_front: Ask, project: Project
):
    async def save() -> None:
        project.write("testing/flaky-tests.md", "By hand.")

    person = Person(APPROVE)
    person.meanwhile = save
    async with in_front(person) as client:
        said = await refused(client, TOOL, proposal=draft.id)
        assert await status(client, draft.id) == ("draft", "person")

    assert "standard_changed: " in said
    assert project.read("testing/flaky-tests.md") == "By hand."


async def test_a_stale_proposal_is_refused_without_asking(
    draft: Proposed, in_front: Ask, project: Project
):
    project.write("testing/flaky-tests.md", "By hand.")
    person = Person()
    async with in_front(person) as client:
        said = await refused(client, TOOL, proposal=draft.id)

    assert said == snapshot(
        "Error executing tool request_standard_approval: standard_changed: .agent-os/standards/testing/flaky-tests.md has been made since this was proposed. Nothing was decided. Read it with read_standard, work the change into it, and pass content and base_sha256 to revise_standard_proposal."
    )
    assert person.asked == []


async def test_what_another_has_approved_meanwhile_is_not_approved_twice(
    draft: Proposed, in_front: Ask, placed: App
):
    person = Person(APPROVE)
    person.meanwhile = lambda: approving.approve_proposal(
        placed, person_of(placed, "eve"), draft.id, digest=draft.digest, channel="terminal"
    )
    async with in_front(person) as client:
        said = await refused(client, TOOL, proposal=draft.id)

    assert f"proposal_decided: Proposal {draft.id} is approved already" in said


async def test_an_approved_text_that_could_not_be_written_is_written_without_asking_again(
    draft: Proposed, in_front: Ask, project: Project
):
    project.place.standards.parent.mkdir()
    project.place.standards.write_text("in the way")
    person = Person(APPROVE)
    async with in_front(person) as client:
        said = await refused(client, TOOL, proposal=draft.id)
        project.place.standards.unlink()
        answered = await called(client, TOOL, proposal=draft.id)
        again = await refused(client, TOOL, proposal=draft.id)

    assert f"standard_not_written: Proposal {draft.id} is approved, but {FILE}" in said
    assert (answered["status"], answered["path"]) == ("approved", str(project.place.root / FILE))
    assert "proposal_decided: " in again
    assert len(person.asked) == 1
