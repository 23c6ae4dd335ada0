"""Drafts and versions as tools, in both protocol eras; the rules are tested in tests/specs."""

from typing import Any

import pytest
from dirty_equals import IsDatetime, IsPartialDict, IsStr
from mcp import Client

from server.personas import service as personas
from server.personas.shapes import Registered
from server.surfaces.mcp.server import build
from server.work import App, Caller
from tests.conftest import Opened
from tests.surfaces.mcp_specs.conftest import publish
from tests.surfaces.test_mcp_tools import called, refused

pytestmark = pytest.mark.anyio


async def test_a_draft_is_answered_with_its_preview(con: Registered, client: Client):
    draft = await called(
        client, "create_persona_spec", persona="con", spec={"constitution": ["Be kind."]}
    )

    assert draft == {
        "slug": con.slug,
        "version": "1.0.0",
        "status": "draft",
        "origin": "written",
        "sources": [],
        "digest": IsStr(regex="[0-9a-f]{64}"),
        "preview": IsPartialDict(
            spec_version="1.0.0", constitution_text=IsStr(regex="(?s).*kind.*")
        ),
    }


@pytest.mark.parametrize(
    "spec",
    [
        "constitution: ['true', '12']\n",
        '{"constitution": ["true", "12"]}',
        {"constitution": ["true", "12"]},
    ],
)
@pytest.mark.usefixtures("con")
async def test_yaml_json_and_objects_are_the_same_spec(client: Client, spec: Any):
    draft = await called(client, "create_persona_spec", persona="con", spec=spec)

    stored = await called(client, "get_persona_spec", persona="con", version=draft["version"])
    assert stored["document"]["constitution"] == ["true", "12"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (None, "invalid: spec: must be an object, or text in YAML or JSON."),
        (["x"], "invalid: spec: must be an object, or text in YAML or JSON."),
        (7, "invalid: spec: must be an object, or text in YAML or JSON."),
        ("null", "spec_not_readable: A spec is a mapping of fields. Known: version, constitution"),
        ("[1]", "spec_not_readable: A spec is a mapping of fields. Known: version, constitution"),
        ({"constitution": "x"}, "invalid: constitution: must be a list."),
        (
            {"deterministic_rules": {"banned_phrases": "abc"}},
            "invalid: deterministic_rules.banned_phrases: must be a list.",
        ),
        ({"tone": "x"}, "invalid: tone: is not known here. Known: version, constitution"),
    ],
)
@pytest.mark.usefixtures("con")
async def test_what_is_no_spec_is_refused_by_field_and_nothing_is_stored(
    client: Client, spec: Any, message: str
):
    answer = await refused(client, "create_persona_spec", persona="con", spec=spec)

    assert answer.startswith(f"Error executing tool create_persona_spec: {message}")
    assert (await called(client, "list_persona_specs"))["personas"] == []


async def test_a_draft_is_generated_from_what_is_there(con: Registered, client: Client):
    draft = await called(client, "generate_persona_spec", persona=con.id)

    assert (draft["status"], draft["origin"]) == ("draft", "generated")
    assert draft["sources"][0] == "name and role"


async def test_specs_are_listed_by_persona_and_by_version_in_pages(
    kind: Registered, client: Client, app: App, caller: Caller
):
    eve = await personas.register_persona(app, caller, name="Eve", role="tester")
    await called(client, "create_persona_spec", persona="eve", spec={})
    for _ in range(2):
        await called(client, "create_persona_spec", persona="con", spec={})

    first = await called(client, "list_persona_specs", persona=None, cursor=None, limit=1)
    rest = await called(client, "list_persona_specs", cursor=first["next"])
    newest = await called(client, "list_persona_specs", persona="con", limit=2)
    oldest = await called(client, "list_persona_specs", persona="con", cursor=newest["next"])

    assert [one["slug"] for one in first["personas"] + rest["personas"]] == [kind.slug, eve.slug]
    assert rest["next"] is None
    assert [one["version"] for one in newest["versions"]] == ["1.0.2", "1.0.1"]
    assert [one["version"] for one in oldest["versions"]] == ["1.0.0"]


@pytest.mark.usefixtures("kind")
async def test_versions_are_read_and_compared(client: Client, app: App, caller: Caller):
    await publish(app, caller, "1.0.0")
    await called(client, "create_persona_spec", persona="con", spec="constitution: [Be honest.]")

    spec = await called(client, "get_persona_spec", persona="con", version=None)
    diff = await called(client, "diff_persona_specs", persona="con", before=None, after=None)

    assert spec["version"] == "1.0.0"
    assert spec["publications"] == [
        {
            "version": "1.0.0",
            "published_at": IsDatetime(iso_string=True),
            "author": "tester",
            "confirmed": "operator",
            "note": "by the operator",
            "replaced": None,
            "overridden": [],
        }
    ]
    assert (diff["before"], diff["after"]) == ("1.0.0", "1.0.1")
    assert diff["changes"] != []
    back = await called(client, "diff_persona_specs", persona="con", before="1.0.1", after="1.0.0")
    assert (back["before"], back["after"]) == ("1.0.1", "1.0.0")


@pytest.mark.usefixtures("kind")
async def test_without_an_active_version_reading_says_what_there_is(client: Client):
    message = await refused(client, "get_persona_spec", persona="con")

    assert "no_active_spec: No spec of developer-con-" in message
    assert "1.0.0 draft" in message


async def test_a_read_only_server_only_reads_specs(app: App):
    async with Client(build(Opened(app), toolsets=["specs"], read_only=True), cache=None) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]

    assert names == [
        "list_persona_specs",
        "get_persona_spec",
        "diff_persona_specs",
        "compile_persona_prompt",
    ]
