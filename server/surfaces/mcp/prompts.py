"""Slash commands: the same texts as the tools, for people who type."""

from typing import TYPE_CHECKING, Annotated

from mcp.server import MCPServer
from mcp.server.mcpserver import Message, UserMessage
from mcp.types import GetPromptResult, TextContent
from pydantic import Field

from server.late import Late
from server.surfaces.mcp.attachment import Attachment
from server.surfaces.mcp.toolset import Ctx, acting, protocol_refusals, traced, use_case

if TYPE_CHECKING:
    from server.jobs import playing
    from server.standards import templates
else:
    playing = Late("server.jobs.playing")
    templates = Late("server.standards.templates")


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
                prompt = await playing.become_persona(work, persona, task)
        proof = traced(prompt.trace)
        return [UserMessage(TextContent(type="text", text=prompt.text, _meta=proof))]

    @server.prompt(title="Propose a standard")
    async def propose_standard(
        ctx: Ctx,
        domain: Annotated[str, Field(description="Such as testing or security")] = "",
        topic: Annotated[str, Field(description="A name for it, such as flaky-tests")] = "",
        about: Annotated[str, Field(description="What the team should always do")] = "",
    ) -> list[Message]:
        """Write down what the team should always do, and ask for it to become a standard."""
        with protocol_refusals():
            app, _ = await acting(ctx)
            return [UserMessage(templates.propose_prompt(app, domain, topic, about))]

    @server.prompt(title="Review against standards")
    async def review_against_standards(
        ctx: Ctx,
        what: Annotated[str, Field(description="What to review: a file, a change, a plan")] = "",
    ) -> list[Message]:
        """Review something against what the team has agreed on."""
        with protocol_refusals():
            app, caller = await acting(ctx)
            return [UserMessage(await templates.review_prompt(app, caller, what))]


def lift_meta(result: GetPromptResult) -> GetPromptResult:
    """Move what a prompt says about itself from its first message, its only way out, to the top."""
    first = result.messages[0]
    content = first.content.model_copy(update={"meta": None})
    messages = [first.model_copy(update={"content": content}), *result.messages[1:]]
    return result.model_copy(update={"messages": messages, "meta": first.content.meta})
