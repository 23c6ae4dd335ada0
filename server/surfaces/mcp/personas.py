"""The default toolset: register personas, find them, keep their files, become one."""

from typing import TYPE_CHECKING, Annotated, Literal

from mcp.types import CallToolResult
from pydantic import Field

from server.errors import AssetsFailed
from server.late import Late
from server.personas.shapes import (
    Description,
    EntryText,
    ExperienceAdded,
    FileText,
    Limit,
    Match,
    Persona,
    PersonaFiles,
    PersonaName,
    PersonaPage,
    Registered,
    Repaired,
    RoleLookup,
    RoleName,
    SkillWritten,
    Status,
)
from server.surfaces.mcp.arguments import OrNothing, Who
from server.surfaces.mcp.notices import listing_changed, persona_changed
from server.surfaces.mcp.standard_search import READ, SEARCH
from server.surfaces.mcp.toolset import (
    ADDS,
    COMPLETES,
    LONG_RESULT,
    READS,
    REPLACES,
    Ctx,
    Tool,
    Toolset,
    acting,
    proven,
    refusals,
    use_case,
)

if TYPE_CHECKING:
    from server.jobs import playing
    from server.personas import files, listing, queries, service
else:
    playing = Late("server.jobs.playing")
    files = Late("server.personas.files")
    listing = Late("server.personas.listing")
    queries = Late("server.personas.queries")
    service = Late("server.personas.service")


async def register_persona(
    ctx: Ctx,
    name: Annotated[PersonaName, Field(description="Display name, e.g. `Con`.")],
    role: Annotated[RoleName, Field(description="Specialisation, e.g. `developer`.")],
    description: Annotated[Description, OrNothing, Field(description="What they are for.")] = "",
) -> Registered:
    """Use to add a named persona to the team. Makes the role when it is new, and the persona's
    skill.md and experience.md. Returns slug, id and path. The same name and role again makes
    another persona, so look first.
    """
    with refusals():
        app, caller = await acting(ctx)
        try:
            persona = await service.register_persona(
                app, caller, name=name, role=role, description=description
            )
        except AssetsFailed:
            # The persona is there all the same.
            await listing_changed(ctx, role)
            raise
    await listing_changed(ctx, role)
    return persona


async def lookup_role(
    ctx: Ctx, name: Annotated[RoleName, Field(description="Role, in any case.")]
) -> RoleLookup:
    """Use to learn who does a kind of work: a role such as `developer` and its personas. An
    unknown role is answered with `found: false` and the nearest names; nothing is created.
    """
    with refusals():
        async with use_case(ctx) as work:
            return await listing.lookup_role(work, name)


async def list_personas(
    ctx: Ctx,
    role: Annotated[str, OrNothing, Field(description="Only this role.")] = "",
    status: Literal["active", "archived", "all"] = "active",
    text: Annotated[str, OrNothing, Field(description="Part of name, slug or description.")] = "",
    sort: Annotated[
        Literal["newest", "role"], Field(description="`role`: by role, then name.")
    ] = "newest",
    limit: Limit = 20,
    cursor: Annotated[str, OrNothing, Field(description="`next_cursor` of the page before.")] = "",
) -> PersonaPage:
    """Use to see which personas there are, with filters, a page at a time."""
    with refusals():
        async with use_case(ctx) as work:
            return await listing.list_personas(
                work,
                role=role or None,
                status=status,
                text=text or None,
                sort=sort,
                limit=limit,
                cursor=cursor or None,
            )


async def get_persona(ctx: Ctx, persona: Who) -> Match:
    """Use to look at one persona: role, description, status, where its files are and whether any
    is missing. When the reference fits several, `candidates` lists them: ask which was meant.
    """
    with refusals():
        async with use_case(ctx) as work:
            return await queries.get_persona(work, persona)


