"""The toolset of persona specs: write versions, compare them, publish one, see what the model gets."""

from typing import TYPE_CHECKING, Annotated, Any

from mcp.types import CallToolResult
from pydantic import BeforeValidator, Field, JsonValue

from server.late import Late
from server.personas.shapes import Limit
from server.specs.document import Version
from server.specs.shapes import (
    VERSIONS_LISTED,
    Budget,
    Compiled,
    Note,
    Published,
    SpecDetail,
    SpecDiff,
    SpecDraft,
    SpecListing,
    Variant,
)
from server.surfaces.mcp.arguments import OrNothing, Who
from server.surfaces.mcp.notices import spec_published, spec_stored
from server.surfaces.mcp.publishing import Answered, Foreseen, agreed
from server.surfaces.mcp.toolset import (
    ADDS,
    LONG_RESULT,
    READS,
    REPLACES,
    Ctx,
    Tool,
    Toolset,
    can_ask,
    proven,
    refusals,
    use_case,
)

if TYPE_CHECKING:
    from server.specs import publishing, queries, runtime, selection, service
else:
    publishing = Late("server.specs.publishing")
    queries = Late("server.specs.queries")
    runtime = Late("server.specs.runtime")
    selection = Late("server.specs.selection")
    service = Late("server.specs.service")


def _object_or_text(value: Any) -> Any:
    """Refuse anything else in a sentence; a union would say what each of its members misses."""
    if type(value) not in (dict, str):
        raise ValueError("must be an object, or text in YAML or JSON")
    return value


ActiveVersion = Annotated[str, OrNothing, Field(description="The active one if left out.")]


async def create_persona_spec(
    ctx: Ctx,
    persona: Who,
    spec: Annotated[
        dict[str, JsonValue] | str,
        BeforeValidator(_object_or_text),
        Field(
            description="Object, or YAML or JSON text. All optional: version; constitution (list);"
            " decision_policy, stance_values, identity_voice, interaction_style (mappings);"
            " procedural_modules (id, intent_labels, when, do, say_style, ban, few_shot_ids,"
            " priority, active); canonical_examples, anti_examples (id, intent_label, prompt,"
            " response, tags); deterministic_rules (banned_phrases, anti_style_rules,"
            " format_rules); metadata. Schema: resource schema://persona-spec.json."
        ),
    ],
) -> SpecDraft:
    """Use to store how a persona thinks and speaks as a new version of its spec: a draft, which
    does not run before it is published. Returns its version and a preview of the compiled prompt.
    A stored version never changes: change a spec by storing another.
    """
    with refusals():
        async with use_case(ctx) as work:
            draft = await service.create_spec(work, persona, spec)
    await spec_stored(ctx, draft.slug, draft.version)
    return draft


async def list_persona_specs(
    ctx: Ctx,
    persona: Annotated[
        str, OrNothing, Field(description="Its versions; all personas with specs if left out.")
    ] = "",
    cursor: Annotated[str, OrNothing, Field(description="`next` of the page before.")] = "",
    limit: Limit = VERSIONS_LISTED,
) -> SpecListing:
    """Use to see which personas have specs, or which versions one has: status, author, and when,
    why and by whom they were published.
    """
    with refusals():
        async with use_case(ctx) as work:
            if persona:
                return await queries.list_specs(work, persona, before=cursor or None, limit=limit)
            return await queries.overview(work, after=cursor or None, limit=limit)


async def get_persona_spec(ctx: Ctx, persona: Who, version: ActiveVersion = "") -> SpecDetail:
    """Use to read a version of a spec in full, and every publication of it."""
    with refusals():
        async with use_case(ctx) as work:
            return await queries.get_spec(work, persona, version or None)


async def diff_persona_specs(
    ctx: Ctx,
    persona: Who,
    before: ActiveVersion = "",
    after: Annotated[str, OrNothing, Field(description="The highest if left out.")] = "",
) -> SpecDiff:
    """Use to see what changed between two versions: by field, module and example, and line by line
    in the compiled prompt.
    """
    with refusals():
        async with use_case(ctx) as work:
            return await service.diff_specs(work, persona, before or None, after or None)


