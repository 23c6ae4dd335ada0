"""Versions: how they are numbered, that they never change, and what a draft is a preview of."""

import json
from pathlib import Path
from typing import Any

import pytest
from dirty_equals import IsStr
from sqlalchemy import select, text

from db.tables import AuditRow, PersonaSpecRow
from server.errors import Forbidden, Invalid
from server.personas import service as personas
from server.personas.queries import PersonaNotFound
from server.personas.service import PersonaArchived
from server.personas.shapes import Registered
from server.specs import publishing
from server.specs import service as specs
from server.specs.document import LARGEST_PART
from server.specs.notation import SpecNotReadable, canonical, digest, read_spec
from server.specs.queries import get_spec, list_specs
from server.specs.runtime import compiled_prompt, runtime_prompt
from server.specs.service import SpecVersionExists, VersionsExhausted
from server.work import AGENT_SCOPES, READ_ONLY, App, Caller, Work
from tests.conftest import but, operator

pytestmark = pytest.mark.anyio

REVIEWER = {
    "metadata": {"zeta": 1, "alpha": {"b": [1, 2.5, None], "a": True}},
    "constitution": ["Say what you saw.", "王 — ünïcode\n## Not a heading"],
    "decision_policy": {"weighs": {"risk": "high", "cost": "low"}, "asks": ["when unsure"]},
    "stance_values": {"honesty": 9, "brevity": 0.1},
    "identity_voice": {"tone": "dry"},
    "interaction_style": {"greets": False},
    "procedural_modules": [
        {"id": "review", "intent_labels": ["review"], "do": "Read all.", "few_shot_ids": ["e1"]},
        {"id": "always", "say_style": ["Briefly."], "ban": ["please"], "priority": 1},
    ],
    "canonical_examples": [
        {"id": "e1", "intent_label": "review", "prompt": "Look?", "response": "```\nDone.\n```"}
    ],
    "anti_examples": [
        {"id": "a1", "intent_label": "review", "prompt": "Look?", "response": "As an AI …"}
    ],
    "deterministic_rules": {"banned_phrases": ["as an AI"]},
}


@pytest.fixture
async def con(app: App, caller: Caller) -> Registered:
    return await personas.register_persona(app, caller, name="Con", role="developer")


async def create(work: Work, *versions: str | None, persona: str = "con") -> list[str]:
    """Create a version for each, whose text is its own; `None` leaves the number to the room."""
    made: list[str] = []
    for number, version in enumerate(versions):
        document: dict[str, Any] = {"constitution": [f"Principle {number} of {version}."]}
        draft = await specs.create_spec(
            work, persona, document | ({"version": version} if version else {})
        )
        made.append(draft.version)
    return made


def reversed_keys(content: object) -> dict[str, Any]:
    """Turn the keys around, at every depth."""
    text = json.dumps(content)
    return json.loads(text, object_pairs_hook=lambda pairs: dict(reversed(pairs)))


async def stored(work: Work) -> list[tuple[Any, ...]]:
    query = text("SELECT version, status, document, digest, created_at FROM dramatis.persona_specs")
    return [tuple(row) for row in await work.session.execute(query)]


@pytest.mark.usefixtures("con")
async def test_the_first_version_is_1_0_0_and_the_next_one_raises_the_patch(work: Work):
    assert await create(work, None, None, None) == ["1.0.0", "1.0.1", "1.0.2"]


@pytest.mark.usefixtures("con")
async def test_the_order_of_versions_counts_and_never_the_order_of_dates(work: Work):
    assert await create(work, "2.0.0", "1.0.5", None) == ["2.0.0", "1.0.5", "2.0.1"]


@pytest.mark.usefixtures("con")
async def test_versions_are_compared_as_numbers_and_not_as_texts(work: Work):
    assert (await create(work, "1.0.10", "1.0.9", None))[-1] == "1.0.11"
    assert (await create(work, "1.10.0", "1.9.0", None))[-1] == "1.10.1"
    assert (await create(work, "10.0.0", "9.0.0", None))[-1] == "10.0.1"

    listed = await list_specs(work, "con")
    assert [one.version for one in listed.versions] == [
        *("10.0.1", "10.0.0", "9.0.0"),
        *("1.10.1", "1.10.0", "1.9.0"),
        *("1.0.11", "1.0.10", "1.0.9"),
    ]


