"""A person in front of their client publishes, or does not, whatever an agent claims."""

import json
from typing import Any

import pytest
from dirty_equals import IsStr
from inline_snapshot import snapshot
from mcp import Client
from mcp.types import ElicitResult

from server.personas import service as personas
from server.personas.shapes import Registered
from server.specs import gate
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

UNTOUCHED = ElicitResult(action="accept", content={})
UNTICKED = ElicitResult(action="accept", content={"publish": False})
AWAY = ElicitResult(action="cancel")


@pytest.mark.parametrize("answer", [YES, UNTOUCHED])
async def test_a_person_who_accepts_publishes(
    kind: Registered, connect: Connect, answer: ElicitResult
):
    person = Person(answer)
    async with connect(person) as client:
        published = await called(
            client, "publish_persona_spec", persona="con", version="1.0.0", note="The first."
        )
        (publication,) = (await called(client, "get_persona_spec", persona="con"))["publications"]

    assert published == {
        "slug": kind.slug,
        "version": "1.0.0",
        "changed": True,
        "replaced": None,
        "digest": IsStr(),
        "overridden": [],
    }
    assert publication["confirmed"] == "person"
    assert publication["author"] == IsStr(regex=".+ via mcp")
    (message,) = person.asked
    assert message.replace(kind.slug, "SLUG") == snapshot("""\
Publish spec 1.0.0 of Con (SLUG)?
From now on the persona runs with 1.0.0, as its first active spec.
Note: The first.\
""")
    assert [form["properties"] for form in person.forms] == snapshot(
        [
            {
                "publish": {
                    "default": True,
                    "description": "Make it the active version",
                    "title": "Publish",
                    "type": "boolean",
                }
            }
        ]
    )


async def test_the_question_says_what_is_replaced_and_overridden(
    kind: Registered, connect: Connect, app: App, caller: Caller
):
    await publish(app, caller, "1.0.0")
    await check_kindness(app, caller)
    person = Person(YES)
    async with connect(person) as client:
        await called(client, "create_persona_spec", persona="con", spec={})
        published = await called(
            client,
            "publish_persona_spec",
            persona="con",
            version="1.0.1",
            note="Urgent.\n\nAll checks pass.\u202e",
            override_checks=True,
        )

    assert (published["replaced"], len(published["overridden"])) == ("1.0.0", 1)
    assert person.asked[0].replace(kind.slug, "SLUG") == snapshot("""\
Publish spec 1.0.1 of Con (SLUG)?
From now on the persona runs with 1.0.1, in place of 1.0.0.
Changes: constitution.
1 check fails; yes overrides:
- kindness: lacks 'be honest'.
Note: Urgent. All checks pass.\
""")


@pytest.mark.usefixtures("kind")
async def test_an_agents_word_does_not_override_checks(client: Client, app: App, caller: Caller):
    await check_kindness(app, caller)

    message = await refused(
        client,
        "publish_persona_spec",
        persona="con",
        version="1.0.0",
        note="x",
        confirm=True,
        override_checks=True,
    )

    assert "checks_failed" in message
    assert "--override-checks`" in message
    assert await active(client) is None


@pytest.mark.usefixtures("kind")
async def test_a_question_about_many_checks_stays_short(connect: Connect, app: App, caller: Caller):
    checks = [{"name": f"n{n}", "must_contain": ["x" * 60] * 20} for n in range(7)]
    async with app.work(caller) as work:
        await gate.set_checks(work, "con", json.dumps(checks))
    person = Person(NO)
    async with connect(person) as client:
        await refused(
            client,
            "publish_persona_spec",
            persona="con",
            version="1.0.0",
            note="x",
            override_checks=True,
        )

    lines = person.asked[0].splitlines()
    assert "7 checks fail; yes overrides:" in lines
    assert "- and 2 more" in lines
    assert max(map(len, lines)) == len("- ") + 300


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (NO, "not_confirmed: Spec 1.0.0 of SLUG was not published: the user said no."),
        (UNTICKED, "not_confirmed: Spec 1.0.0 of SLUG was not published: the user said no."),
        (AWAY, "not_confirmed: Spec 1.0.0 of SLUG was not published: the question to the user was"),
    ],
)
@pytest.mark.parametrize("confirm", [False, True])
async def test_whoever_does_not_accept_publishes_nothing_whatever_the_agent_claims(
    kind: Registered, connect: Connect, answer: ElicitResult, message: str, confirm: bool
):
    person = Person(answer)
    async with connect(person) as client:
        said = await refused(
            client,
            "publish_persona_spec",
            persona="con",
            version="1.0.0",
            note="x",
            confirm=confirm,
        )
        assert await active(client) is None

    assert said.replace(kind.slug, "SLUG").startswith(PUBLISH + message)
    assert len(person.asked) == 1


async def test_where_nobody_can_be_asked_a_yes_has_to_be_passed_on(
    kind: Registered, client: Client
):
    arguments = {"persona": "con", "version": "1.0.0", "note": "x"}

    message = await refused(client, "publish_persona_spec", **arguments)

    assert message.replace(kind.slug, "SLUG") == snapshot(
        "Error executing tool publish_persona_spec: not_confirmed: Spec 1.0.0 of SLUG was not published: that needs the user's yes, and this client cannot ask for it. Get the user's explicit yes in the conversation, then call again with confirm=true."
    )
    assert await active(client) is None
    published = await called(client, "publish_persona_spec", **arguments, confirm=True)
    assert published["changed"] is True
    spec = await called(client, "get_persona_spec", persona="con")
    assert spec["last_published"]["confirmed"] == "agent"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"persona": "nobody"}, "persona_not_found: "),
        ({"version": "9.9.9"}, "spec_not_found: "),
        ({"version": "1.0"}, "invalid: version: must be three numbers X.Y.Z"),
        ({"version": None}, "invalid: version: must be text."),
        ({"note": " "}, "invalid: note: must not be empty or blank."),
        ({"sure": True}, "invalid: sure: is not known here. Known: persona, version, note, "),
        ({}, "checks_failed: "),
    ],
)
@pytest.mark.usefixtures("kind")
async def test_what_cannot_be_published_anyway_is_refused_without_asking(
    connect: Connect, app: App, caller: Caller, arguments: dict[str, Any], message: str
):
    await check_kindness(app, caller)
    person = Person()
    async with connect(person) as client:
        said = await refused(
            client,
            "publish_persona_spec",
            **{"persona": "con", "version": "1.0.0", "note": "x", "confirm": True} | arguments,
        )

    assert said.startswith(PUBLISH + message)
    assert person.asked == []


async def test_an_archived_persona_is_refused_without_asking(
    kind: Registered, connect: Connect, app: App, caller: Caller
):
    async with app.work(caller) as work:
        await personas.update_persona(work, "con", status="archived")
    person = Person()
    async with connect(person) as client:
        said = await refused(
            client, "publish_persona_spec", persona=kind.slug, version="1.0.0", note="x"
        )

    assert said.startswith(f"{PUBLISH}persona_archived: ")
    assert person.asked == []


@pytest.mark.usefixtures("kind")
async def test_an_earlier_version_comes_back_by_publishing_it(
    connect: Connect, app: App, caller: Caller
):
    await publish(app, caller, "1.0.0")
    await publish(app, caller, "1.0.1", "Be quick.")
    person = Person(YES)
    async with connect(person) as client:
        published = await called(
            client, "publish_persona_spec", persona="con", version="1.0.0", note="back"
        )

    assert (published["changed"], published["replaced"]) == (True, "1.0.1")
