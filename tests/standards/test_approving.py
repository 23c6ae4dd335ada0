"""Only a person decides, on exactly what they were shown, and once."""

from typing import Any

import pytest
from dirty_equals import IsDatetime, IsPartialDict
from inline_snapshot import snapshot

from server.errors import Invalid
from server.personas import assets
from server.standards.approving import (
    NeedsPerson,
    ProposalChanged,
    StandardPending,
    approve_proposal,
    reject_proposal,
    request_changes,
)
from server.standards.folder import StandardChanged
from server.standards.proposals import Decided, Proposed
from server.standards.queries import ProposalNotFound
from server.standards.service import ProposalDecided, SecretFound, revise_proposal
from server.standards.writing import StandardNotWritten
from server.work import OPERATOR_SCOPES, PERSON_SCOPES, READ_ONLY, App, Caller, Scope
from tests.conftest import but
from tests.standards.conftest import (
    FLAKY,
    RETRIES,
    Project,
    approved,
    audited,
    person_of,
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
EVERYTHING: frozenset[Scope] = OPERATOR_SCOPES | PERSON_SCOPES


async def decide(app: App, caller: Caller, made: Proposed, verdict: str) -> Decided:
    """Decide on a proposal as it was when it was made."""
    if verdict == "approve":
        return await approve_proposal(
            app, caller, made.id, digest=made.digest, channel="elicitation"
        )
    verb = {"return": request_changes, "reject": reject_proposal}[verdict]
    async with app.work(caller) as work:
        return await verb(
            work, made.id, digest=made.digest, feedback="Because.", channel="elicitation"
        )


async def revise(app: App, caller: Caller, made: Proposed, **values: Any) -> Proposed:
    return await using(app, caller, lambda work: revise_proposal(work, made.id, **values))


async def is_untouched(app: App, person: Caller, project: Project, made: Proposed) -> bool:
    detail = await shown(app, person, made.id)
    return (detail.status, detail.decisions, project.files()) == ("draft", [], [])


VERDICTS = ("approve", "return", "reject")


@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize(
    ("kind", "scopes"),
    [
        ("agent", EVERYTHING),
        ("agent", READ_ONLY),
        ("operator", OPERATOR_SCOPES),
        ("operator", EVERYTHING),
        ("human", READ_ONLY),
        ("human", OPERATOR_SCOPES),
    ],
)
async def test_nobody_but_a_person_decides_whatever_else_they_may(
    app: App,
    agent: Caller,
    person: Caller,
    project: Project,
    verdict: str,
    kind: Any,
    scopes: frozenset[Scope],
):
    made = await proposed(app, agent)

    with pytest.raises(NeedsPerson, match="Only a person decides"):
        await decide(app, but(person, kind=kind, scopes=scopes), made, verdict)

    assert await is_untouched(app, person, project, made)


async def test_an_agent_that_proposed_does_not_approve_under_its_persons_name(
    app: App, person: Caller, project: Project
):
    agent = but(person, kind="agent")
    made = await proposed(app, agent)

    with pytest.raises(NeedsPerson):
        await decide(app, agent, made, "approve")

    assert await is_untouched(app, person, project, made)


async def test_an_approval_says_what_came_of_it_and_is_kept(
    app: App, agent: Caller, person: Caller, project: Project
):
    made = await proposed(app, agent)

    answer = await decide(app, person, made, "approve")

    assert answer.model_dump() == {
        "id": made.id,
        "status": "approved",
        "verdict": "approved",
        "revision": 1,
        "digest": made.digest,
        "file": FILE,
        "path": str(project.place.root / FILE),
        "created": True,
        "self_approved": False,
        "message": f"Standard created at {FILE}",
    }
    detail = await shown(app, person, made.id)
    assert [one.model_dump() for one in detail.decisions] == snapshot(
        [
            {
                "revision": 1,
                "verdict": "approved",
                "feedback": None,
                "person": "ada",
                "channel": "elicitation",
                "self_approved": False,
                "decided_at": IsDatetime(),
            }
        ]
    )
    assert (detail.status, detail.waits_for, detail.not_written) == ("approved", "nobody", False)


@pytest.mark.parametrize(("proposer", "own"), [("ada", True), ("grace", False)])
async def test_a_person_who_approves_what_they_proposed_is_recorded_as_such(
    app: App, person: Caller, proposer: str, own: bool
):
    made = await proposed(app, person_of(app, proposer))

    answer = await decide(app, person, made, "approve")

    (decision,) = (await shown(app, person, made.id)).decisions
    assert (answer.self_approved, decision.self_approved) == (own, own)
    assert (await audited(app, person))[1][3] == IsPartialDict(self_approved=own)


@pytest.mark.parametrize("verdict", ["return", "reject"])
async def test_only_an_approval_of_ones_own_is_recorded_as_such(
    app: App, person: Caller, verdict: str
):
    made = await proposed(app, person)

    answer = await decide(app, person, made, verdict)

    (decision,) = (await shown(app, person, made.id)).decisions
    assert (answer.self_approved, decision.self_approved) == (False, False)


@pytest.mark.parametrize("verdict", VERDICTS)
async def test_a_decision_is_about_exactly_the_revision_that_was_shown(
    app: App, agent: Caller, person: Caller, project: Project, verdict: str
):
    made = await proposed(app, agent)
    again = await revise(app, agent, made, content=RETRIES)

    for stale in (made, but_digest(made, ""), but_digest(made, again.digest[:-1])):
        with pytest.raises(
            ProposalChanged, match=r"revision 2 is the newest\. Nothing was decided"
        ):
            await decide(app, person, stale, verdict)

    assert await is_untouched(app, person, project, made)
    assert (await decide(app, person, again, verdict)).revision == 2


def but_digest(made: Proposed, digest: str) -> Proposed:
    return made.model_copy(update={"digest": digest})


async def test_a_file_made_since_it_was_proposed_keeps_a_new_one_from_being_approved(
    app: App, agent: Caller, person: Caller, project: Project
):
    made = await proposed(app, agent)
    project.write("testing/flaky-tests.md", RETRIES)

    with pytest.raises(StandardChanged, match="so nothing was approved"):
        await decide(app, person, made, "approve")

    assert (await shown(app, person, made.id)).decisions == []
    assert project.read("testing/flaky-tests.md") == RETRIES


@pytest.mark.parametrize("now", [f"{RETRIES}\nBy hand.\n", None], ids=["changed", "removed"])
async def test_a_change_is_about_exactly_the_file_that_was_read(
    app: App, agent: Caller, person: Caller, project: Project, now: str | None
):
    file = project.write("testing/flaky-tests.md", RETRIES)
    made = await proposed(app, agent, base_sha256=assets.sha256(RETRIES))
    file.unlink() if now is None else file.write_text(now, encoding="utf-8")

    with pytest.raises(StandardChanged, match="so nothing was approved"):
        await decide(app, person, made, "approve")

    assert (await shown(app, person, made.id)).decisions == []
    assert (file.read_text(encoding="utf-8") if file.exists() else None) == now


async def test_an_edit_becomes_a_revision_of_the_persons_and_exactly_that_is_approved(
    app: App, agent: Caller, person: Caller, project: Project
):
    made = await proposed(app, agent, tags=["time"])
    edited = FLAKY.replace("midnight", "noon")

    answer = await approved(app, person, made.id, content=edited)

    detail = await shown(app, person, made.id)
    assert [(one.number, one.author) for one in detail.revisions] == [
        (1, agent.name),
        (2, person.name),
    ]
    assert (detail.content, detail.tags, detail.digest) == (edited.strip(), ["time"], answer.digest)
    assert [(one.revision, one.verdict) for one in detail.decisions] == [(2, "approved")]
    assert (answer.revision, answer.digest == made.digest) == (2, False)
    assert project.read("testing/flaky-tests.md").endswith(f"---\n\n{edited}")


async def test_an_edit_that_changes_nothing_makes_no_revision(
    app: App, agent: Caller, person: Caller
):
    made = await proposed(app, agent)

    answer = await approved(app, person, made.id, content=f"{FLAKY}\n\n")

    assert (answer.revision, answer.digest) == (1, made.digest)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (f"# X\n\n{TOKEN}\n$TOKEN\n", SecretFound, "content, line 3: a GitHub token"),
        ("---\napproved_by: mallory\n---\n# X", Invalid, "must not begin with front matter"),
        (" ", Invalid, "must not be empty or blank"),
        ("x" * 50_001, Invalid, "must have at most 50000 characters"),
    ],
)
async def test_an_edit_is_held_to_the_rules_of_a_proposal(
    app: App,
    agent: Caller,
    person: Caller,
    project: Project,
    content: str,
    error: type[Exception],
    message: str,
):
    made = await proposed(app, agent)

    with pytest.raises(error, match=message):
        await approved(app, person, made.id, content=content)

    assert await is_untouched(app, person, project, made)
    assert len((await shown(app, person, made.id)).revisions) == 1