@pytest.mark.usefixtures("con")
async def test_a_first_version_may_be_any_and_0_0_0_is_one(work: Work):
    assert await create(work, "0.0.0", None) == ["0.0.0", "0.0.1"]


@pytest.mark.usefixtures("con")
async def test_an_existing_version_again_is_a_conflict_and_nothing_changes(work: Work):
    await create(work, "1.0.0", "1.0.1")
    before = await stored(work)

    with pytest.raises(SpecVersionExists) as refused:
        await specs.create_spec(work, "con", {"version": " 1.0.0 ", "constitution": ["Other."]})

    assert str(refused.value) == IsStr(
        regex=r"developer-con-\d+ has a spec 1\.0\.0 already, and a stored version never changes\."
        r" Leave `version` out to get 1\.0\.2\."
    )
    assert await stored(work) == before
    created = select(AuditRow.details["version"].astext).where(AuditRow.action == "spec.created")
    assert list(await work.session.scalars(created)) == ["1.0.0", "1.0.1"]


@pytest.mark.usefixtures("con")
async def test_the_same_text_again_is_a_conflict_too(work: Work):
    document = {"version": "1.0.0", "constitution": ["Be kind."]}
    await specs.create_spec(work, "con", document)

    with pytest.raises(SpecVersionExists):
        await specs.create_spec(work, "con", document)


@pytest.mark.usefixtures("con")
async def test_after_the_largest_patch_the_number_before_it_is_raised(work: Work):
    largest = LARGEST_PART

    assert await create(work, f"1.0.{largest}", None) == [f"1.0.{largest}", "1.1.0"]
    assert (await create(work, f"1.{largest}.{largest}", None))[1] == "2.0.0"


@pytest.mark.usefixtures("con")
async def test_no_version_follows_the_largest_but_an_explicit_one(work: Work):
    largest = f"{LARGEST_PART}.{LARGEST_PART}.{LARGEST_PART}"
    await create(work, largest)

    with pytest.raises(VersionsExhausted, match=f"after {largest}. Give `version`"):
        await create(work, None)
    assert await create(work, "1.1.0") == ["1.1.0"]


@pytest.mark.usefixtures("con")
async def test_the_largest_version_again_is_still_the_conflict_that_it_is(work: Work):
    await create(work, f"1.0.{LARGEST_PART}")

    with pytest.raises(SpecVersionExists, match="never changes"):
        await create(work, f"1.0.{LARGEST_PART}")


async def test_versions_of_two_personas_are_independent(
    app: App, caller: Caller, con: Registered, work: Work
):
    ann = await personas.register_persona(app, caller, name="Ann", role="developer")
    await create(work, "1.0.0", "2.0.0", persona=con.slug)

    assert await create(work, None, "2.0.0", persona=ann.slug) == ["1.0.0", "2.0.0"]
    assert [one.version for one in (await list_specs(work, con.slug)).versions] == [
        "2.0.0",
        "1.0.0",
    ]


async def test_a_draft_is_answered_with_all_that_it_is(con: Registered, work: Work):
    draft = await specs.create_spec(work, "con", REVIEWER)

    assert draft.model_dump(exclude={"preview"}) == {
        "slug": con.slug,
        "version": "1.0.0",
        "status": "draft",
        "origin": "written",
        "sources": [],
        "digest": digest(canonical(read_spec(REVIEWER | {"version": "1.0.0"}))),
    }
    assert draft.preview.spec_version == "1.0.0"
    assert draft.preview.dropped == []


