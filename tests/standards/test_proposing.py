"""What a proposal keeps, shows and refuses. Nothing of it is a standard yet."""

from pathlib import Path
from typing import Any

import pytest
from dirty_equals import IsDatetime, IsInt, IsStr
from inline_snapshot import snapshot

from server.errors import Forbidden, Invalid
from server.personas import assets
from server.personas.queries import PersonaNotFound
from server.personas.service import PersonaArchived, register_persona, update_persona
from server.standards.catalogue import (
    StandardNotFound,
    StandardNotReadable,
    list_standards,
    read_standard,
)
from server.standards.folder import StandardChanged, StandardLinked
from server.standards.projects import NoProject
from server.standards.proposals import Evidence, ProposalPage
from server.standards.queries import ProposalNotFound, get_proposal, list_proposals
from server.standards.search import search_standards
from server.standards.service import (
    AlreadyProposed,
    SecretFound,
    StandardExists,
    StandardGone,
)
from server.work import READ_ONLY, App, Caller, Place
from tests.conftest import but, operator
from tests.standards.conftest import (
    FLAKY,
    RETRIES,
    Index,
    Project,
    approved,
    audited,
    proposed,
    returned,
    shown,
    using,
)

pytestmark = pytest.mark.anyio

CORPUS = Path(__file__).parent.parent / "benchmarks" / "standards_corpus"
# Put together here, so that no scanner takes this file for a leak.
TOKEN = "gh" + "p_" + "a1B2c3D4" * 5
DIGEST = IsStr(regex="[0-9a-f]{64}")
FILE = ".agent-os/standards/testing/flaky-tests.md"


async def page(app: App, caller: Caller, **values: Any) -> ProposalPage:
    return await using(app, caller, lambda work: list_proposals(work, **values))


async def test_a_proposal_is_kept_whole_and_waits_for_a_person(app: App, agent: Caller):
    evidence = [Evidence(file="tests/test_a.py", lines="10-14", note="Reads the clock.")]

    made = await proposed(app, agent, evidence=evidence, confidence=0.9, tags=["Time", "time"])

    assert made.model_dump() == snapshot(
        {
            "id": IsInt(),
            "revision": 1,
            "file": ".agent-os/standards/testing/flaky-tests.md",
            "status": "draft",
            "digest": DIGEST,
            "similar": [],
            "other_proposals": [],
            "message": IsStr(regex=r"Proposal \d+ waits for a person\. .*"),
        }
    )
    detail = await shown(app, agent, made.id)
    assert detail.model_dump(exclude={"content", "diff"}) == snapshot(
        {
            "id": IsInt(),
            "domain": "testing",
            "topic": "flaky-tests",
            "file": ".agent-os/standards/testing/flaky-tests.md",
            "status": "draft",
            "waits_for": "person",
            "changes_existing": False,
            "revision": 1,
            "reason": "Seen in three files.",
            "created_by": "ada via claude-code",
            "created_at": IsDatetime(),
            "feedback": None,
            "not_written": False,
            "evidence": [{"file": "tests/test_a.py", "lines": "10-14", "note": "Reads the clock."}],
            "confidence": 0.9,
            "tags": ["time"],
            "digest": DIGEST,
            "base_sha256": None,
            "current_sha256": None,
            "base_review": None,
            "kept": {},
            "stale": None,
            "since_answer": [],
            "similar": [],
            "other_proposals": [],
            "revisions": [
                {
                    "number": 1,
                    "author": "ada via claude-code",
                    "created_at": IsDatetime(),
                    "digest": DIGEST,
                }
            ],
            "decisions": [],
            "review_command": IsStr(regex=r"dramatis standards review \d+ --project .*"),
        }
    )
    assert (detail.id, detail.digest, detail.content) == (made.id, made.digest, FLAKY.strip())


async def test_until_it_is_approved_no_file_is_there_and_nothing_can_be_found(
    app: App, agent: Caller, project: Project, index: Index
):
    project.write("testing/retries.md", RETRIES)
    made = await proposed(app, agent)
    await index()

    found = await search_standards(app, agent, "flaky test clock midnight")
    listed = await using(app, agent, list_standards)

    assert [hit.topic for hit in found.hits] == []
    assert [one.topic for one in listed.standards] == ["retries"]
    assert project.files() == ["testing/retries.md"]
    with pytest.raises(StandardNotFound):
        await using(app, agent, lambda work: read_standard(work, "testing", "flaky-tests"))
    assert made.status == "draft"


