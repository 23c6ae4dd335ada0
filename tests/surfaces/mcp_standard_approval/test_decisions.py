"""A person decides on a proposal in their client. No argument and no agent can do it for them."""

from typing import Any

import pytest
from dirty_equals import IsPartialDict, IsStr
from mcp import Client
from mcp.types import ElicitResult
from sqlalchemy import select

from db.tables import DecisionRow
from server import access
from server.standards import approving, queries
from server.standards.proposals import Proposed
from server.work import App
from tests.conftest import operator
from tests.standards.conftest import FLAKY, Project, agent_of, proposed, using
from tests.surfaces.conftest import Ask, Person
from tests.surfaces.mcp_standard_approval.conftest import APPROVE, FILE, NO, TOOL, accepts, status
from tests.surfaces.test_mcp_tools import called, refused

pytestmark = pytest.mark.anyio

AWAY = ElicitResult(action="cancel")


@pytest.mark.parametrize("answer", [APPROVE, accepts(decision="approve", feedback="")])
async def test_a_person_who_accepts_makes_it_a_standard(
    draft: Proposed, in_front: Ask, placed: App, project: Project, answer: ElicitResult
):
    person = Person(answer)
    async with in_front(person) as client:
        answered = await called(client, TOOL, proposal=draft.id)
        found = await called(client, "search_standards", queries="midnight")

    assert answered == {
        "status": "approved",
        "proposal": draft.id,
        "revision": 1,
        "file": FILE,
        "path": str(project.place.root / FILE),
        "feedback": None,
        "command": None,
        "message": f"Standard created at {FILE}.",
    }
    assert project.read("testing/flaky-tests.md").endswith(FLAKY)
    assert found["hits"][0] == IsPartialDict(review="approved", approved_by=access.login_name())
    async with placed.work(operator(placed)) as work:
        (decision,) = await work.session.scalars(select(DecisionRow))
    assert (decision.person, decision.channel, decision.digest, decision.self_approved) == (
        access.login_name(),
        "elicitation",
        draft.digest,
        False,
    )


async def test_a_request_for_changes_goes_to_the_persona_with_its_feedback(
    draft: Proposed, in_front: Ask, project: Project
):
    person = Person(accepts(decision="ask for changes", feedback=" Say why. "))
    async with in_front(person) as client:
        answered = await called(client, TOOL, proposal=draft.id)
        again = await refused(client, TOOL, proposal=draft.id)
        assert await status(client, draft.id) == ("draft", "persona")

    assert answered == {
        "status": "changes_requested",
        "proposal": draft.id,
        "revision": 1,
        "file": FILE,
        "path": None,
        "feedback": "Say why.",
        "command": None,
        "message": f"Proposal {draft.id} goes back to its persona. Revise it with"
        " revise_standard_proposal.",
    }
    assert again == (
        f"Error executing tool {TOOL}: awaits_revision: A person has asked for changes to revision"
        f" 1 of proposal {draft.id}: Say why. Store another one with revise_standard_proposal"
        " before you ask again."
    )
    assert project.files() == []


