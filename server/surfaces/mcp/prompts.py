"""Slash commands: the same texts as the tools, for people who type."""

from typing import TYPE_CHECKING, Annotated

from mcp.server import MCPServer
from mcp.server.mcpserver import Message, UserMessage
from mcp.types import GetPromptResult, TextContent
from pydantic import Field

from server.late import Late
from server.surfaces.mcp.attachment import Attachment
from server.surfaces.mcp.toolset import Ctx, protocol_refusals, traced, use_case

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
        proof = traced(prompt.trace)
        return [UserMessage(TextContent(type="text", text=prompt.text, _meta=proof))]


def lift_meta(result: GetPromptResult) -> GetPromptResult:
    """Move what a prompt says about itself from its first message, its only way out, to the top."""
    first = result.messages[0]
    content = first.content.model_copy(update={"meta": None})
    messages = [first.model_copy(update={"content": content}), *result.messages[1:]]
    return result.model_copy(update={"messages": messages, "meta": first.content.meta})