async def test_proposing_leaves_the_project_as_it_was(app: App, agent: Caller, project: Project):
    await proposed(app, agent)

    assert [path.name for path in project.place.root.rglob("*")] == [".git"]


async def test_who_may_only_read_may_not_propose(app: App, agent: Caller):
    with pytest.raises(Forbidden):
        await proposed(app, but(agent, scopes=READ_ONLY))


async def test_without_a_project_there_is_nothing_to_propose_to(app: App, agent: Caller):
    with pytest.raises(NoProject):
        await proposed(but(app, place=None), agent)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"content": " \n"}, "content: must not be empty or blank."),
        ({"content": "x" * 50_001}, "content: must have at most 50000 characters."),
        ({"content": "a\0b"}, "content: must not contain the NUL character."),
        ({"content": "a\x1bb"}, "content: must not contain control characters."),
        ({"content": "---\ntags: [a]\n---\n# X"}, "content: must not begin with front matter."),
        ({"content": "\n\n---\napproved_by: ada\n---\n# X"}, "content: must not begin with front"),
        ({"reason": ""}, "reason: must not be empty or blank."),
        ({"confidence": 1.5}, "confidence: must be less than or equal to 1."),
        ({"confidence": float("nan")}, "confidence: must be"),
        ({"tags": ["a\nb"]}, "tags.0: must not contain control characters or line breaks."),
        ({"tags": ["t"] * 21}, "tags: must have at most 20 items"),
        ({"base_sha256": "abc"}, "base_sha256: must match pattern"),
    ],
)
async def test_what_breaks_a_rule_is_refused_in_words(
    app: App, agent: Caller, values: dict[str, Any], message: str
):
    with pytest.raises(Invalid) as refused:
        await proposed(app, agent, **values)

    assert refused.value.args[0].startswith(message)
    assert await page(app, agent) == ProposalPage(proposals=[], waiting=0, next_before=None)


async def test_a_secret_is_refused_with_its_line_and_a_placeholder_on_the_next_passes(
    app: App, agent: Caller
):
    lines = ["# Deploying", *[f"Line {n}." for n in range(2, 40)], f"Use {TOKEN} for it."]

    with pytest.raises(SecretFound) as refused:
        await proposed(app, agent, content="\n".join([*lines, "password: $DATABASE_PASSWORD"]))
    made = await proposed(
        app, agent, content="\n".join([*lines[:-1], "", "password: $DATABASE_PASSWORD"])
    )

    assert refused.value.args[0] == snapshot(
        "This looks like a secret, so nothing was stored: content, line 40: a GitHub token."
    )
    assert TOKEN not in str(refused.value)
    assert made.revision == 1


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"reason": f"Seen.\nWith {TOKEN}."}, "reason, line 2"),
        ({"tags": [TOKEN[:40]]}, "tags, line 1"),
        ({"evidence": [Evidence(file="a"), Evidence(file="b", note=TOKEN)]}, "evidence, line 2"),
        ({"evidence": [Evidence(file=f"a/{TOKEN}")]}, "evidence, line 1"),
        ({"content": f"# X\n\nUse {TOKEN}."}, "content, line 3"),
    ],
)
async def test_a_secret_is_refused_wherever_it_stands(
    app: App, agent: Caller, values: dict[str, Any], where: str
):
    with pytest.raises(SecretFound, match=f"{where}: a GitHub token"):
        await proposed(app, agent, **values)

    assert (await page(app, agent)).proposals == []


async def test_of_many_secrets_the_first_lines_are_named(app: App, agent: Caller):
    with pytest.raises(SecretFound, match=r"content, line 5: a GitHub token and 2 more\."):
        await proposed(app, agent, content="\n".join([TOKEN] * 7))


async def test_a_topic_that_exists_is_changed_only_by_who_has_read_it_as_it_is(
    app: App, agent: Caller, project: Project
):
    file = project.write("testing/flaky-tests.md", RETRIES)

    with pytest.raises(StandardExists, match=f"{FILE} exists already"):
        await proposed(app, agent)
    with pytest.raises(StandardChanged, match="has changed since it was read"):
        await proposed(app, agent, base_sha256=assets.sha256(FLAKY))
    made = await proposed(app, agent, base_sha256=assets.sha256(RETRIES))

    assert (await shown(app, agent, made.id)).changes_existing
    file.unlink()
    with pytest.raises(StandardGone, match="Propose it anew without base_sha256"):
        await proposed(app, agent, content=RETRIES, base_sha256=assets.sha256(RETRIES))


