"""A person decides on a proposal in their client. No argument and no agent can do it for them."""

import unicodedata
from datetime import UTC, datetime
from typing import Any

import pytest
from dirty_equals import IsPartialDict, IsStr
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot
from mcp import Client
from mcp.types import ElicitResult
from sqlalchemy import select

from db.tables import DecisionRow
from server import access
from server.personas import assets
from server.standards import approving, queries, service
from server.standards.indexer import index_standards
from server.standards.proposals import Evidence, ProposalDetail, Proposed
from server.surfaces.mcp.standard_approval import QUESTION_LENGTH, question
from server.work import App
from tests.conftest import operator
from tests.standards.conftest import (
    FLAKY,
    RETRIES,
    Project,
    agent_of,
    approved,
    person_of,
    proposed,
    using,
)
from tests.surfaces.conftest import Ask
from tests.surfaces.test_mcp_specs import Person
from tests.surfaces.test_mcp_tools import called, refused

pytestmark = pytest.mark.anyio

TOOL = "request_standard_approval"
FILE = ".agent-os/standards/testing/flaky-tests.md"


def accepts(**content: Any) -> ElicitResult:
    return ElicitResult(action="accept", content=content)


APPROVE = accepts(decision="approve")
UNTOUCHED = accepts()
NO = ElicitResult(action="decline")
AWAY = ElicitResult(action="cancel")


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


@pytest.mark.parametrize("answer", [APPROVE, UNTOUCHED])
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


async def test_the_question_shows_all_that_a_yes_is_a_yes_to(
    in_front: Ask, placed: App, project: Project
):
    project.write("testing/clocks.md")
    project.write("operations/retries.md", RETRIES)
    await index_standards(placed, agent_of(placed))
    draft = await proposed(
        placed,
        agent_of(placed),
        content=RETRIES,
        evidence=[Evidence(file="a.py", lines="1-2", note="twice\nso"), Evidence(file="b.py")],
        tags=["clock"],
        confidence=0.85,
    )
    other = await proposed(placed, agent_of(placed), content="Something else.")
    person = Person(NO)
    async with in_front(person) as client:
        await called(client, TOOL, proposal=draft.id)

    assert person.asked[0].replace(f"Proposal {draft.id},", "Proposal 1,").replace(
        f"file: {other.id}", "file: 2"
    ) == snapshot("""\
Make this a standard for everybody who works on this project?
If you accept with "approve", .agent-os/standards/testing/flaky-tests.md is created with exactly the text below, and every agent finds it. To ask for changes or to reject, say why.
Proposal 1, revision 1, by ada via claude-code, 85% sure. Why:
│ Seen in three files.
Seen in:
│ a.py 1-2 twice so
│ b.py
Close to it: .agent-os/standards/operations/retries.md
Other proposals for the same file: 2
Tags: clock
The text:
│ # Retries
│
│ ## Pattern
│
│ Retry only what is idempotent, with exponential back-off and jitter.\
""")
    assert [form["properties"] for form in person.forms] == snapshot(
        [
            {
                "decision": {
                    "default": "approve",
                    "description": "What is to become of it",
                    "enum": ["approve", "ask for changes", "reject"],
                    "title": "Decision",
                    "type": "string",
                },
                "feedback": {
                    "default": "",
                    "description": "Why; needed unless you approve",
                    "title": "Feedback",
                    "type": "string",
                },
            }
        ]
    )


async def test_a_change_is_shown_as_a_diff_with_what_was_asked_for_before(
    in_front: Ask, placed: App, project: Project
):
    base = await approved_base(placed, project)
    draft = await proposed(placed, agent_of(placed), content=f"{FLAKY}\nSleep.", base_sha256=base)
    person = Person(accepts(decision="ask for changes", feedback="Never\nsleep."), APPROVE)
    async with in_front(person) as client:
        await called(client, TOOL, proposal=draft.id)
        await revise(placed, draft.id, f"{FLAKY}\nNever sleep.")
        answered = await called(client, TOOL, proposal=draft.id)

    assert answered["message"] == f"Standard updated at {FILE}."
    assert project.read("testing/flaky-tests.md").endswith("\n\nNever sleep.\n")
    assert person.asked[1].replace(f"Proposal {draft.id},", "Proposal 1,") == snapshot("""\
Make this a standard for everybody who works on this project?
If you accept with "approve", .agent-os/standards/testing/flaky-tests.md changes as shown below, and every agent finds it. To ask for changes or to reject, say why.
Proposal 1, revision 2, by ada via claude-code, 50% sure. Why:
│ Seen in three files.
Asked for before:
│ Never
│ sleep.
Changed since then:
│ @@ -8,4 +8,4 @@
│
│  Pass the clock in. A test that reads the time twice fails around midnight.
│
│ -Sleep.
│ +Never sleep.
The change:
│ @@ -7,3 +7,5 @@
│  ## Pattern
│
│  Pass the clock in. A test that reads the time twice fails around midnight.
│ +
│ +Never sleep.\
""")


async def test_a_change_of_what_nobody_approved_shows_all_of_it(
    in_front: Ask, placed: App, project: Project
):
    text = f"---\nrule: hidden\n---\n\n{FLAKY}\nSkip the review.\n\nNever.\n"
    base = assets.sha256(project.write("testing/flaky-tests.md", text).read_text("utf-8"))
    content = f"{FLAKY}\nSkip the review.\n\nIn a year."
    draft = await proposed(placed, agent_of(placed), content=content, base_sha256=base)
    person = Person(accepts(decision="reject", feedback="No."))
    async with in_front(person) as client:
        await called(client, TOOL, proposal=draft.id)

    assert "never approved here: a yes approves all of the text.\n" in person.asked[0]
    assert 'Front matter that stays: {"rule": "hidden"}\n' in person.asked[0]
    assert "\n│ Skip the review.\n" in person.asked[0]


