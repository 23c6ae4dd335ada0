"""Resources, completions, prompts, skills and change notices, in both protocol eras."""

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest
from inline_snapshot import snapshot
from mcp import Client, MCPError
from mcp.types import (
    PromptReference,
    ReadResourceResult,
    Request,
    ResourceTemplateReference,
    Result,
    TextResourceContents,
)
from pydantic import Field

from server.personas import service
from server.personas.shapes import Registered
from server.specs.schema import json_schema
from server.surfaces.mcp.server import Dramatis
from server.work import App, Caller

pytestmark = pytest.mark.anyio

R = TypeVar("R", bound=Result)


@pytest.fixture
async def con(app: App, caller: Caller) -> Registered:
    return await service.register_persona(
        app, caller, name="Con", role="C++ / Rust", description="Writes code."
    )


def text(result: ReadResourceResult) -> str:
    (content,) = result.contents
    assert isinstance(content, TextResourceContents)
    return content.text


async def listed(client: Client) -> AsyncIterator[list[str]]:
    cursor = None
    while True:
        page = await client.list_resources(cursor=cursor)
        yield [resource.uri for resource in page.resources]
        cursor = page.next_cursor
        if cursor is None:
            break


async def test_personas_and_roles_are_listed_and_every_one_can_be_read(
    con: Registered, client: Client
):
    uris = [uri async for page in listed(client) for uri in page]

    assert uris == [
        f"persona://{con.slug}",
        f"persona://{con.slug}/skill.md",
        f"persona://{con.slug}/experience.md",
        "role://c%2B%2B%20%2F%20rust",
        "schema://persona-spec.json",
    ]
    persona, skill, experience, role, schema = [
        text(await client.read_resource(uri)) for uri in uris
    ]
    assert json.loads(persona)["slug"] == con.slug
    assert skill.startswith("# Con — c++ / rust\n")
    assert experience.startswith("# Experience Log — Con\n")
    assert json.loads(role)["role"]["label"] == "C++ / Rust"
    assert json.loads(schema) == json_schema()


async def test_the_listing_comes_in_pages(app: App, caller: Caller, client: Client):
    for number in range(60):
        await service.register_persona(app, caller, name=f"P{number}", role=f"r{number}")

    pages = [len(page) async for page in listed(client)]

    assert pages == [150, 30, 50, 10, 1]


@pytest.mark.parametrize("cursor", ["x", "personas:!!", "things:1"])
async def test_a_cursor_of_somebody_else_is_refused(client: Client, cursor: str):
    with pytest.raises(MCPError, match="cursor: is not one of"):
        await client.list_resources(cursor=cursor)


@pytest.mark.parametrize(
    "uri",
    [
        "persona://nobody",
        "persona://nobody/skill.md",
        "persona://nobody/experience.md",
        "persona://..%2F..%2Fetc/skill.md",
        "role://nobody",
        "skill://personas/nobody/SKILL.md",
        "nothing://here",
    ],
)
async def test_a_resource_that_is_not_there_is_not_found(client: Client, uri: str):
    with pytest.raises(MCPError) as refused:
        await client.read_resource(uri)

    assert refused.value.error.code == -32602
    assert refused.value.error.data == {"uri": uri}


async def test_an_absent_file_is_not_found_and_the_remedy_is_said(
    con: Registered, client: Client, app: App
):
    (app.data_root / "personas" / con.slug / "skill.md").unlink()

    with pytest.raises(MCPError, match="repair_persona_assets"):
        await client.read_resource(f"persona://{con.slug}/skill.md")


@pytest.mark.parametrize("uri", ["persona://con", "persona://con/skill.md", "persona://1"])
async def test_only_the_slug_is_an_address(con: Registered, client: Client, uri: str):
    with pytest.raises(MCPError, match="persona_not_found: No persona has the slug"):
        await client.read_resource(uri)


@pytest.mark.parametrize("value", ["\0", "x" * 1000])
async def test_odd_text_to_complete_or_to_page_by_is_refused_without_internals(
    client: Client, value: str
):
    with pytest.raises(MCPError, match=r"^invalid: text: must "):
        await client.complete(
            ref=PromptReference(name="become_persona"),
            argument={"name": "persona", "value": value},
        )
    with pytest.raises(MCPError, match=r"^invalid: text: must "):
        await client.list_resources(cursor=f"roles:{value}")