@pytest.mark.parametrize(
    "text",
    ["---\ntags: [a\n---\n# X\n", "---\ncreated_at: yesterday\n---\n# X\n", b"# \xff\n"],
    ids=["no YAML", "no date", "no text"],
)
async def test_a_file_of_which_a_part_would_be_lost_is_not_changed(
    app: App, agent: Caller, project: Project, text: str | bytes
):
    made = await proposed(app, agent, content=RETRIES)
    project.write("testing/flaky-tests.md", text)
    base = (await shown(app, agent, made.id)).current_sha256

    with pytest.raises(StandardNotReadable, match="a part of it would be lost"):
        await proposed(app, agent, base_sha256=base)


async def test_a_domain_that_leads_out_is_refused(
    app: App, agent: Caller, project: Project, tmp_path: Path
):
    project.place.standards.mkdir(parents=True)
    (project.place.standards / "testing").symlink_to(tmp_path)

    with pytest.raises(StandardLinked):
        await proposed(app, agent)


async def test_the_same_text_for_the_same_file_waits_only_once(app: App, agent: Caller):
    first = await proposed(app, agent)

    with pytest.raises(AlreadyProposed, match=f"Proposal {first.id} says the same about {FILE}"):
        await proposed(app, agent, topic="Flaky Tests.md", reason="Another one.")
    elsewhere = await proposed(app, agent, topic="unsteady-tests")
    other = await proposed(app, agent, content=RETRIES)

    assert elsewhere.other_proposals == []
    assert other.other_proposals == [first.id]
    assert (await shown(app, agent, first.id)).other_proposals == [other.id]


async def test_a_persona_proposes_under_its_own_name(app: App, agent: Caller):
    quinn = await register_persona(app, operator(app), name="Quinn", role="QA")

    made = await proposed(app, agent, persona="quinn")

    detail = await shown(app, agent, made.id)
    assert (detail.created_by, [one.author for one in detail.revisions]) == (
        quinn.slug,
        [quinn.slug],
    )
    with pytest.raises(PersonaNotFound):
        await proposed(app, agent, persona="nobody", content=RETRIES)
    await using(app, operator(app), lambda work: update_persona(work, "quinn", status="archived"))
    with pytest.raises(PersonaArchived):
        await proposed(app, agent, persona=quinn.slug, content=RETRIES)


async def test_a_near_copy_names_the_standard_that_says_it_already(
    app: App, agent: Caller, project: Project, index: Index
):
    for path in sorted(CORPUS.glob("*/*.md")):
        project.write(path.relative_to(CORPUS).as_posix(), path.read_text(encoding="utf-8"))
    await index()
    copied = (CORPUS / "testing" / "flaky-tests.md").read_text(encoding="utf-8")
    words = copied.split(" ")

    near = " ".join(word for at, word in enumerate(words) if at % 4)
    copy = await proposed(app, agent, topic="unsteady-tests", content=near)
    change = await proposed(app, agent, content=near, base_sha256=assets.sha256(copied))
    apart = await proposed(
        app,
        agent,
        topic="screenshots",
        content="# Screenshots\n\nTake them at one width, with animations off, and compare pixels.",
    )

    assert [one.model_dump() for one in copy.similar] == snapshot(
        [
            {
                "domain": "testing",
                "topic": "flaky-tests",
                "file": ".agent-os/standards/testing/flaky-tests.md",
                "relevance": 0.4,
            }
        ]
    )
    assert (await shown(app, agent, copy.id)).similar == copy.similar
    assert (change.similar, apart.similar) == ([], [])


async def test_a_small_project_has_its_copies_named_too(
    app: App, agent: Caller, project: Project, index: Index
):
    (first, other) = (CORPUS / "testing" / name for name in ("flaky-tests.md", "load-tests.md"))
    project.write("testing/flaky-tests.md", first.read_text(encoding="utf-8"))
    await index()

    copy = await proposed(app, agent, topic="a", content=first.read_text(encoding="utf-8"))
    apart = await proposed(app, agent, topic="b", content=other.read_text(encoding="utf-8"))

    assert [one.topic for one in copy.similar] == ["flaky-tests"]
    assert apart.similar == []


