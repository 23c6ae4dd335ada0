"""Slash commands: the same texts as the tools, for people who type."""

from typing import TYPE_CHECKING, Annotated

from mcp.server import MCPServer
from mcp.server.mcpserver import Message, UserMessage
from pydantic import Field

from server.late import Late
from server.surfaces.mcp.attachment import Attachment
from server.surfaces.mcp.toolset import Ctx, protocol_refusals, use_case

if TYPE_CHECKING:
    from server.specs import becoming
else:
    becoming = Late("server.specs.becoming")


def add_prompts(server: MCPServer[Attachment]) -> None:
    @server.prompt(title="Become a persona")
    async def become_persona(
        ctx: Ctx,
        persona: Annotated[str, Field(description="Slug or name of the persona")] = "",
        task: Annotated[str, Field(description="What it is to do")] = "",
    ) -> list[Message]:
        """Work as one of the team's personas from here on."""
        with protocol_refusals():
            async with use_case(ctx) as work:
                prompt = await becoming.become_persona(work, persona, task)
        return [UserMessage(prompt.text)]