async def test_an_edit_of_a_stale_revision_is_refused_too(
    app: App, agent: Caller, person: Caller, project: Project
):
    made = await proposed(app, agent)
    await revise(app, agent, made, content=RETRIES)

    with pytest.raises(ProposalChanged):
        await approved(app, person, made.id, digest=made.digest, content="# Mine")

    assert await is_untouched(app, person, project, made)


@pytest.mark.parametrize("first", ["approve", "reject"])
@pytest.mark.parametrize("then", VERDICTS)
async def test_what_is_approved_or_rejected_stays_so(
    app: App, agent: Caller, person: Caller, first: str, then: str
):
    made = await proposed(app, agent)
    done = await decide(app, person, made, first)

    with pytest.raises(ProposalDecided, match=f"{done.status} already, and that is final"):
        await decide(app, person, made, then)

    assert len((await shown(app, person, made.id)).decisions) == 1


async def test_a_rejection_keeps_its_reason_and_writes_nothing(
    app: App, agent: Caller, person: Caller, project: Project
):
    made = await proposed(app, agent)

    answer = await rejected(app, person, made.id, " Too narrow. ")

    detail = await shown(app, person, made.id)
    assert (answer.status, answer.verdict, answer.path) == ("rejected", "rejected", None)
    assert (detail.feedback, detail.waits_for) == ("Too narrow.", "nobody")
    assert project.files() == []
    # What was rejected does not keep anybody from proposing it again.
    assert (await proposed(app, agent)).id != made.id