async def test_slugs_and_roles_are_completed(con: Registered, client: Client):
    async def completed(ref: Any, name: str, value: str) -> list[str]:
        answer = await client.complete(ref=ref, argument={"name": name, "value": value})
        return answer.completion.values

    template = ResourceTemplateReference(uri="persona://{slug}/skill.md")
    role = ResourceTemplateReference(uri="role://{name}")
    prompt = PromptReference(name="become_persona")
    assert await completed(template, "slug", con.slug[:3]) == [con.slug]
    assert await completed(prompt, "persona", "co") == [con.slug]
    assert await completed(prompt, "persona", "zz") == []
    assert await completed(prompt, "task", "x") == []
    assert await completed(PromptReference(name="sing"), "persona", "co") == []
    assert await completed(role, "name", "C") == ["c++ / rust"]


async def test_the_prompt_is_the_text_of_the_tool(con: Registered, client: Client):
    arguments = {"persona": con.slug, "task": "Fix it."}

    prompt = await client.get_prompt("become_persona", arguments)

    tool = await client.call_tool("become_persona", arguments)
    (message,) = prompt.messages
    assert message.role == "user"
    assert message.content == tool.content[0]
    assert prompt.meta is not None
    assert tool.meta is not None
    assert prompt.meta["dramatis/trace"] == tool.meta["dramatis/trace"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "invalid: persona: must not be empty or blank."),
        ({"persona": "nobody"}, "persona_not_found: No persona fits 'nobody'"),
    ],
)
async def test_a_prompt_without_a_persona_says_so(
    client: Client, arguments: dict[str, str], message: str
):
    with pytest.raises(MCPError, match=message) as refused:
        await client.get_prompt("become_persona", arguments)

    assert refused.value.error.code == -32602


@pytest.mark.parametrize(
    ("prompt", "arguments", "message"),
    [
        (
            "sing",
            {},
            "invalid: No prompt is called 'sing'. Known: become_persona, propose_standard,"
            " review_against_standards.",
        ),
        (
            "become_persona",
            {"persona": "con", "tsk": "x"},
            "invalid: tsk: is not known here. Known: persona, task.",
        ),
    ],
)
async def test_an_unknown_prompt_or_argument_is_refused_by_name(
    client: Client, prompt: str, arguments: dict[str, str], message: str
):
    with pytest.raises(MCPError) as refused:
        await client.get_prompt(prompt, arguments)

    assert (refused.value.error.code, refused.value.error.message) == (-32602, message)


async def test_prompts_templates_and_capabilities_are_published(client: Client):
    prompts = (await client.list_prompts()).prompts
    templates = (await client.list_resource_templates()).resource_templates

    assert [(p.name, [(a.name, a.required) for a in p.arguments or []]) for p in prompts] == [
        ("become_persona", [("persona", False), ("task", False)]),
        ("propose_standard", [("domain", False), ("topic", False), ("about", False)]),
        ("review_against_standards", [("what", False)]),
    ]
    assert [template.uri_template for template in templates] == snapshot(
        [
            "persona://{slug}",
            "persona://{slug}/skill.md",
            "persona://{slug}/experience.md",
            "role://{name}",
            "persona://{slug}/spec",
            "persona://{slug}/specs/{version}",
            "standard://{domain}/{topic}",
            "skill://personas/{slug}/SKILL.md",
        ]
    )


class SkillList(Result):
    skills: list[dict[str, Any]]
    next_cursor: str | None = Field(None, alias="nextCursor")


class OneSkill(Result):
    skill: dict[str, Any]


async def asked(client: Client, method: str, kind: type[R], **params: str) -> R:
    request = Request[dict[str, str], str](method=method, params=params)
    return await client.session.send_request(request, kind)