async def test_what_could_be_out_of_sight_is_not_asked_about_in_a_form(in_front: Ask, placed: App):
    for number, padding in enumerate(["\n" * 500, " " * 1_500]):
        content = f"# Fine\n\nGood.{padding}EVIL"
        draft = await proposed(placed, agent_of(placed), topic=f"fine-{number}", content=content)
        person = Person()
        async with in_front(person) as client:
            answered = await called(client, TOOL, proposal=draft.id)

        assert (answered["status"], person.asked) == ("cannot_ask", [])


async def approved_base(app: App, project: Project) -> str:
    """Have a standard approved, and return the hash of its file."""
    draft = await proposed(app, agent_of(app))
    await approved(app, person_of(app), draft.id)
    return assets.sha256(project.read("testing/flaky-tests.md"))


async def test_a_change_of_the_tags_alone_is_said_to_be_one(
    in_front: Ask, placed: App, project: Project
):
    base = await approved_base(placed, project)
    draft = await proposed(placed, agent_of(placed), base_sha256=base, tags=["clock"])
    person = Person(APPROVE)
    async with in_front(person) as client:
        await called(client, TOOL, proposal=draft.id)

    assert person.asked[0].endswith("\nTags: clock\nIts text stays as it is.")
    assert "tags:\n- clock\n" in project.read("testing/flaky-tests.md")


async def test_what_others_wrote_can_neither_look_like_ours_nor_hide(in_front: Ask, placed: App):
    hidden = "\u202e\u2066\u200b\U000e0041\U000e0101\ufeff"
    forged = f"x{hidden}\nThe text:\u2028│ harmless\r\nProposal 9, by the user.\nTags:\tsafe"
    draft = await proposed(
        placed,
        agent_of(placed),
        content=forged,
        reason=forged,
        evidence=[Evidence(file="a.py", note=forged)],
    )
    person = Person(NO)
    async with in_front(person) as client:
        await called(client, TOOL, proposal=draft.id)

    assert not set(hidden) & set(person.asked[0])
    assert person.asked[0].replace(f"Proposal {draft.id},", "Proposal 1,") == snapshot("""\
Make this a standard for everybody who works on this project?
If you accept with "approve", .agent-os/standards/testing/flaky-tests.md is created with exactly the text below, and every agent finds it. To ask for changes or to reject, say why.
Proposal 1, revision 1, by ada via claude-code, 50% sure. Why:
│ x\\u202e\\u2066\\u200b\\U000e0041\\U000e0101\\ufeff
│ The text:\\u2028│ harmless
│ Proposal 9, by the user.
│ Tags:	safe
Seen in:
│ a.py x\\u202e\\u2066\\u200b\\U000e0041\\U000e0101\\ufeff The text: │ harmless Proposal 9, by the user. Tags: safe
The text:
│ x\\u202e\\u2066\\u200b\\U000e0041\\U000e0101\\ufeff
│ The text:\\u2028│ harmless
│ Proposal 9, by the user.
│ Tags:	safe\
""")


def written_by_others(text: str, *, changes: bool) -> ProposalDetail:
    """A proposal in which everything that others write is `text`."""
    diff = ["--- as it is", "+++ as proposed", *text.splitlines()]
    return ProposalDetail(
        id=1,
        domain="testing",
        topic="flaky-tests",
        file=FILE,
        status="draft",
        waits_for="person",
        changes_existing=changes,
        revision=2,
        reason=text,
        created_by="con",
        created_at=datetime.now(UTC),
        feedback=text,
        not_written=False,
        content=text,
        evidence=[Evidence.model_construct(file=text, lines=text, note=text)],
        confidence=0.5,
        tags=[],
        digest="0" * 64,
        base_sha256=None,
        current_sha256=None,
        base_review="approved" if changes else None,
        kept={},
        stale=None,
        diff=diff,
        since_answer=diff,
        similar=[],
        other_proposals=[],
        revisions=[],
        decisions=[],
        review_command="",
    )


@given(text=st.text(min_size=1).filter(str.split), changes=st.booleans())
def test_every_line_of_a_question_is_ours_or_marked_and_everything_in_it_shows(
    text: str, changes: bool
):
    harmless = question(written_by_others("x", changes=changes)).split("\n")

    lines = question(written_by_others(text, changes=changes)).split("\n")

    ours = [line for line in lines if not line.startswith("│")]
    assert ours == [line for line in harmless if not line.startswith("│")]
    shown = {unicodedata.category(char) for line in lines for char in line if char != "\t"}
    assert shown & {"Cc", "Cf", "Cn", "Co", "Zl", "Zp"} == set()


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
        (accepts(feedback="Say why."), "Nothing was decided: the user approved and gave feedback."),
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


@pytest.mark.parametrize("content", [{"decision": "yes"}, {"decision": True}, {"feedback": 7}])
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


async def test_what_is_too_long_to_be_read_in_a_form_is_not_asked_in_one(
    in_front: Ask, placed: App
):
    long = "\n".join(["All of it is shown."] * 300)
    draft = await proposed(placed, agent_of(placed), content=long)
    person = Person()
    async with in_front(person) as client:
        answered = await called(client, TOOL, proposal=draft.id)

    assert len(long) < QUESTION_LENGTH
    assert answered["message"].startswith("It is too long for a form. Tell the user")
    assert (answered["status"], person.asked) == ("cannot_ask", [])


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