async def test_changes_can_be_asked_for_again_and_again(
    app: App, agent: Caller, person: Caller, project: Project
):
    made = await proposed(app, agent)

    first = await returned(app, person, made.id, "Shorter.")
    again = await returned(app, person, made.id, "Much shorter.")

    detail = await shown(app, person, made.id)
    assert [one.feedback for one in detail.decisions] == ["Shorter.", "Much shorter."]
    assert (first.status, again.verdict, again.path) == ("draft", "changes", None)
    assert (detail.status, detail.waits_for, project.files()) == ("draft", "persona", [])
    # A person may still approve it as it is.
    assert (await approved(app, person, made.id)).status == "approved"


@pytest.mark.parametrize("verb", [request_changes, reject_proposal])
@pytest.mark.parametrize("feedback", ["", " \n", "x" * 5_001, "a\x07"])
async def test_saying_no_takes_a_reason(
    app: App, agent: Caller, person: Caller, verb: Any, feedback: str
):
    made = await proposed(app, agent)

    with pytest.raises(Invalid, match=r"^feedback: must"):
        async with app.work(person) as work:
            await verb(work, made.id, digest=made.digest, feedback=feedback, channel="rest")


@pytest.mark.parametrize("verdict", VERDICTS)
async def test_what_is_not_there_cannot_be_decided(
    app: App, agent: Caller, person: Caller, verdict: str
):
    made = (await proposed(app, agent)).model_copy(update={"id": 2**31 - 1})

    with pytest.raises(ProposalNotFound):
        await decide(app, person, made, verdict)


async def test_nothing_more_is_approved_for_a_file_that_still_has_to_be_written(
    app: App, agent: Caller, person: Caller, project: Project
):
    first = await proposed(app, agent)
    second = await proposed(app, agent, content=RETRIES)
    elsewhere = await proposed(app, agent, domain="data", topic="clocks")
    project.write("testing", "a file where a folder should be")

    with pytest.raises(StandardNotWritten):
        await decide(app, person, first, "approve")
    with pytest.raises(StandardPending, match=f"repair {first.id}` first"):
        await decide(app, person, second, "approve")

    assert (await shown(app, person, second.id)).status == "draft"
    assert (await decide(app, person, elsewhere, "approve")).created


async def test_every_answer_is_in_the_audit_log(
    app: App, agent: Caller, person: Caller, project: Project
):
    made = await proposed(app, agent)
    other = await proposed(app, agent, content=RETRIES)
    await returned(app, person, made.id, "Shorter.")
    await rejected(app, person, other.id, "No.")
    await approved(app, person, made.id)

    def entry(action: str, one: Proposed, channel: str) -> tuple[Any, ...]:
        details = {
            "proposal": one.id,
            "revision": 1,
            "digest": one.digest,
            "channel": channel,
            "self_approved": False,
        }
        return person.name, action, FILE, details

    sha256 = assets.sha256(project.read("testing/flaky-tests.md"))
    assert (await audited(app, person))[2:] == [
        entry("standard.returned", made, "console"),
        entry("standard.rejected", other, "rest"),
        entry("standard.approved", made, "terminal"),
        (person.name, "standard.written", FILE, {"proposal": made.id, "sha256": sha256}),
    ]


async def test_an_answer_that_is_refused_leaves_no_entry(app: App, agent: Caller, person: Caller):
    made = await proposed(app, agent)

    with pytest.raises(SecretFound):
        await approved(app, person, made.id, content=TOKEN)

    assert [action for _, action, _, _ in await audited(app, person)] == ["standard.proposed"]