async def generate_persona_spec(ctx: Ctx, persona: Who) -> SpecDraft:
    """Use to begin a spec from what is there: sorts skill.md, name, role and description into a
    draft, without inventing anything, and says what it was made from. Returns it with a preview.
    """
    with refusals():
        async with use_case(ctx) as work:
            draft = await service.generate_spec(work, persona)
    await spec_stored(ctx, draft.slug, draft.version)
    return draft


async def publish_persona_spec(
    ctx: Ctx,
    prospect: Foreseen,
    answer: Answered,
    persona: Who,
    version: Annotated[Version, Field(description="As stored, e.g. `1.0.1`.")],
    note: Annotated[Note, Field(description="Why; kept in the history.")],
    confirm: Annotated[
        bool,
        Field(
            description="Only where the client cannot ask the user: that they explicitly said yes."
        ),
    ] = False,
    override_checks: Annotated[
        bool,
        Field(description="Ask the user to publish although checks fail; the note must say why."),
    ] = False,
) -> Published:
    """Use to make a version the one a persona runs with from now on, or to go back to an earlier
    one. Asks the user first. Refused while the persona's checks fail. `changed: false` means that
    it was active already.
    """
    with refusals():
        agreed(prospect, answer)
        async with use_case(ctx) as work:
            published = await publishing.publish_spec(
                work,
                prospect.slug,
                version,
                note=note,
                override_checks=override_checks,
                agreed=prospect if can_ask(ctx) else None,
            )
    if published.changed:
        await spec_published(ctx, published.slug)
    return published


async def compile_persona_prompt(
    ctx: Ctx,
    persona: Who,
    version: Annotated[
        str, OrNothing, Field(description="Also a draft. If left out: what the persona runs with.")
    ] = "",
    intent: Annotated[
        str, OrNothing, Field(description="Only modules for it, and those for everything.")
    ] = "",
    query: Annotated[str, OrNothing, Field(description="A request: picks fitting examples.")] = "",
    variant: Variant = "baseline",
    budget: Annotated[Budget | None, Field(description="Most tokens it may have.")] = None,
) -> CallToolResult:
    """Use to see exactly which prompt a version gives a model. To work as a persona, call
    become_persona instead. Returns the prompt, then a line on where it comes from.
    """
    with refusals():
        async with use_case(ctx) as work:
            compiled = await runtime.compiled_prompt(
                work,
                persona,
                version or None,
                intent=intent or None,
                query=query or None,
                variant=variant,
                budget=budget,
            )
    unknown = selection.unknown_intent(intent or None, compiled.known_intents)
    return proven(compiled.trace, compiled.text, _proof(compiled, unknown))


def _proof(compiled: Compiled, unknown: str | None) -> str:
    trace = compiled.trace
    source = (
        f"spec {trace.persona_spec_version} of {compiled.slug}, document"
        f" {(trace.spec_digest or '')[:12]}"
        if trace.source == "spec"
        else f"settings and skill.md of {compiled.slug} ({trace.reason})"
    )
    line = f"Source: {source}, prompt {trace.digest[:12]}, about {compiled.tokens:,} tokens."
    return " ".join([line, *compiled.cuts, *([unknown] if unknown else [])])


TOOLSET = Toolset(
    "Version how a persona thinks and speaks, compare and publish versions, see the exact prompt.",
    (
        Tool(create_persona_spec, "Store a version of a spec", ADDS, meta=LONG_RESULT),
        Tool(list_persona_specs, "List specs", READS),
        Tool(get_persona_spec, "Get a spec", READS, meta=LONG_RESULT),
        Tool(diff_persona_specs, "Compare two specs", READS, meta=LONG_RESULT),
        Tool(generate_persona_spec, "Generate a spec", ADDS, meta=LONG_RESULT),
        Tool(publish_persona_spec, "Publish a spec", REPLACES),
        Tool(compile_persona_prompt, "Compile a prompt", READS, prose=True, meta=LONG_RESULT),
    ),
    instructions="""\
- A persona spec is a versioned document of how a persona thinks and speaks; the active version \
makes its prompt. create_persona_spec and generate_persona_spec store drafts: show the user the \
preview, and publish with publish_persona_spec only when they want it.
""",
)