async def test_a_preview_is_byte_for_byte_what_runs_later_over_another_connection(own_app: App):
    caller = operator(own_app)
    con = await personas.register_persona(own_app, caller, name="Con", role="developer")
    async with own_app.work(caller) as work:
        draft = await specs.create_spec(work, con.slug, REVIEWER)
        tried = await compiled_prompt(work, con.slug, draft.version)
        await publishing.publish_spec(work, con.slug, draft.version, note="the first")
    await own_app.database.engine.dispose()

    async with own_app.work(caller) as work:
        ran = await runtime_prompt(work, con.slug)
        kept = await get_spec(work, con.slug)
        taken_out = await specs.open_spec(work, con.slug)
        again = await specs.create_spec(work, con.slug, taken_out.text)

    assert ran.plan == draft.preview
    assert (ran.text, ran.trace.digest) == (draft.preview.text, draft.preview.digest)
    assert (tried.text, tried.trace) == (ran.text, ran.trace)
    assert ran.trace.spec_digest == kept.digest == draft.digest
    assert ran.trace.digest == digest(ran.text)
    assert (again.preview.text, again.preview.digest) == (ran.text, ran.trace.digest)


@pytest.mark.usefixtures("con")
async def test_shuffled_keys_make_the_same_version(work: Work):
    first = await specs.create_spec(work, "con", REVIEWER)
    second = await specs.create_spec(work, "con", reversed_keys(REVIEWER))

    assert second.preview.text == first.preview.text
    assert second.preview.digest == first.preview.digest
    documents = [document.replace("1.0.1", "1.0.0") for _, _, document, *_ in await stored(work)]
    assert documents[0] == documents[1]


@pytest.mark.usefixtures("con")
async def test_yaml_json_and_a_mapping_make_the_same_version(work: Work):
    written = [
        "version: 1.0.0\nconstitution:\n  - Be kind.\n",
        '{"version": "1.0.1", "constitution": ["Be kind."]}',
        {"version": "1.0.2", "constitution": ["Be kind."]},
    ]

    drafts = [await specs.create_spec(work, "con", document) for document in written]

    assert [draft.version for draft in drafts] == ["1.0.0", "1.0.1", "1.0.2"]
    assert len({draft.preview.digest for draft in drafts}) == 1


@pytest.mark.usefixtures("con")
@pytest.mark.parametrize(
    ("document", "refusal", "said"),
    [
        ("constitution: [", SpecNotReadable, "line 1"),
        ("- a list", SpecNotReadable, "A spec is a mapping"),
        ({"nonsense": 1}, Invalid, r"nonsense: is not known here\. Known: version, constitution"),
        ({"deterministic_rules": {"banned_phrases": "abc"}}, Invalid, r"banned_phrases: must be"),
        ({"version": "1.0"}, Invalid, "version: must be three numbers"),
        ({"version": "01.0.0"}, Invalid, "version: must be three numbers"),
        ({"version": "1.0.0-beta"}, Invalid, "version: must be three numbers"),
        ({"version": f"1.0.{LARGEST_PART + 1}"}, Invalid, "version: must be three numbers"),
    ],
)
async def test_what_is_refused_leaves_nothing_behind(
    work: Work, document: str | dict[str, Any], refusal: type[Exception], said: str
):
    with pytest.raises(refusal, match=said):
        await specs.create_spec(work, "con", document)

    assert await stored(work) == []
    actions = await work.session.scalars(select(AuditRow.action).order_by(AuditRow.id))
    assert list(actions) == ["persona.registered"]


async def test_creating_is_in_the_audit_log(con: Registered, work: Work):
    draft = await specs.create_spec(work, "con", {"constitution": ["Be kind."]})

    query = select(AuditRow).where(AuditRow.action == "spec.created")
    entry = (await work.session.scalars(query)).one()
    assert (entry.caller_kind, entry.caller_name, entry.subject) == ("operator", "tester", con.slug)
    assert entry.details == {"version": "1.0.0", "digest": draft.digest, "origin": "written"}


@pytest.mark.usefixtures("con")
async def test_a_version_carries_its_author(work: Work):
    await create(but(work, caller=but(work.caller, name="ann")), None)

    assert (await get_spec(work, "con", "1.0.0")).author == "ann"


