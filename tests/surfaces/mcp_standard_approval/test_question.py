"""What a person is shown when they are asked, and that nobody else can put words in it."""

import unicodedata
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot

from server.personas import assets
from server.standards.indexer import index_standards
from server.standards.proposals import Evidence, ProposalDetail
from server.surfaces.mcp.standard_approval import QUESTION_LENGTH, question
from server.work import App
from tests.standards.conftest import (
    FLAKY,
    RETRIES,
    Project,
    agent_of,
    approved,
    person_of,
    proposed,
)
from tests.surfaces.conftest import Ask, Person
from tests.surfaces.mcp_standard_approval.conftest import APPROVE, FILE, NO, TOOL, accepts, revise
from tests.surfaces.test_mcp_tools import called

pytestmark = pytest.mark.anyio


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
