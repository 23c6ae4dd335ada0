"""Specs as resources, completions and change notices, in both protocol eras."""

from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from mcp.types import ResourceTemplateReference, TextResourceContents

from server import access
from server.personas.shapes import Registered
from server.specs.notation import read_spec
from server.surfaces.mcp.server import build
from server.work import App, Caller
from tests.conftest import Opened, but
from tests.surfaces.conftest import Person
from tests.surfaces.mcp_specs.conftest import TOOLSETS, YES, Connect, publish
from tests.surfaces.test_mcp_tools import called, refused

pytestmark = pytest.mark.anyio


async def read(client: Client, uri: str) -> str:
    (content,) = (await client.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    return content.text


async def test_the_spec_of_another_tenant_does_not_exist(
    kind: Registered, era: Any, app: App, caller: Caller
):
    async with app.work(caller) as work:
        other = await access.add_tenant(work, "other")
    theirs = build(Opened(but(app, tenant_id=other.id)), toolsets=TOOLSETS)
    one = {"persona": kind.slug}
    exact = one | {"version": "1.0.0"}
    everything: dict[str, dict[str, Any]] = {
        "create_persona_spec": one | {"spec": "{}"},
        "list_persona_specs": one,
        "get_persona_spec": exact,
        "diff_persona_specs": one,
        "generate_persona_spec": one,
        "publish_persona_spec": exact | {"note": "x", "confirm": True},
        "compile_persona_prompt": exact,
    }

    async with Client(theirs, mode=era, cache=None) as client:
        for tool, arguments in everything.items():
            assert "persona_not_found: " in await refused(client, tool, **arguments)
        assert (await called(client, "list_persona_specs"))["personas"] == []
        with pytest.raises(MCPError, match="persona_not_found"):
            await read(client, f"persona://{kind.slug}/specs/1.0.0")


async def test_specs_are_resources_that_can_be_stored_again(
    kind: Registered, client: Client, app: App, caller: Caller
):
    await publish(app, caller, "1.0.0")
    await called(client, "create_persona_spec", persona="con", spec={"constitution": ["A draft."]})

    active = await read(client, f"persona://{kind.slug}/spec")
    draft = await read(client, f"persona://{kind.slug}/specs/1.0.1")

    assert active == "version: 1.0.0\nconstitution:\n  - Be kind.\n"
    assert read_spec(draft).constitution == ["A draft."]
    (content,) = (await client.read_resource(f"persona://{kind.slug}/spec")).contents
    assert content.mime_type == "text/yaml"
    (schema,) = (await client.read_resource("schema://persona-spec.json")).contents
    assert schema.mime_type == "application/schema+json"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("persona://{slug}/spec", "no_active_spec: .*1.0.0 draft"),
        ("persona://{slug}/specs/1.0.1", "spec_not_found: .*1.0.0 draft"),
        ("persona://{slug}/specs/newest", "invalid: version: must be three numbers"),
        ("persona://con/specs/1.0.0", "persona_not_found: No persona has the slug"),
    ],
)
async def test_a_spec_that_is_not_there_is_not_found_and_what_is_there_is_said(
    kind: Registered, client: Client, address: str, message: str
):
    uri = address.format(slug=kind.slug)

    with pytest.raises(MCPError, match=message) as refused:
        await client.read_resource(uri)

    assert refused.value.error.code == -32602
    assert refused.value.error.data == {"uri": uri}


@pytest.mark.parametrize(
    ("chosen", "value", "versions"),
    [
        ("con", "", []),
        ("SLUG", "", ["1.0.1", "1.0.0"]),
        ("SLUG", "1.0.1", ["1.0.1"]),
        ("SLUG", "%", []),
        (None, "", []),
    ],
)
async def test_versions_are_completed_once_the_persona_is_chosen(
    kind: Registered, client: Client, chosen: str | None, value: str, versions: list[str]
):
    await called(client, "create_persona_spec", persona="con", spec={})
    slug = kind.slug if chosen == "SLUG" else chosen

    answer = await client.complete(
        ref=ResourceTemplateReference(uri="persona://{slug}/specs/{version}"),
        argument={"name": "version", "value": value},
        context_arguments={"slug": slug} if slug else None,
    )

    assert answer.completion.values == versions


async def test_a_prefix_that_no_version_can_have_is_refused_without_internals(client: Client):
    with pytest.raises(MCPError, match=r"^invalid: text: must "):
        await client.complete(
            ref=ResourceTemplateReference(uri="persona://{slug}/specs/{version}"),
            argument={"name": "version", "value": "\0"},
            context_arguments={"slug": "con"},
        )


@pytest.mark.parametrize("era", ["auto"])
async def test_modern_clients_hear_of_versions_and_of_what_becomes_active(
    kind: Registered, connect: Connect
):
    uris = [f"persona://{kind.slug}/{end}" for end in ("specs/1.0.1", "specs/1.0.2", "spec")]
    heard: list[str] = []
    async with (
        connect(Person(YES)) as client,
        client.listen(resource_subscriptions=uris) as events,
    ):
        await called(client, "create_persona_spec", persona="con", spec={})
        await called(client, "generate_persona_spec", persona="con")
        for _ in range(2):
            await called(client, "publish_persona_spec", persona="con", version="1.0.1", note="x")
        with anyio.fail_after(5):
            async for event in events:
                heard.append(getattr(event, "uri", ""))
                if len(heard) == 3:
                    break

    assert heard == uris


@pytest.mark.filterwarnings("ignore:resources/subscribe is removed")
async def test_older_clients_hear_of_the_active_spec_they_subscribed_to(kind: Registered, app: App):
    heard: list[str] = []
    told = anyio.Event()

    async def handle(message: Any) -> None:
        assert message.method == "notifications/resources/updated"
        heard.append(message.params.uri)
        told.set()

    server = build(Opened(app), toolsets=TOOLSETS)
    uri = f"persona://{kind.slug}/spec"
    async with Client(server, mode="legacy", cache=None, message_handler=handle) as client:
        await client.subscribe_resource(uri)  # pyright: ignore[reportDeprecated]  # older clients
        await called(client, "create_persona_spec", persona="con", spec={})
        for version in ("1.0.0", "1.0.0"):
            await called(
                client,
                "publish_persona_spec",
                persona="con",
                version=version,
                note="x",
                confirm=True,
            )
        with anyio.fail_after(5):
            await told.wait()

    assert heard == [uri]
