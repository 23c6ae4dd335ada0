"""Personas written as Agent Skills: a SKILL.md each, with a name, a description and the skill."""

import json
from typing import Any

from server.errors import NotFound
from server.personas import assets
from server.personas.files import read_file
from server.personas.queries import list_personas, the_persona
from server.personas.shapes import AgentSkill, AgentSkillPage
from server.work import Work

PAGE = 50
# Agent Skills allow a description of 1 024 characters.
DESCRIPTION_LENGTH = 1024


class SkillNotFound(NotFound):
    code = "skill_not_found"


async def list_skills(work: Work, *, cursor: str | None = None) -> AgentSkillPage:
    """List active personas as skills, newest first, a page at a time."""
    page = await list_personas(work, limit=PAGE, cursor=cursor)
    return AgentSkillPage(
        skills=[await skill_of(work, persona.slug) for persona in page.personas],
        next_cursor=page.next_cursor,
    )


async def skill_at(work: Work, uri: str) -> AgentSkill:
    """Find a skill by its address.

    Raises:
        SkillNotFound: no persona has it.
    """
    slug = uri.removeprefix("skill://personas/").removesuffix("/SKILL.md")
    if uri != address(slug):
        raise SkillNotFound("No skill has this address.", hint="skills/list has those there are.")
    return await skill_of(work, slug)


async def skill_of(work: Work, slug: str) -> AgentSkill:
    """Write a persona as a SKILL.md; the same persona and skill.md give the same bytes."""
    row = await the_persona(work, slug)
    skill = (await read_file(work, row, assets.SKILL)).content
    role = row.role.label
    purpose = f" {row.description}" if row.description else ""
    description = " ".join(
        f"Work as {row.name}, {role}.{purpose} Use when asked to work or answer as"
        f" {row.name} or as a {role}.".split()
    )[:DESCRIPTION_LENGTH]
    # JSON strings are YAML strings, whatever is in them.
    quoted: Any = json.dumps(description, ensure_ascii=False)
    body = skill if skill is not None else f"# {row.name} — {role}\n"
    return AgentSkill(
        uri=address(row.slug),
        name=row.slug,
        description=description,
        text=f"---\nname: {row.slug}\ndescription: {quoted}\n---\n\n{body}",
    )


def address(slug: str) -> str:
    return f"skill://personas/{slug}/SKILL.md"
