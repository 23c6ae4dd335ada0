"""Revisions of a draft: numbered, never changed, each with a digest of all that is shown of it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from server.errors import Forbidden, Invalid
from server.personas import assets
from server.personas.service import (
    NothingToChange,
    delete_persona,
    register_persona,
    update_persona,
)
from server.standards.folder import StandardChanged
from server.standards.proposals import Evidence, Proposed
from server.standards.queries import ProposalNotFound, diff
from server.standards.service import (
    ProposalDecided,
    SecretFound,
    StandardExists,
    StandardGone,
    revise_proposal,
)
from server.work import READ_ONLY, App, Caller
from tests.conftest import but, operator
from tests.standards.conftest import (
    FLAKY,
    RETRIES,
    Project,
    approved,
    audited,
    proposed,
    rejected,
    returned,
    shown,
    using,
)

pytestmark = pytest.mark.anyio

# Put together here, so that no scanner takes this file for a leak.
TOKEN = "gh" + "p_" + "a1B2c3D4" * 5
FILE = ".agent-os/standards/testing/flaky-tests.md"


async def revised(app: App, caller: Caller, proposal: int, **values: Any) -> Proposed:
    return await using(app, caller, lambda work: revise_proposal(work, proposal, **values))


async def test_what_is_left_out_of_a_revision_stays_as_it_was(app: App, agent: Caller):
    evidence = [Evidence(file="a.py")]
    made = await proposed(app, agent, evidence=evidence, confidence=0.4, tags=["time"])

    again = await revised(app, agent, made.id, content=RETRIES)

    detail = await shown(app, agent, made.id)
    assert (detail.content, detail.reason, detail.evidence, detail.confidence, detail.tags) == (
        RETRIES.strip(),
        "Seen in three files.",
        evidence,
        0.4,
        ["time"],
    )
    assert [(one.number, one.digest) for one in detail.revisions] == [
        (1, made.digest),
        (2, again.digest),
    ]
    assert (detail.digest, detail.status, detail.waits_for) == (again.digest, "draft", "person")


@pytest.mark.parametrize(
    "changes",
    [
        {"content": RETRIES},
        {"reason": "Seen in four files."},
        {"evidence": [Evidence(file="b.py")]},
        {"confidence": 0.51},
        {"tags": ["clock"]},
    ],
    ids=lambda changes: next(iter(changes)),
)
async def test_whatever_a_person_is_shown_changes_the_digest(
    app: App, agent: Caller, changes: dict[str, Any]
):
    made = await proposed(app, agent)

    again = await revised(app, agent, made.id, **changes)
    back = await revised(
        app,
        agent,
        made.id,
        content=FLAKY,
        reason="Seen in three files.",
        evidence=[],
        confidence=0.5,
        tags=[],
    )

    assert len({made.digest, again.digest, back.digest}) == 3


async def test_lists_can_be_emptied(app: App, agent: Caller):
    made = await proposed(app, agent, evidence=[Evidence(file="a.py")], tags=["time"])

    await revised(app, agent, made.id, evidence=[], tags=[])

    detail = await shown(app, agent, made.id)
    assert (detail.evidence, detail.tags) == ([], [])


async def test_a_revision_that_says_nothing_new_is_refused(app: App, agent: Caller):
    made = await proposed(app, agent)

    for values in ({}, {"content": f"\n{FLAKY}\n"}, {"reason": " Seen in three files. "}):
        with pytest.raises(NothingToChange, match=f"Proposal {made.id} says that already"):
            await revised(app, agent, made.id, **values)


async def test_asking_for_changes_keeps_the_draft_and_gives_the_turn_to_the_persona(
    app: App, agent: Caller, person: Caller
):
    made = await proposed(app, agent)

    await returned(app, person, made.id, "Name the clock.")
    asked = await shown(app, agent, made.id)
    await revised(app, agent, made.id, content=FLAKY.replace("clock", "`Clock`"))
    answered = await shown(app, agent, made.id)

    assert (asked.status, asked.waits_for, asked.feedback) == (
        "draft",
        "persona",
        "Name the clock.",
    )
    assert (answered.status, answered.waits_for) == ("draft", "person")
    assert answered.feedback == "Name the clock."
    assert answered.since_answer == snapshot(
        [
            "--- as it is",
            "+++ as proposed",
            "@@ -6,4 +6,4 @@",
            " ",
            " ## Pattern",
            " ",
            "-Pass the clock in. A test that reads the time twice fails around midnight.",
            "+Pass the `Clock` in. A test that reads the time twice fails around midnight.",
        ]
    )


@pytest.mark.parametrize("decide", ["approve", "reject"])
async def test_what_is_decided_is_not_revised(app: App, agent: Caller, person: Caller, decide: str):
    made = await proposed(app, agent)
    if decide == "approve":
        await approved(app, person, made.id)
    else:
        await rejected(app, person, made.id, "No.")

    with pytest.raises(ProposalDecided, match="already, and that is final"):
        await revised(app, agent, made.id, content=RETRIES)

    assert len((await shown(app, agent, made.id)).revisions) == 1


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"content": f"{FLAKY}\n{TOKEN}"}, SecretFound, "content, line 11: a GitHub token"),
        ({"reason": TOKEN}, SecretFound, "reason, line 1"),
        ({"evidence": [Evidence(file="a", note=TOKEN)]}, SecretFound, "evidence, line 1"),
        ({"tags": [TOKEN[:40]]}, SecretFound, "tags, line 1"),
        ({"content": "---\na: b\n---\n"}, Invalid, "must not begin with front matter"),
        ({"content": " "}, Invalid, "must not be empty or blank"),
        ({"base_sha256": "0" * 64}, StandardGone, "is not there"),
    ],
)
async def test_a_revision_is_held_to_the_rules_of_a_proposal(
    app: App, agent: Caller, values: dict[str, Any], error: type[Exception], message: str
):
    made = await proposed(app, agent)

    with pytest.raises(error, match=message):
        await revised(app, agent, made.id, **values)

    assert (await shown(app, agent, made.id)).digest == made.digest


async def test_a_revision_is_made_against_the_file_as_it_is_now(
    app: App, agent: Caller, project: Project
):
    made = await proposed(app, agent)
    project.write("testing/flaky-tests.md", RETRIES)

    with pytest.raises(StandardExists):
        await revised(app, agent, made.id, reason="Now against the file.")
    with pytest.raises(StandardChanged):
        await revised(app, agent, made.id, base_sha256="0" * 64)
    await revised(app, agent, made.id, base_sha256=assets.sha256(RETRIES))

    detail = await shown(app, agent, made.id)
    assert (detail.stale, detail.changes_existing, detail.revision) == (None, True, 2)


async def test_who_revises_is_named_as_the_author(app: App, agent: Caller, person: Caller):
    quinn = await register_persona(app, operator(app), name="Quinn", role="QA")
    made = await proposed(app, agent, persona="quinn")

    await revised(app, agent, made.id, content=RETRIES)
    await revised(app, person, made.id, content=FLAKY)

    detail = await shown(app, agent, made.id)
    assert [one.author for one in detail.revisions] == [quinn.slug, quinn.slug, "ada"]
    assert detail.created_by == quinn.slug


async def test_what_an_agent_makes_of_a_persons_proposal_is_not_the_persons(
    app: App, agent: Caller, person: Caller
):
    made = await proposed(app, person)
    await revised(app, agent, made.id, content=RETRIES)

    detail = await shown(app, person, made.id)
    decided = await approved(app, person, made.id)

    assert [one.author for one in detail.revisions] == ["ada", "ada via claude-code"]
    assert not decided.self_approved


async def test_what_a_person_makes_of_an_agents_proposal_is_their_own(
    app: App, agent: Caller, person: Caller
):
    made = await proposed(app, agent)
    await revised(app, person, made.id, content=RETRIES)

    assert (await approved(app, person, made.id)).self_approved


async def test_a_text_that_was_revised_away_can_be_proposed_again(app: App, agent: Caller):
    made = await proposed(app, agent)
    await revised(app, agent, made.id, content=RETRIES)

    assert (await proposed(app, agent)).id != made.id


@pytest.mark.parametrize("end", ["archived", "deleted"])
async def test_a_proposal_outlives_its_persona(
    app: App, agent: Caller, person: Caller, project: Project, end: str
):
    quinn = await register_persona(app, operator(app), name="Quinn", role="QA")
    made = await proposed(app, agent, persona=quinn.slug)
    async with app.work(operator(app)) as work:
        if end == "archived":
            await update_persona(work, quinn.slug, status="archived")
        else:
            await delete_persona(work, quinn.slug)

    await revised(app, agent, made.id, content=RETRIES)
    await approved(app, person, made.id)

    detail = await shown(app, person, made.id)
    assert [one.author for one in detail.revisions] == [quinn.slug, quinn.slug]
    assert f"created_by: {quinn.slug}\n" in project.read("testing/flaky-tests.md")


async def test_who_may_only_read_may_not_revise(app: App, agent: Caller):
    made = await proposed(app, agent)

    with pytest.raises(Forbidden):
        await revised(app, but(agent, scopes=READ_ONLY), made.id, content=RETRIES)


async def test_what_is_not_there_cannot_be_revised(app: App, agent: Caller):
    with pytest.raises(ProposalNotFound, match="This project has no proposal"):
        await revised(app, agent, 2**31 - 1, content=RETRIES)


async def test_revising_is_in_the_audit_log(app: App, agent: Caller):
    made = await proposed(app, agent)

    again = await revised(app, agent, made.id, content=RETRIES)

    details = {
        "proposal": made.id,
        "revision": 2,
        "digest": again.digest,
        "created_by": agent.name,
    }
    assert (await audited(app, agent))[1:] == [(agent.name, "standard.revised", FILE, details)]


@pytest.mark.parametrize("table", ["proposal_revisions", "proposal_decisions"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET digest = ''", "DELETE FROM {}"])
async def test_what_was_proposed_and_answered_cannot_be_changed_in_the_database_either(
    app: App, agent: Caller, person: Caller, table: str, statement: str
):
    made = await proposed(app, agent)
    await returned(app, person, made.id, "Shorter.")

    async with app.work(agent) as work:
        with pytest.raises(ProgrammingError, match=f"permission denied for table {table}"):
            await work.session.execute(text(statement.format(f"dramatis.{table}")))
        await work.session.rollback()


lines = st.lists(st.sampled_from(["# A", "- b", "", "c"]), max_size=8).map("\n".join)


@given(lines, lines)
def test_a_diff_shows_every_line_that_comes_and_goes_and_none_for_equal_texts(old: str, new: str):
    shown_lines = diff(old, new)

    before, after = (text.strip().split("\n") if text.strip() else [] for text in (old, new))
    gone = [line for line in shown_lines[2:] if line.startswith("-")]
    come = [line for line in shown_lines[2:] if line.startswith("+")]
    assert len(come) - len(gone) == len(after) - len(before)
    assert (shown_lines == []) == (before == after)
    assert diff(old.replace("\n", "\r\n"), old) == []