@pytest.mark.usefixtures("con")
async def test_writing_needs_its_scope_and_an_agent_has_it(work: Work):
    reader = but(work, caller=but(work.caller, kind="agent", scopes=READ_ONLY))
    agent = but(work, caller=but(work.caller, kind="agent", scopes=AGENT_SCOPES))

    for attempt in (specs.create_spec(reader, "con", {}), specs.generate_spec(reader, "con")):
        with pytest.raises(Forbidden, match="specs:write"):
            await attempt
    assert await stored(work) == []
    assert await create(agent, None) == ["1.0.0"]


async def test_an_archived_or_unknown_persona_gets_no_version(con: Registered, work: Work):
    await personas.update_persona(work, con.slug, status="archived")

    for attempt in (specs.create_spec(work, con.slug, {}), specs.generate_spec(work, con.slug)):
        with pytest.raises(PersonaArchived, match="Restore it first"):
            await attempt
    with pytest.raises(PersonaNotFound):
        await specs.create_spec(work, "developer-con-999999", {})
    assert await stored(work) == []


@pytest.mark.usefixtures("con")
async def test_a_version_is_opened_to_be_changed_into_the_next_one(work: Work):
    await create(work, "1.0.0", "1.2.0", "1.1.0")

    highest, named = await specs.open_spec(work, "con"), await specs.open_spec(work, "con", "1.0.0")

    assert (highest.version, highest.next_version) == ("1.2.0", "1.2.1")
    assert (named.version, named.next_version) == ("1.0.0", "1.2.1")
    assert read_spec(named.text) == read_spec({"constitution": ["Principle 0 of 1.0.0."]})


async def test_a_generated_draft_says_what_it_was_made_from_and_is_not_published(
    con: Registered, work: Work
):
    (Path(con.path) / "skill.md").write_text("# Con\n\n## Core Identity\n\nReads first.\n")
    await specs.create_spec(work, "con", REVIEWER)
    await publishing.publish_spec(work, "con", "1.0.0", note="the first")
    await create(work, "3.0.0")

    draft = await specs.generate_spec(work, "con")

    assert (draft.version, draft.status, draft.origin) == ("3.0.1", "draft", "generated")
    assert draft.sources == ["name and role", "skill.md", "examples of 1.0.0"]
    assert "Reads first." in draft.preview.text
    kept = await get_spec(work, "con", draft.version)
    assert (kept.origin, kept.sources) == ("generated", draft.sources)
    assert [example["id"] for example in kept.document["canonical_examples"]] == ["e1"]
    assert (await runtime_prompt(work, "con")).trace.persona_spec_version == "1.0.0"
    query = select(AuditRow.details).where(AuditRow.subject == con.slug).order_by(AuditRow.id)
    assert list(await work.session.scalars(query))[-1] == {
        "version": "3.0.1",
        "digest": draft.digest,
        "origin": "generated",
    }


async def test_without_an_active_version_the_examples_of_the_highest_are_carried_over(
    con: Registered, work: Work
):
    (Path(con.path) / "skill.md").unlink()
    await create(work, "1.0.0")
    await specs.create_spec(work, "con", REVIEWER | {"version": "2.0.0"})

    draft = await specs.generate_spec(work, "con")

    assert draft.sources == ["name and role", "examples of 2.0.0"]


@pytest.mark.usefixtures("con")
async def test_a_first_draft_can_be_generated_from_nothing_but_the_name(work: Work):
    draft = await specs.generate_spec(work, "con")

    assert (draft.version, draft.sources) == ("1.0.0", ["name and role"])


@pytest.mark.usefixtures("con")
async def test_what_was_stored_is_read_back_as_it_is(work: Work):
    draft = await specs.create_spec(work, "con", REVIEWER)

    row = (await work.session.scalars(select(PersonaSpecRow))).one()
    assert (row.major, row.minor, row.patch, row.version) == (1, 0, 0, "1.0.0")
    assert digest(row.document) == row.digest == draft.digest
    assert row.document == canonical(read_spec(row.document))