async def test_proposing_is_in_the_audit_log(app: App, agent: Caller):
    made = await proposed(app, agent)

    assert await audited(app, agent) == [
        (
            agent.name,
            "standard.proposed",
            FILE,
            {"proposal": made.id, "revision": 1, "digest": made.digest, "created_by": agent.name},
        )
    ]


async def test_the_newest_are_listed_first_a_page_at_a_time(
    app: App, agent: Caller, person: Caller
):
    ids = [(await proposed(app, agent, topic=f"topic-{n}")).id for n in range(5)]
    await returned(app, person, ids[4], "Shorter.")
    await approved(app, person, ids[3])

    first = await page(app, agent, limit=2)
    second = await page(app, agent, limit=2, before=first.next_before)
    done = await page(app, agent, status="approved")
    every = await page(app, agent, status="all")

    assert [one.id for one in first.proposals] == [ids[4], ids[2]]
    assert [one.waits_for for one in first.proposals] == ["persona", "person"]
    assert [one.id for one in second.proposals] == [ids[1], ids[0]]
    assert [(one.id, one.waits_for) for one in done.proposals] == [(ids[3], "nobody")]
    assert [one.id for one in every.proposals] == ids[::-1]
    assert (first.waiting, second.waiting, done.waiting) == (3, 3, 3)
    assert (first.next_before, second.next_before) == (ids[2], None)


async def test_a_change_is_shown_as_a_diff_against_the_file_as_it_is(
    app: App, agent: Caller, project: Project
):
    file = project.write("testing/flaky-tests.md", f"---\nowner: qa\n---\n\n{FLAKY}")
    base = assets.sha256(file.read_text(encoding="utf-8"))
    made = await proposed(app, agent, content=FLAKY.replace("midnight", "noon"), base_sha256=base)

    fresh = await shown(app, agent, made.id)
    file.write_text("# Flaky tests\n", encoding="utf-8")
    changed = await shown(app, agent, made.id)
    file.unlink()
    removed = await shown(app, agent, made.id)

    assert fresh.diff == snapshot(
        [
            "--- as it is",
            "+++ as proposed",
            "@@ -6,4 +6,4 @@",
            " ",
            " ## Pattern",
            " ",
            "-Pass the clock in. A test that reads the time twice fails around midnight.",
            "+Pass the clock in. A test that reads the time twice fails around noon.",
        ]
    )
    assert (fresh.stale, fresh.current_sha256, fresh.base_sha256) == (None, base, base)
    assert (changed.stale, removed.stale) == (
        f"{FILE} has changed since this was proposed.",
        f"{FILE} has been removed since this was proposed.",
    )
    assert changed.current_sha256 == assets.sha256("# Flaky tests\n")
    assert removed.current_sha256 is None


async def test_a_file_that_was_made_meanwhile_makes_a_proposal_stale(
    app: App, agent: Caller, project: Project
):
    made = await proposed(app, agent)
    project.write("testing/flaky-tests.md", RETRIES)

    assert (await shown(app, agent, made.id)).stale == (
        f"{FILE} has been made since this was proposed."
    )


async def test_a_proposal_of_another_project_is_one_that_does_not_exist(
    app: App, agent: Caller, tmp_path: Path
):
    made = await proposed(app, agent)
    other = but(app, place=Place("", tmp_path, tmp_path / "standards", None))
    await proposed(other, agent)

    said: list[str] = []
    for number in (made.id, 2**31 - 1):
        with pytest.raises(ProposalNotFound) as refused:
            await using(other, agent, lambda work, n=number: get_proposal(work, n))
        said.append(str(refused.value).replace(str(number), "N"))
    assert said[0] == said[1]
    assert [one.id != made.id for one in (await page(other, agent)).proposals] == [True]


@pytest.mark.parametrize("number", [0, -1, 2**31, 2**70])
async def test_a_number_that_no_proposal_can_have_is_refused(app: App, agent: Caller, number: int):
    with pytest.raises(Invalid, match=r"^proposal: must be"):
        await shown(app, agent, number)
