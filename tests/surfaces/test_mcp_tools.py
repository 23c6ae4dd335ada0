"""The tools, in both protocol eras: translation only; the rules are tested in tests/personas."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dirty_equals import IsDatetime, IsPartialDict, IsPositiveInt, IsStr
from inline_snapshot import external_file, snapshot
from mcp import Client
from mcp.types import CallToolResult, TextContent
from sqlalchemy import select

from db.tables import AuditRow
from server.surfaces.mcp.server import INSTRUCTIONS, TOOLSETS, build
from server.surfaces.mcp.toolset import ALWAYS_LOAD
from server.work import App
from tests.conftest import Opened, operator

pytestmark = pytest.mark.anyio

TOKENS = 2500
SPEC_TOKENS = 1500
STANDARD_TOKENS = 1800
JOB_TOKENS = 1100
CORE_PERSONA_TOKENS = 1400


def said(result: CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


async def called(client: Client, tool: str, **arguments: Any) -> Any:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, said(result)
    return result.structured_content


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert result.structured_content is None
    return said(result)


async def test_registering_answers_with_all_there_is_to_know(client: Client, app: App):
    persona = await called(client, "register_persona", name="Con", role="Developer")

    assert persona == {
        "id": IsPositiveInt(),
        "slug": IsStr(regex=r"developer-con-\d+"),
        "name": "Con",
        "role": "developer",
        "status": "active",
        "description": None,
        "created_at": IsDatetime(iso_string=True),
        "updated_at": IsDatetime(iso_string=True),
        "path": str(app.data_root / "personas" / persona["slug"]),
        "assets": {"directory": True, "skill": True, "experience": True},
        "role_created": True,
        "files_created": ["skill.md", "experience.md"],
    }


async def test_the_whole_life_of_a_persona(client: Client):
    con = await called(client, "register_persona", name="Con", role="developer", description="x")
    slug = con["slug"]

    assert (await called(client, "get_persona", persona="con"))["persona"]["slug"] == slug
    assert (await called(client, "lookup_role", name="Developer"))["found"] is True
    listed = await called(client, "list_personas", role="developer", text="con", sort="role")
    assert [persona["slug"] for persona in listed["personas"]] == [slug]

    files = await called(client, "read_persona_files", persona=slug, which="skill")
    written = await called(
        client,
        "write_persona_skill",
        persona=slug,
        content="# Con\n",
        expected_sha256=files["skill"]["sha256"],
    )
    assert written["replaced_sha256"] == files["skill"]["sha256"]
    restored = await called(
        client, "write_persona_skill", persona=slug, restore_sha256=files["skill"]["sha256"]
    )
    assert restored["sha256"] == files["skill"]["sha256"]
    added = await called(client, "add_persona_experience", persona=slug, entry="Learned.")
    assert added["heading"] == IsStr(regex=r".* — .* via mcp")

    Path(added["path"]).unlink()
    repaired = await called(client, "repair_persona_assets", persona=slug)
    assert repaired["created"] == ["experience.md"]

    changed = await called(client, "update_persona", persona=slug, name="Connor", description="")
    assert (changed["name"], changed["description"]) == ("Connor", None)
    await called(client, "update_persona", persona=slug, status="archived")
    assert (await called(client, "list_personas"))["personas"] == []
    assert (await called(client, "list_personas", status="archived"))["totals"]["archived"] == 1


async def test_becoming_a_persona_is_prose_without_structured_content(client: Client):
    await called(client, "register_persona", name="Con", role="developer")

    result = await client.call_tool("become_persona", {"persona": "con", "task": "Fix it."})

    assert result.structured_content is None
    assert said(result).startswith("## Identity\n")
    assert said(result).endswith("## Task\n\n```text\nFix it.\n```\n")
    assert result.meta == IsPartialDict(
        {
            "dramatis/trace": {
                "source": "fallback",
                "persona_spec_version": None,
                "spec_digest": None,
                "digest": IsStr(regex="[0-9a-f]{64}"),
                "reason": "no active spec",
            }
        }
    )


async def test_several_candidates_are_an_answer(client: Client):
    for _ in range(2):
        await called(client, "register_persona", name="Con", role="developer")

    answer = await called(client, "get_persona", persona="con")

    assert answer["persona"] is None
    assert len(answer["candidates"]) == 2


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        (
            "register_persona",
            {"name": " ", "role": "developer"},
            "invalid: name: must not be empty or blank.",
        ),
        ("register_persona", {"role": "developer"}, "invalid: name: is required."),
        (
            "register_persona",
            {"name": 7, "role": "developer"},
            "invalid: name: must be text.",
        ),
        (
            "register_persona",
            {"name": "x" * 5000, "role": "developer"},
            "invalid: name: must have at most 100 characters.",
        ),
        (
            "register_persona",
            {"name": "Con", "role": "developer", "descripton": "x"},
            "invalid: descripton: is not known here. Known: name, role, description.",
        ),
        (
            "get_persona",
            {"persona": "nobody"},
            "persona_not_found: No persona fits 'nobody'. Register one with register_persona"
            " (name, role), or list them all.",
        ),
        (
            "list_personas",
            {"limit": 1000},
            "invalid: limit: must be less than or equal to 100.",
        ),
        (
            "list_personas",
            {"status": "gone"},
            "invalid: status: must be 'active', 'archived' or 'all'.",
        ),
    ],
)
async def test_refusals_are_sentences_that_say_what_to_do(
    client: Client, tool: str, arguments: dict[str, Any], message: str
):
    assert await refused(client, tool, **arguments) == f"Error executing tool {tool}: {message}"


@pytest.mark.parametrize("text", ["null", "[1, 2]", '{"a": 1}', "true", "12"])
async def test_text_that_looks_like_json_stays_text(client: Client, text: str):
    await called(client, "register_persona", name=text, role="developer", description=text)

    changed = await called(client, "update_persona", persona=text, description=f" {text} ")

    assert (changed["name"], changed["description"]) == (text, text)


async def test_an_unknown_tool_is_an_error(client: Client):
    assert await refused(client, "sing") == "Unknown tool: sing"


async def test_failed_files_are_a_kind_of_error_of_their_own(client: Client, app: App):
    (app.data_root / "personas").write_text("in the way")

    message = await refused(client, "register_persona", name="Con", role="developer")

    assert message == IsStr(
        regex=r"Error executing tool register_persona: assets_failed: Persona \d+"
        r" \(developer-con-\d+\) is registered, .* call repair_persona_assets .*"
    )
    assert str(app.data_root) not in message


@pytest.mark.parametrize(
    "tool",
    sorted({tool.function.__name__ for toolset in TOOLSETS.values() for tool in toolset.tools}),
)
async def test_every_tool_is_published_as_its_snapshot_says(app: App, tool: str):
    async with Client(build(Opened(app), toolsets=list(TOOLSETS)), cache=None) as client:
        published = {tool.name: tool for tool in (await client.list_tools()).tools}

    assert published[tool].model_dump(
        mode="json", by_alias=True, exclude_none=True
    ) == external_file(f"toolsnaps/{tool}.json")


async def test_every_tool_has_a_title_and_all_four_annotations(app: App):
    async with Client(build(Opened(app), toolsets=list(TOOLSETS)), cache=None) as client:
        tools = (await client.list_tools()).tools

    for tool in tools:
        assert tool.title
        assert tool.annotations is not None
        hints = tool.annotations.model_dump(exclude={"title"})
        assert None not in hints.values(), tool.name


@pytest.mark.parametrize(
    ("toolset", "tools", "tokens"),
    [
        ("personas", 12, TOKENS),
        ("specs", 7, SPEC_TOKENS),
        ("standards", 7, STANDARD_TOKENS),
        ("jobs", 9, JOB_TOKENS),
        ("core-personas", 10, CORE_PERSONA_TOKENS),
    ],
)
async def test_what_every_model_pays_for_the_tools_stays_small(
    app: App, toolset: str, tools: int, tokens: int
):
    async with Client(build(Opened(app), toolsets=[toolset]), cache=None) as client:
        published = (await client.list_tools()).tools

    paid = [
        json.dumps(
            {"name": t.name, "description": t.description, "inputSchema": t.input_schema},
            separators=(",", ":"),
            ensure_ascii=False,
        )
        for t in published
    ]
    assert len(published) <= tools
    assert sum(map(len, paid)) / 4 <= tokens


async def test_only_the_tools_of_the_default_toolset_are_served_unasked(client: Client):
    names = [tool.name for tool in (await client.list_tools()).tools]

    assert names == [tool.function.__name__ for tool in TOOLSETS["personas"].tools]


async def test_the_instructions_fit_what_clients_show(client: Client):
    assert client.instructions == INSTRUCTIONS
    assert INSTRUCTIONS.startswith("Use Dramatis when")


async def test_a_toolset_adds_its_own_instructions_and_all_of_them_still_fit(app: App):
    async with Client(
        build(Opened(app), toolsets=list(TOOLSETS), read_only=True), cache=None
    ) as client:
        instructions = client.instructions or ""

    assert instructions.endswith(
        INSTRUCTIONS + "".join(toolset.instructions for toolset in TOOLSETS.values())
    )
    assert len(instructions) < 2000


def test_no_toolset_costs_the_start_of_a_server_that_does_not_serve_it():
    code = "import server.surfaces.mcp.server, sys; print(*sys.modules)"

    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    assert "server.surfaces.mcp.toolset" in loaded
    modules = {name.replace("-", "_") for name in TOOLSETS}
    assert {f"server.surfaces.mcp.{name}" for name in modules} & set(loaded) == set()
    assert "server.specs.document" not in loaded
    assert "server.standards.shapes" not in loaded
    assert len(TOOLSETS) == len(list(TOOLSETS))


@pytest.mark.parametrize("toolset", ["personas", "standards"])
def test_a_toolset_does_not_import_what_describes_specs(toolset: str):
    code = f"import server.surfaces.mcp.{toolset}, sys; print(*sys.modules)"

    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    assert f"server.surfaces.mcp.{toolset}" in loaded
    assert "server.specs.document" not in loaded


async def test_a_toolset_that_is_named_twice_is_served_once(app: App):
    async with Client(build(Opened(app), toolsets=["specs", "specs"]), cache=None) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]

    assert names == [tool.function.__name__ for tool in TOOLSETS["specs"].tools]


async def test_a_tool_of_two_toolsets_is_served_once(app: App):
    async with Client(build(Opened(app), toolsets=list(TOOLSETS)), cache=None) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]

    twice = [tool.function.__name__ for one in TOOLSETS.values() for tool in one.tools]
    assert names == [*dict.fromkeys(twice)]
    assert len(twice) == len(names) + 7


@pytest.mark.parametrize(
    ("toolsets", "loaded"),
    [
        (["personas"], ["lookup_role", "become_persona"]),
        (["jobs", "core-personas"], ["invoke_persona", "become_persona"]),
        (["personas", "jobs"], ["lookup_role", "invoke_persona"]),
        ([*TOOLSETS], ["lookup_role", "invoke_persona"]),
    ],
)
async def test_two_tools_at_most_are_always_loaded(
    app: App, toolsets: list[str], loaded: list[str]
):
    async with Client(build(Opened(app), toolsets=toolsets), cache=None) as client:
        tools = (await client.list_tools()).tools

    assert [tool.name for tool in tools if ALWAYS_LOAD in (tool.meta or {})] == loaded


async def test_a_read_only_server_has_no_tool_that_writes(app: App):
    async with Client(build(Opened(app), read_only=True), cache=None) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]

    assert names == snapshot(
        [
            "lookup_role",
            "list_personas",
            "get_persona",
            "read_persona_files",
            "become_persona",
            "search_standards",
            "read_standard",
        ]
    )


async def test_an_unknown_toolset_is_refused_with_those_there_are(app: App):
    with pytest.raises(
        Exception,
        match=r"No toolset is called 'x'. Known: personas, specs, standards, jobs, core-personas\.",
    ):
        build(Opened(app), toolsets=["x"])


async def test_numbers_and_nulls_that_models_send_are_understood(client: Client):
    con = await called(client, "register_persona", name="Con", role="developer", description=None)

    found = await called(client, "get_persona", persona=con["id"])
    listed = await called(client, "list_personas", role=None, text=None, cursor=None)

    assert found["persona"]["slug"] == con["slug"]
    assert [persona["slug"] for persona in listed["personas"]] == [con["slug"]]


async def test_what_a_client_does_is_recorded_as_the_agents(client: Client, app: App):
    await called(client, "register_persona", name="Con", role="developer")

    async with app.work(operator(app)) as work:
        (entry,) = await work.session.scalars(select(AuditRow))
    assert entry.caller_kind == "agent"
    assert entry.caller_name == IsStr(regex=r".+ via mcp")


async def test_a_read_only_server_says_so_and_refuses_even_what_it_does_not_offer(app: App):
    async with Client(build(Opened(app), read_only=True), cache=None) as client:
        assert client.instructions is not None
        assert client.instructions.startswith("This server is read-only")
        message = await refused(client, "register_persona", name="Con", role="developer")

    assert message == "Unknown tool: register_persona"