async def update_persona(
    ctx: Ctx,
    persona: Who,
    name: Annotated[PersonaName | None, Field(description="New display name.")] = None,
    description: Annotated[Description | None, Field(description="Empty removes it.")] = None,
    status: Annotated[
        Status | None, Field(description="`archived` retires, `active` restores.")
    ] = None,
    role: Annotated[str | None, Field(description="Fixed: another one is refused.")] = None,
) -> Persona:
    """Use to rename, describe, archive or restore a persona. Slug and files keep their names."""
    with refusals():
        async with use_case(ctx) as work:
            changed = await service.update_persona(
                work, persona, name=name, description=description, status=status, role=role
            )
    await listing_changed(ctx, changed.role)
    await persona_changed(ctx, changed.slug)
    return changed


async def read_persona_files(
    ctx: Ctx, persona: Who, which: Literal["both", "skill", "experience"] = "both"
) -> PersonaFiles:
    """Use to read a persona's skill.md and experience.md, and the hashes of earlier skills. Needed
    before write_persona_skill. An absent file has `exists: false`.
    """
    with refusals():
        async with use_case(ctx) as work:
            return await files.read_files(work, persona, which)


async def write_persona_skill(
    ctx: Ctx,
    persona: Who,
    content: Annotated[FileText | None, Field(description="The whole new skill.md.")] = None,
    expected_sha256: Annotated[
        str,
        OrNothing,
        Field(description="`sha256` as last read: refuses to overwrite a newer text."),
    ] = "",
    restore_sha256: Annotated[
        str,
        OrNothing,
        Field(description="Instead of content: hash of an earlier text to bring back."),
    ] = "",
) -> SkillWritten:
    """Use to replace a persona's skill.md (who they are, how they work, how they speak). Stores
    exactly the text given; the text before is kept and can be restored.
    """
    with refusals():
        app, caller = await acting(ctx)
        written = await files.write_skill(
            app,
            caller,
            persona,
            content=content,
            expected_sha256=expected_sha256 or None,
            restore_sha256=restore_sha256 or None,
        )
    await persona_changed(ctx, written.slug)
    return written


async def add_persona_experience(
    ctx: Ctx,
    persona: Who,
    entry: Annotated[EntryText, Field(description="Markdown; date and author are added.")],
) -> ExperienceAdded:
    """Use after a piece of work to record what a persona learned. Goes on top of experience.md;
    earlier entries are never changed.
    """
    with refusals():
        async with use_case(ctx) as work:
            added = await files.add_experience(work, persona, entry)
    await persona_changed(ctx, added.slug)
    return added


async def repair_persona_assets(ctx: Ctx, persona: Who) -> Repaired:
    """Use after `assets_failed`, or when a persona's files are missing: writes what is missing
    and overwrites nothing. Safe to repeat.
    """
    with refusals():
        async with use_case(ctx) as work:
            repaired = await service.repair_assets(work, persona)
    await persona_changed(ctx, repaired.slug)
    return repaired


async def become_persona(
    ctx: Ctx,
    persona: Who,
    task: Annotated[str, OrNothing, Field(description="What the persona is to do.")] = "",
) -> CallToolResult:
    """Use when asked to work, review or answer as a persona. Returns its instructions (guardrails,
    identity, skill, experience): follow them from then on.
    """
    with refusals():
        async with use_case(ctx) as work:
            prompt = await playing.become_persona(work, persona, task)
    return proven(prompt.trace, prompt.text)


BECOME = Tool(
    become_persona,
    "Become a persona",
    READS,
    prose=True,
    meta={"anthropic/alwaysLoad": True, **LONG_RESULT},
)

TOOLSET = Toolset(
    "Register personas, find them, keep their skill and experience, work as one of them.",
    (
        Tool(register_persona, "Register a persona", ADDS),
        Tool(lookup_role, "Look up a role", READS, meta={"anthropic/alwaysLoad": True}),
        Tool(list_personas, "List personas", READS),
        Tool(get_persona, "Get a persona", READS),
        Tool(update_persona, "Update a persona", REPLACES),
        Tool(read_persona_files, "Read a persona's files", READS, meta=LONG_RESULT),
        Tool(write_persona_skill, "Write a persona's skill", REPLACES),
        Tool(add_persona_experience, "Add to a persona's experience", ADDS),
        Tool(repair_persona_assets, "Repair a persona's files", COMPLETES),
        BECOME,
        SEARCH,
        READ,
    ),
)
