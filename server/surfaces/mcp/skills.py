"""Personas as Agent Skills: the extension io.modelcontextprotocol/skills (SEP-2640)."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mcp.server import MCPServer
from mcp.server.extension import Extension, MethodBinding
from mcp.types import PaginatedRequestParams, RequestParams

from server.late import Late
from server.surfaces.mcp.attachment import Attachment
from server.surfaces.mcp.toolset import (
    Ctx,
    Request,
    protocol_refusals,
    resource_refusals,
    use_case,
)

if TYPE_CHECKING:
    from server.personas import skills
    from server.personas.shapes import AgentSkill
else:
    skills = Late("server.personas.skills")

VERSIONS = frozenset({"2026-07-28"})
CACHE: dict[str, Any] = {"ttlMs": 5_000, "cacheScope": "private"}


class GetSkillParams(RequestParams):
    uri: str


class Skills(Extension):
    identifier = "io.modelcontextprotocol/skills"

    def methods(self) -> Sequence[MethodBinding]:
        return [
            MethodBinding("skills/list", PaginatedRequestParams, self._list, VERSIONS),
            MethodBinding("skills/get", GetSkillParams, self._get, VERSIONS),
        ]

    async def _list(self, ctx: Request, params: PaginatedRequestParams) -> dict[str, Any]:
        with protocol_refusals():
            async with use_case(ctx) as work:
                page = await skills.list_skills(work, cursor=params.cursor)
        following = {"nextCursor": page.next_cursor} if page.next_cursor else {}
        return {"skills": [_entry(skill) for skill in page.skills], **following, **CACHE}

    async def _get(self, ctx: Request, params: GetSkillParams) -> dict[str, Any]:
        with protocol_refusals():
            async with use_case(ctx) as work:
                return {"skill": _entry(await skills.skill_at(work, params.uri)), **CACHE}


def add_skill_resource(server: MCPServer[Attachment]) -> None:
    @server.resource(
        "skill://personas/{slug}/SKILL.md",
        name="agent_skill",
        title="Agent Skill",
        mime_type="text/markdown",
    )
    async def agent_skill(slug: str, ctx: Ctx) -> str:
        """A persona as an Agent Skill."""
        with resource_refusals():
            async with use_case(ctx) as work:
                return (await skills.skill_of(work, slug)).text


def _entry(skill: "AgentSkill") -> dict[str, Any]:
    raw = skill.text.encode()
    digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
    return {
        "uri": skill.uri,
        "frontmatter": {"name": skill.name, "description": skill.description},
        "resources": [{"uri": skill.uri, "digest": digest, "size": len(raw)}],
    }
