"""The Python SDK before 2.0, run by an environment of its own with mcp 1.30.

Results are read as the JSON they were, because the two SDK generations name attributes
differently and this file is type-checked against the newer one.
"""

import os
import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import anyio
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.types import PromptReference, ResourceTemplateReference
from pydantic import BaseModel

SLUG = "developer-con-1"


@contextmanager
def step(sentence: str) -> Generator[None]:
    try:
        yield
    except BaseException:
        print(f"failed: {sentence}", flush=True)
        raise
    print(f"ok: {sentence}", flush=True)


def wire(result: BaseModel) -> dict[str, Any]:
    return result.model_dump(by_alias=True, mode="json", exclude_none=True)


async def call(session: ClientSession, tool: str, **arguments: str) -> dict[str, Any]:
    result = wire(await session.call_tool(tool, arguments))
    assert not result.get("isError"), result
    return result["structuredContent"]


async def refused(session: ClientSession, reason: str, **arguments: str) -> None:
    result = wire(await session.call_tool("register_persona", arguments))
    text = result["content"][0]["text"]
    assert result["isError"], result
    assert re.search(reason, text), text
    assert not re.search(r"Traceback|pydantic|input_value", text), text


async def completed(
    session: ClientSession, ref: PromptReference | ResourceTemplateReference, argument: str
) -> None:
    result = wire(await session.complete(ref, {"name": argument, "value": "dev"}))
    assert result["completion"]["values"] == [SLUG], result


async def use_tools(session: ClientSession) -> None:
    with step("lists the tools with their schemas"):
        tools = {tool["name"]: tool for tool in wire(await session.list_tools())["tools"]}
        assert all(tool["title"] and tool["description"] for tool in tools.values()), tools
        assert sorted(tools["register_persona"]["inputSchema"]["required"]) == ["name", "role"]
    with step("registers a persona"):
        persona = await call(session, "register_persona", name="Con", role="Developer")
        found = [persona[key] for key in ("id", "slug", "name", "role")]
        assert found == [1, SLUG, "Con", "developer"], persona
    with step("finds the persona under its role"):
        lookup = await call(session, "lookup_role", name="DEVELOPER")
        assert lookup["found"], lookup
        assert [persona["slug"] for persona in lookup["personas"]] == [SLUG], lookup
    with step("is told what is wrong with a blank name"):
        await refused(session, r"\bname\b.*\bblank\b", name="  ", role="developer")
    with step("is told which argument is unknown"):
        await refused(session, r"\bcolour\b", name="Con", role="developer", colour="red")


async def read_resources(session: ClientSession) -> None:
    skill = f"persona://{SLUG}/skill.md"
    with step("lists the persona among the resources"):
        resources = wire(await session.list_resources())["resources"]
        assert skill in [resource["uri"] for resource in resources], resources
    with step("reads the skill file"):
        contents = wire(await session.read_resource(skill))["contents"][0]
        assert contents["mimeType"] == "text/markdown", contents
        assert contents["text"].startswith("# Con — developer\n"), contents
    with step("completes the slug in the address of a resource"):
        template = ResourceTemplateReference(type="ref/resource", uri="persona://{slug}/skill.md")
        await completed(session, template, "slug")


async def use_prompt(session: ClientSession) -> None:
    with step("finds the prompt, with every argument optional"):
        prompts = {
            prompt["name"]: prompt for prompt in wire(await session.list_prompts())["prompts"]
        }
        arguments = prompts["become_persona"]["arguments"]
        found = [(argument["name"], argument.get("required", False)) for argument in arguments]
        assert found == [("persona", False), ("task", False)], arguments
    with step("completes the slug in the argument of the prompt"):
        prompt = PromptReference(type="ref/prompt", name="become_persona")
        await completed(session, prompt, "persona")
    with step("gets the prompt"):
        arguments = {"persona": SLUG, "task": "Review it."}
        messages = wire(await session.get_prompt("become_persona", arguments))["messages"]
        texts = "\n".join(message["content"]["text"] for message in messages)
        assert "Con" in texts, texts
        assert "Review it." in texts, texts


async def main() -> None:
    command, *arguments = sys.argv[1:]
    server = StdioServerParameters(command=command, args=arguments, env=dict(os.environ))
    async with stdio_client(server) as (read, write), ClientSession(read, write) as session:
        with step("connects"):
            assert wire(await session.initialize())["serverInfo"]["name"] == "dramatis"
        await use_tools(session)
        await read_resources(session)
        await use_prompt(session)


anyio.run(main)
