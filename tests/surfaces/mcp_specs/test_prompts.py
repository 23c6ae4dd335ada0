"""The compiled prompt of a spec as a tool, in both protocol eras."""

from typing import Any

import pytest
from dirty_equals import IsStr
from inline_snapshot import snapshot
from mcp import Client
from mcp.types import CallToolResult, TextContent

from server.personas.shapes import Registered
from server.work import App, Caller
from tests.surfaces.mcp_specs.conftest import publish
from tests.surfaces.test_mcp_tools import called, refused

pytestmark = pytest.mark.anyio


def texts(result: CallToolResult) -> list[str]:
    return [content.text for content in result.content if isinstance(content, TextContent)]


async def test_the_compiled_prompt_is_prose_with_its_proof(
    kind: Registered, client: Client, app: App, caller: Caller
):
    await publish(app, caller, "1.0.0")

    result = await client.call_tool(
        "compile_persona_prompt",
        {"persona": "con", "version": None, "intent": None, "query": None, "budget": None},
    )

    spec = await called(client, "get_persona_spec", persona="con")
    prompt, proof = texts(result)
    assert result.structured_content is None
    assert prompt == snapshot("""\
## Constitution

1. Be kind.
""")
    assert result.meta is not None
    trace = result.meta["dramatis/trace"]
    assert trace == {
        "source": "spec",
        "persona_spec_version": "1.0.0",
        "spec_digest": spec["digest"],
        "digest": IsStr(regex="[0-9a-f]{64}"),
        "reason": None,
    }
    assert proof == (
        f"Source: spec 1.0.0 of {kind.slug}, document {spec['digest'][:12]},"
        f" prompt {trace['digest'][:12]}, about 8 tokens."
    )


async def test_what_a_budget_leaves_out_is_said(con: Registered, client: Client):
    modules = [{"id": name, "do": ["x" * 400]} for name in ("first", "second")]
    await called(
        client, "create_persona_spec", persona=con.slug, spec={"procedural_modules": modules}
    )

    result = await client.call_tool(
        "compile_persona_prompt", {"persona": "con", "version": "1.0.0", "budget": 150}
    )

    prompt, proof = texts(result)
    assert "second" not in prompt
    assert proof.endswith("Left out of the spec to stay under 150 tokens: modules second.")


@pytest.mark.usefixtures("kind")
async def test_an_intent_that_means_nothing_is_told_with_those_there_are(client: Client):
    module = {"id": "m", "do": "x", "intent_labels": ["review"]}
    await called(
        client, "create_persona_spec", persona="con", spec={"procedural_modules": [module]}
    )
    line = {"persona": "con", "version": "1.0.1"}

    mistyped = await client.call_tool("compile_persona_prompt", {**line, "intent": "reveiw"})
    meant = await client.call_tool("compile_persona_prompt", {**line, "intent": "Review"})

    assert texts(mistyped)[1].endswith(
        " tokens. No module or example has the intent 'reveiw'. Known: review."
    )
    assert texts(meant)[1].endswith(" tokens.")


@pytest.mark.usefixtures("kind")
async def test_a_draft_is_compiled_only_by_name_and_never_becomes_what_runs(client: Client):
    named = await client.call_tool(
        "compile_persona_prompt", {"persona": "con", "version": "1.0.0", "variant": "compact"}
    )
    running = await client.call_tool("compile_persona_prompt", {"persona": "con"})
    become = await client.call_tool("become_persona", {"persona": "con"})

    assert "Be kind." in texts(named)[0]
    for result in (running, become):
        assert "Be kind." not in "".join(texts(result))
        assert result.meta is not None
        assert result.meta["dramatis/trace"]["source"] == "fallback"
    assert texts(running)[1].startswith("Source: settings and skill.md of developer-con-")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"variant": "loud"},
            "invalid: variant: must be 'baseline', 'compact', 'compact_no_examples' or"
            " 'voice_focus'.",
        ),
        ({"budget": 0}, "invalid: budget: must be greater than or equal to 1."),
        ({"version": "1.0.1"}, "spec_not_found: "),
        ({"intent": "x" * 101}, "invalid: intent: must have at most 100 characters."),
    ],
)
@pytest.mark.usefixtures("kind")
async def test_a_prompt_that_cannot_be_compiled_is_refused(
    client: Client, arguments: dict[str, Any], message: str
):
    said = await refused(client, "compile_persona_prompt", persona="con", **arguments)

    assert said.startswith(f"Error executing tool compile_persona_prompt: {message}")