async def test_a_rejection_is_final(draft: Proposed, in_front: Ask, project: Project):
    person = Person(accepts(decision="reject", feedback="Not ours."))
    async with in_front(person) as client:
        answered = await called(client, TOOL, proposal=draft.id)
        again = await refused(client, TOOL, proposal=draft.id)
        assert await status(client, draft.id) == ("rejected", "nobody")

    assert (answered["status"], answered["feedback"]) == ("rejected", "Not ours.")
    assert answered["message"] == f"Proposal {draft.id} is rejected, for good."
    assert f"proposal_decided: Proposal {draft.id} is rejected already" in again
    assert project.files() == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (NO, "The user did not decide on proposal ID, so it stays open."),
        (AWAY, "The user did not decide on proposal ID, so it stays open."),
        (accepts(decision="reject"), "Nothing was decided: the user would reject, not why."),
        (
            accepts(decision="ask for changes", feedback="  "),
            "Nothing was decided: the user would ask for changes, not why.",
        ),
        (
            accepts(decision="approve", feedback="But not like this."),
            "Nothing was decided: the user approved and gave feedback.",
        ),
    ],
)
async def test_an_answer_that_is_no_clear_decision_leaves_it_open(
    draft: Proposed, in_front: Ask, project: Project, answer: ElicitResult, message: str
):
    async with in_front(Person(answer)) as client:
        answered = await called(client, TOOL, proposal=draft.id)
        assert await status(client, draft.id) == ("draft", "person")

    assert answered == IsPartialDict(
        status="left_open",
        path=None,
        command=IsStr(regex=rf"dramatis standards review {draft.id} --project .*"),
    )
    assert answered["message"].replace(str(draft.id), "ID").startswith(message)
    assert project.files() == []


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"x": 1},
        {"feedback": ""},
        {"decision": "approve", "x": 1},
        {"decision": "yes"},
        {"decision": True},
        {"decision": "approve", "feedback": 7},
    ],
)
async def test_a_form_that_comes_back_broken_decides_nothing(
    draft: Proposed, in_front: Ask, content: dict[str, Any]
):
    async with in_front(Person(accepts(**content))) as client:
        await refused(client, TOOL, proposal=draft.id)
        assert await status(client, draft.id) == ("draft", "person")


async def test_where_nobody_can_be_asked_the_answer_is_the_command(
    draft: Proposed, agent: Client, project: Project, placed: App
):
    answered = await called(agent, TOOL, proposal=draft.id)

    assert answered == {
        "status": "cannot_ask",
        "proposal": draft.id,
        "revision": 1,
        "file": FILE,
        "path": None,
        "feedback": None,
        "command": f"dramatis standards review {draft.id} --project {project.place.root}"
        f" --data-root {placed.data_root}",
        "message": f"This client cannot ask anybody. Tell the user that proposal {draft.id} waits"
        " for them, and which command shows it. Go on with your work.",
    }
    assert await status(agent, draft.id) == ("draft", "person")


@pytest.mark.parametrize(
    "claimed",
    [
        {"approved_by": "ada"},
        {"status": "approved"},
        {"confirm": True},
        {"decision": "approve"},
        {"answer": {"decision": "approve"}},
        {"prospect": {"not_written": True}},
        {"channel": "terminal"},
    ],
)
async def test_no_argument_approves(
    draft: Proposed, agent: Client, project: Project, claimed: dict[str, Any]
):
    said = await refused(agent, TOOL, proposal=draft.id, **claimed)

    (name,) = claimed
    assert f"invalid: {name}: is not known here. Known: proposal." in said
    assert await status(agent, draft.id) == ("draft", "person")
    assert project.files() == []


@pytest.mark.parametrize("proposal", [0, -1, 2**31, "x", None])
async def test_what_is_no_number_of_a_proposal_is_refused(agent: Client, proposal: Any):
    assert "invalid: proposal: must " in await refused(agent, TOOL, proposal=proposal)


async def test_ten_proposals_in_a_row_are_ten_questions_with_an_answer_each(
    in_front: Ask, placed: App, project: Project
):
    ids = [
        (await proposed(placed, agent_of(placed), topic=f"topic-{n}", content=f"Rule {n}.")).id
        for n in range(10)
    ]
    answers = [
        APPROVE if n % 2 else accepts(decision="reject", feedback=f"Not {n}.") for n in range(10)
    ]
    person = Person(*answers)
    async with in_front(person) as client:
        for number in ids:
            await called(client, TOOL, proposal=number)

    shown = [asked.splitlines()[2].partition(",")[0] for asked in person.asked]
    assert shown == [f"Proposal {number}" for number in ids]
    assert project.files() == [f"testing/topic-{n}.md" for n in range(1, 10, 2)]


async def test_agents_cannot_approve_however_they_call_the_room(draft: Proposed, placed: App):
    agents = [agent_of(placed), operator(placed)]

    for caller in agents:
        with pytest.raises(approving.NeedsPerson):
            await approving.approve_proposal(
                placed, caller, draft.id, digest=draft.digest, channel="elicitation"
            )

    shown = await using(placed, agents[0], lambda work: queries.get_proposal(work, draft.id))
    assert (shown.status, shown.decisions) == ("draft", [])
