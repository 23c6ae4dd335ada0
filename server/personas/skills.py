"""Personas written as Agent Skills: a SKILL.md each, with a name, a description and the skill."""

import logging

import yaml

from server.errors import DramatisError, NotFound
from server.personas import assets
from server.personas.files import read_file
from server.personas.listing import list_personas
from server.personas.queries import row_at
from server.personas.service import refuse_archived
from server.personas.shapes import AgentSkill, AgentSkillPage
from server.work import Work

_log = logging.getLogger(__name__)

PAGE = 50
# Agent Skills allow a description of 1 024 characters.
DESCRIPTION_LENGTH = 1024


class SkillNotFound(NotFound):
    code = "skill_not_found"


async def list_skills(work: Work, *, cursor: str | None = None) -> AgentSkillPage:
    """List active personas as skills, newest first, a page at a time.

    One whose skill.md cannot be read is left out, and logged: it must not hide the others.
    """
    page = await list_personas(work, limit=PAGE, cursor=cursor)
    skills: list[AgentSkill] = []
    for persona in page.personas:
        try:
            skills.append(await skill_of(work, persona.slug))
        except DramatisError as error:
            _log.warning("left out of the skills: %s", error)
    return AgentSkillPage(skills=skills, next_cursor=page.next_cursor)


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
    """Write an active persona as a SKILL.md; the same persona and skill.md give the same bytes.

    Raises:
        PersonaNotFound: no persona has exactly this slug.
        PersonaArchived: restore it first.
    """
    row = await row_at(work, slug)
    refuse_archived(row)
    skill = (await read_file(work, row, assets.SKILL)).content
    role = row.role.label
    purpose = f" {row.description}" if row.description else ""
    description = " ".join(
        f"Work as {row.name}, {role}.{purpose} Use when asked to work or answer as"
        f" {row.name} or as a {role}.".split()
    )[:DESCRIPTION_LENGTH]
    frontmatter = {"name": row.slug, "description": description}
    head = yaml.safe_dump(frontmatter, allow_unicode=True, sort_keys=False, width=10_000)
    body = skill if skill is not None else f"# {row.name} — {role}\n"
    return AgentSkill(
        uri=address(row.slug),
        name=row.slug,
        description=description,
        text=f"---\n{head}---\n\n{body}",
    )


def address(slug: str) -> str:
    return f"skill://personas/{slug}/SKILL.md"
