"""What a persona runs with now, and the proof of it; what happens when its spec cannot be used."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from server.errors import Invalid
from server.personas import service as personas
from server.personas.queries import AmbiguousPersona, PersonaNotFound
from server.personas.service import PersonaArchived
from server.personas.shapes import Registered
from server.specs import publishing
from server.specs import service as specs
from server.specs.becoming import become_persona
from server.specs.notation import digest
from server.specs.queries import NoActiveSpec, NoSpec, SpecNotFound, get_spec
from server.specs.runtime import character_of, compiled_prompt, runtime_prompt
from server.specs.trace import Trace
from server.work import READ_ONLY, App, Caller, Work
from tests.conftest import but, operator

pytestmark = pytest.mark.anyio

KIND = {
    "constitution": ["Be kind."],
    "procedural_modules": [
        {"id": "review", "intent_labels": ["review"], "do": ["Read the whole change."]},
        {"id": "deploy", "intent_labels": ["deploy"], "do": ["Watch the graphs."]},
    ],
    "canonical_examples": [
        {"id": "late", "intent_label": "delay", "prompt": "The train is late.", "response": "Wait."}
    ],
}


@pytest.fixture
async def con(app: App, caller: Caller) -> Registered:
    con = await personas.register_persona(
        app, caller, name="Con", role="developer", description="Keeps it simple."
    )
    (Path(con.path) / "skill.md").write_text("# Con\n\nReads before writing.\n")
    return con


@pytest.fixture
async def kind(con: Registered, work: Work) -> Registered:
    """A persona whose active version is 1.0.0."""
    await specs.create_spec(work, con.slug, KIND)
    await publishing.publish_spec(work, con.slug, "1.0.0", note="the first")
    return con


async def test_the_active_spec_runs_and_the_trace_proves_it(kind: Registered, work: Work):
    ran = await runtime_prompt(work, "con")

    assert ran.plan is not None
    assert (ran.slug, ran.text, ran.cuts) == (kind.slug, ran.plan.text, [])
    assert ran.text.startswith("## Constitution\n\n1. Be kind.\n")
    assert ran.tokens == ran.plan.total_tokens == -(-len(ran.text.encode()) // 4)
    assert ran.trace == Trace(
        source="spec",
        persona_spec_version="1.0.0",
        spec_digest=(await get_spec(work, "con")).digest,
        digest=digest(ran.text),
        reason=None,
    )


async def test_without_a_spec_settings_and_skill_run_and_the_trace_says_so(
    con: Registered, work: Work
):
    ran = await runtime_prompt(work, "con")

    assert "You are Con, a developer.\n\nKeeps it simple.\n\nBe helpful, accurate" in ran.text
    assert f"From skill.md of {con.slug}.\n\n```text\n# Con\n\nReads before writing." in ran.text
    assert (ran.plan, ran.cuts, ran.tokens) == (None, [], -(-len(ran.text.encode()) // 4))
    assert ran.trace == Trace(
        source="fallback",
        persona_spec_version=None,
        spec_digest=None,
        digest=digest(ran.text),
        reason="no active spec",
    )


async def test_a_missing_skill_is_said_in_the_fallback(con: Registered, work: Work):
    (Path(con.path) / "skill.md").unlink()

    ran = await runtime_prompt(work, "con")

    assert f"{con.slug} has no skill.md: work from the settings alone and say so." in ran.text


async def test_a_draft_never_reaches_run_time(con: Registered, work: Work):
    before = await runtime_prompt(work, "con")
    await specs.create_spec(work, con.slug, KIND)
    with_a_draft = await runtime_prompt(work, "con")
    assert with_a_draft == before

    await publishing.publish_spec(work, con.slug, "1.0.0", note="the first")
    published = await runtime_prompt(work, "con")
    await specs.create_spec(work, con.slug, {"version": "9.0.0", "constitution": ["Be rude."]})
    await specs.generate_spec(work, con.slug)

    assert await runtime_prompt(work, "con") == published
    assert "rude" not in (await become_persona(work, "con")).text


async def test_with_every_version_archived_it_falls_back(kind: Registered, work: Work):
    await work.session.execute(text("UPDATE dramatis.persona_specs SET status = 'archived'"))

    ran = await runtime_prompt(work, kind.slug)

    assert (ran.trace.source, ran.trace.persona_spec_version) == ("fallback", None)
    assert ran.trace.reason == "no active spec"


async def test_what_is_published_runs_from_then_on(kind: Registered, work: Work):
    await specs.create_spec(work, kind.slug, {"constitution": ["Be brief."]})
    await publishing.publish_spec(work, kind.slug, "1.0.1", note="shorter")
    second = await runtime_prompt(work, "con")
    await publishing.rollback_spec(work, "con", note="back")
    first = await runtime_prompt(work, "con")

    assert (second.trace.persona_spec_version, "Be brief." in second.text) == ("1.0.1", True)
    assert (first.trace.persona_spec_version, "Be kind." in first.text) == ("1.0.0", True)


async def test_a_run_keeps_to_the_version_it_began_with(kind: Registered, work: Work):
    character = await character_of(work, "con")
    before = character.compiled()
    await specs.create_spec(work, kind.slug, {"constitution": ["Be brief."]})
    await publishing.publish_spec(work, kind.slug, "1.0.1", note="shorter")

    assert character.compiled() == before
    assert character.compiled(intent="review").trace.persona_spec_version == "1.0.0"


@pytest.mark.usefixtures("kind")
async def test_intent_query_variant_and_budget_reach_the_compiler(work: Work):
    review = await runtime_prompt(work, "con", intent="review")
    asked = await runtime_prompt(work, "con", query="why is the train late")
    compact = await runtime_prompt(work, "con", variant="compact")
    tight = await runtime_prompt(work, "con", query="the train", budget=12)

    assert review.plan
    assert asked.plan
    assert compact.plan
    assert review.plan.selected_module_ids == ["review"]
    assert asked.plan.few_shot_ids == ["late"]
    assert compact.plan.variant == "compact"
    assert len(compact.text) < len((await runtime_prompt(work, "con")).text)
    assert tight.cuts == [
        "Left out of the spec to stay under 12 tokens: few_shots late, modules review, modules"
        " deploy."
    ]
    assert tight.trace.digest == digest(tight.text)


@pytest.mark.parametrize("arguments", [{"variant": "haiku"}, {"budget": 0}, {"intent": " "}])
@pytest.mark.parametrize("published", [True, False])
@pytest.mark.usefixtures("con")
async def test_what_nobody_can_compile_is_refused_with_and_without_a_spec(
    work: Work, arguments: dict[str, Any], published: bool
):
    await specs.create_spec(work, "con", KIND)
    if published:
        await publishing.publish_spec(work, "con", "1.0.0", note="x")

    with pytest.raises(Invalid, match=f"^{next(iter(arguments))}: must"):
        await runtime_prompt(work, "con", **arguments)


@pytest.mark.usefixtures("con")
async def test_the_fallback_keeps_to_a_budget_by_cutting_the_skill(work: Work, con: Registered):
    (Path(con.path) / "skill.md").write_text("\n".join(f"rule {n}" for n in range(999)))

    ran = await runtime_prompt(work, "con", budget=300)

    assert ran.tokens <= 300
    assert "rule 0\n" in ran.text
    (cut,) = ran.cuts
    assert cut.startswith("skill.md was cut to ")
    assert cut.endswith(" characters to stay under 300 tokens; read_persona_files has all of it.")
    assert ran.trace.digest == digest(ran.text)


@pytest.mark.usefixtures("kind")
async def test_one_version_compiles_whatever_its_status(work: Work):
    await specs.create_spec(work, "con", {"constitution": ["Be brief."]})

    draft = await compiled_prompt(work, "con", "1.0.1", variant="compact")

    assert (draft.trace.source, draft.trace.persona_spec_version) == ("spec", "1.0.1")
    assert "Be brief." in draft.text
    assert (await runtime_prompt(work, "con")).trace.persona_spec_version == "1.0.0"
    with pytest.raises(SpecNotFound):
        await compiled_prompt(work, "con", "9.0.0")
    with pytest.raises(Invalid):
        await compiled_prompt(work, "con", "1.0.1", variant="haiku")


@pytest.mark.usefixtures("kind")
async def test_without_a_version_what_runs_is_compiled_with_the_intents_to_ask_for(work: Work):
    module = {"id": "m", "do": "x", "intent_labels": ["Review"]}
    await specs.create_spec(work, "con", {"procedural_modules": [module]})

    ran = await compiled_prompt(work, "con", variant="compact", budget=900)
    draft = await compiled_prompt(work, "con", "1.0.1")

    assert ran == await runtime_prompt(work, "con", variant="compact", budget=900)
    assert ran.known_intents == ["delay", "deploy", "review"]
    assert draft.known_intents == ["Review"]


async def test_an_archived_persona_is_refused_though_its_versions_can_be_tried(
    kind: Registered, work: Work
):
    await personas.update_persona(work, kind.slug, status="archived")

    for attempt in (runtime_prompt(work, kind.slug), become_persona(work, kind.slug)):
        with pytest.raises(PersonaArchived, match="Restore it first"):
            await attempt
    assert (await compiled_prompt(work, kind.slug, "1.0.0")).text


async def test_an_unknown_or_ambiguous_persona_is_refused(
    app: App, caller: Caller, con: Registered, work: Work
):
    await personas.register_persona(app, caller, name="Con", role="tester")

    with pytest.raises(PersonaNotFound):
        await runtime_prompt(work, "developer-con-999999")
    with pytest.raises(AmbiguousPersona, match=con.slug):
        await runtime_prompt(work, "con")


@pytest.mark.usefixtures("kind")
async def test_reading_needs_no_scope(work: Work):
    reader = but(work, caller=but(work.caller, scopes=READ_ONLY))

    assert (await runtime_prompt(reader, "con")).trace.source == "spec"


async def test_deleting_a_persona_keeps_its_versions_as_history_and_frees_nothing(
    app: App, caller: Caller, kind: Registered, work: Work
):
    await personas.delete_persona(work, kind.slug)

    kept = await work.session.execute(
        text(
            "SELECT persona_id, slug, version, status, note FROM dramatis.persona_specs s"
            " JOIN dramatis.spec_publications p ON p.spec_id = s.id"
        )
    )
    assert kept.all() == [(None, kind.slug, "1.0.0", "active", "the first")]
    with pytest.raises(PersonaNotFound):
        await get_spec(work, kind.slug, "1.0.0")
    again = await personas.register_persona(app, caller, name="Con", role="developer")
    assert again.slug != kind.slug
    with pytest.raises(NoSpec):
        await get_spec(work, again.slug)
    assert (await specs.create_spec(work, again.slug, KIND)).version == "1.0.0"
    with pytest.raises(NoActiveSpec):
        await get_spec(work, again.slug)


async def test_two_statements_read_what_runs(own_app: App):
    caller = operator(own_app)
    con = await personas.register_persona(own_app, caller, name="Con", role="developer")
    async with own_app.work(caller) as work:
        await specs.create_spec(work, con.slug, KIND)
        await publishing.publish_spec(work, con.slug, "1.0.0", note="x")
    executed: list[str] = []

    def note(*arguments: object) -> None:
        executed.append(str(arguments[2]))

    engine = own_app.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    async with own_app.work(caller) as work:
        await runtime_prompt(work, con.slug)
    event.remove(engine, "before_cursor_execute", note)

    entering, finding, reading = executed
    assert "set_config" in entering
    assert "dramatis.personas" in finding
    assert "dramatis.persona_specs" in reading


async def test_a_budget_that_is_too_small_for_what_stays_is_said(con: Registered, work: Work):
    await specs.create_spec(work, con.slug, {"constitution": ["Be kind to whoever asks."]})

    compiled = await compiled_prompt(work, con.slug, "1.0.0", budget=1)
    fallback = await compiled_prompt(work, con.slug, budget=1)

    assert compiled.cuts == [
        "What is never left out has 12 tokens by itself, more than 1.",
    ]
    assert fallback.cuts[-1] == (
        f"What is never left out has {fallback.tokens:,} tokens by itself, more than 1."
    )
