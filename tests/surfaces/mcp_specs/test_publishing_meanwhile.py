"""What a yes is worth when something else was published, or checks were set, meanwhile."""

import pytest
from inline_snapshot import snapshot

from server.personas.shapes import Registered
from server.work import App, Caller
from tests.surfaces.conftest import Person
from tests.surfaces.mcp_specs.conftest import (
    NO,
    PUBLISH,
    YES,
    Connect,
    active,
    check_kindness,
    publish,
)
from tests.surfaces.test_mcp_tools import called, refused

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("person", [None, Person()])
@pytest.mark.usefixtures("kind")
async def test_publishing_what_is_active_changes_nothing_and_asks_nobody(
    connect: Connect, app: App, caller: Caller, person: Person | None
):
    await publish(app, caller, "1.0.0")
    await check_kindness(app, caller)
    async with connect(person) as client:
        published = await called(
            client, "publish_persona_spec", persona="con", version="1.0.0", note="again"
        )

    assert published["changed"] is False
    assert person is None or person.asked == []


@pytest.mark.parametrize("era", ["auto"])
@pytest.mark.usefixtures("kind")
async def test_a_modern_client_is_asked_anew_when_another_version_was_published_meanwhile(
    connect: Connect, app: App, caller: Caller
):
    person = Person(YES, NO)
    person.meanwhile = lambda: publish(app, caller, "2.0.0", "Be quick.")
    async with connect(person) as client:
        await refused(client, "publish_persona_spec", persona="con", version="1.0.0", note="x")
        assert await active(client) == "2.0.0"

    first, second = person.asked
    assert "as its first active spec" in first
    assert "in place of 2.0.0" in second


@pytest.mark.parametrize("era", ["legacy"])
async def test_an_older_clients_yes_is_void_when_another_version_was_published_meanwhile(
    kind: Registered, connect: Connect, app: App, caller: Caller
):
    person = Person(YES)
    person.meanwhile = lambda: publish(app, caller, "2.0.0", "Be quick.")
    async with connect(person) as client:
        message = await refused(
            client, "publish_persona_spec", persona="con", version="1.0.0", note="x"
        )
        assert await active(client) == "2.0.0"

    assert message.replace(kind.slug, "SLUG") == snapshot(
        "Error executing tool publish_persona_spec: publishing_changed: SLUG 1.0.0 was not published: since it was agreed to, 2.0.0 is active now. Ask again."
    )


@pytest.mark.parametrize("era", ["legacy"])
@pytest.mark.usefixtures("kind")
async def test_a_yes_to_some_failing_checks_is_none_to_others(
    connect: Connect, app: App, caller: Caller
):
    await check_kindness(app, caller)
    person = Person(YES)
    person.meanwhile = lambda: check_kindness(app, caller, words="be quick")
    async with connect(person) as client:
        message = await refused(
            client,
            "publish_persona_spec",
            persona="con",
            version="1.0.0",
            note="x",
            override_checks=True,
        )
        assert await active(client) is None

    assert "since it was agreed to, its checks say something else now" in message


@pytest.mark.usefixtures("kind")
async def test_checks_that_appear_while_the_person_thinks_still_count(
    connect: Connect, app: App, caller: Caller
):
    person = Person(YES)
    person.meanwhile = lambda: check_kindness(app, caller)
    async with connect(person) as client:
        message = await refused(
            client, "publish_persona_spec", persona="con", version="1.0.0", note="x"
        )
        assert await active(client) is None

    assert message.startswith(f"{PUBLISH}checks_failed: ")