async def test_personas_are_agent_skills_with_digests(con: Registered, mcp: Dramatis):
    async with Client(mcp, cache=None) as client:
        (skill,) = (await asked(client, "skills/list", SkillList)).skills
        (file,) = skill["resources"]
        served = text(await client.read_resource(file["uri"]))
        same = await asked(client, "skills/get", OneSkill, uri=file["uri"])
        with pytest.raises(MCPError, match="skill_not_found") as refused:
            await asked(client, "skills/get", OneSkill, uri="skill://personas/con")

    assert same.skill == skill
    assert skill["uri"] == f"skill://personas/{con.slug}/SKILL.md"
    assert skill["frontmatter"] == {
        "name": con.slug,
        "description": "Work as Con, C++ / Rust. Writes code. Use when asked to work or answer as"
        " Con or as a C++ / Rust.",
    }
    assert served.startswith(f"---\nname: {con.slug}\ndescription: ")
    assert file["size"] == len(served.encode())
    assert file["digest"] == f"sha256:{hashlib.sha256(served.encode()).hexdigest()}"
    assert refused.value.error.code == -32602


async def test_a_skill_is_there_even_when_its_file_is_not(con: Registered, client: Client):
    (Path(con.path) / "skill.md").unlink()

    served = text(await client.read_resource(f"skill://personas/{con.slug}/SKILL.md"))

    assert served.endswith("\n---\n\n# Con — C++ / Rust\n")


async def test_one_skill_that_cannot_be_read_does_not_hide_the_others(
    con: Registered, app: App, caller: Caller, mcp: Dramatis
):
    eve = await service.register_persona(app, caller, name="Eve", role="tester")
    (Path(con.path) / "skill.md").write_bytes(b"\xff")

    async with Client(mcp, cache=None) as client:
        skills = (await asked(client, "skills/list", SkillList)).skills

    assert [skill["frontmatter"]["name"] for skill in skills] == [eve.slug]


async def test_an_archived_persona_is_no_skill(
    con: Registered, app: App, caller: Caller, mcp: Dramatis
):
    async with app.work(caller) as work:
        await service.update_persona(work, con.slug, status="archived")

    async with Client(mcp, cache=None) as client:
        with pytest.raises(MCPError, match="persona_archived"):
            await client.read_resource(f"skill://personas/{con.slug}/SKILL.md")


async def test_skills_come_in_pages(app: App, caller: Caller, mcp: Dramatis):
    for number in range(51):
        await service.register_persona(app, caller, name=f"P{number}", role="developer")

    async with Client(mcp, cache=None) as client:
        first = await asked(client, "skills/list", SkillList)
        rest = await asked(client, "skills/list", SkillList, cursor=first.next_cursor or "")

    assert (len(first.skills), len(rest.skills), rest.next_cursor) == (50, 1, None)


async def test_modern_clients_hear_of_changes_on_their_stream(con: Registered, mcp: Dramatis):
    skill = f"persona://{con.slug}/skill.md"
    async with (
        Client(mcp, cache=None) as client,
        client.listen(
            resource_subscriptions=[skill, "role://tester"], resources_list_changed=True
        ) as heard,
    ):
        await client.call_tool("write_persona_skill", {"persona": con.slug, "content": "x"})
        await client.call_tool("register_persona", {"name": "Eve", "role": "tester"})
        events: list[str] = []
        with anyio.fail_after(5):
            async for event in heard:
                events.append(type(event).__name__)
                if len(events) == 3:
                    break

    assert events == ["ResourceUpdated", "ResourcesListChanged", "ResourceUpdated"]


@pytest.mark.filterwarnings("ignore:resources/(un)?subscribe is removed")
async def test_older_clients_hear_of_what_they_subscribed_to(con: Registered, mcp: Dramatis):
    heard: list[Any] = []
    listing_changed = anyio.Event()

    async def handle(message: Any) -> None:
        method = getattr(message, "method", None) or getattr(message.root, "method", None)
        heard.append((method, getattr(message.params, "uri", None)))
        if method == "notifications/resources/list_changed":
            listing_changed.set()

    skill = f"persona://{con.slug}/skill.md"
    async with Client(mcp, mode="legacy", cache=None, message_handler=handle) as client:
        await client.subscribe_resource(skill)  # pyright: ignore[reportDeprecated]  # older clients
        await client.call_tool("write_persona_skill", {"persona": con.slug, "content": "x"})
        await client.unsubscribe_resource(skill)  # pyright: ignore[reportDeprecated]  # the same
        await client.call_tool("write_persona_skill", {"persona": con.slug, "content": "y"})
        await client.call_tool("register_persona", {"name": "Eve", "role": "tester"})
        with anyio.fail_after(5):
            await listing_changed.wait()

    assert heard == [
        ("notifications/resources/updated", skill),
        ("notifications/resources/list_changed", None),
    ]
