"""The toolset of specs, in both protocol eras; the rules are tested in tests/specs."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import pytest
from dirty_equals import IsDatetime, IsPartialDict, IsStr
from inline_snapshot import snapshot
from mcp import Client, MCPError
from mcp.client import ClientRequestContext
from mcp.types import (
    CallToolResult,
    ElicitRequestFormParams,
    ElicitRequestParams,
    ElicitResult,
    ResourceTemplateReference,
    TextContent,
    TextResourceContents,
)

from server import access
from server.personas import service as personas
from server.personas.shapes import Registered
from server.specs import gate, publishing, service
from server.specs.notation import read_spec
from server.surfaces.mcp.server import build
from server.work import App, Caller
from tests.conftest import Opened, but
from tests.surfaces.test_mcp_tools import called, refused

pytestmark = pytest.mark.anyio

TOOLSETS = ["personas", "specs"]
PUBLISH = "Error executing tool publish_persona_spec: "


class Person:
    """Sits in front of a client, and answers with what it was told, in turn."""

    def __init__(self, *answers: ElicitResult) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.forms: list[dict[str, Any]] = []
        self.meanwhile: Callable[[], Any] | None = None

    async def __call__(
        self, context: ClientRequestContext, params: ElicitRequestParams
    ) -> ElicitResult:
        assert isinstance(params, ElicitRequestFormParams)
        self.asked.append(params.message)
        self.forms.append(params.requested_schema)
        if self.meanwhile is not None:
            happens, self.meanwhile = self.meanwhile, None
            await happens()
        return self.answers.pop(0)


YES = ElicitResult(action="accept", content={"publish": True})
UNTOUCHED = ElicitResult(action="accept", content={})
UNTICKED = ElicitResult(action="accept", content={"publish": False})
NO = ElicitResult(action="decline")
AWAY = ElicitResult(action="cancel")


@pytest.fixture(params=["auto", "legacy"])
def era(request: pytest.FixtureRequest) -> str:
    return request.param


Connect = Callable[[Person | None], AbstractAsyncContextManager[Client]]


@pytest.fixture
def connect(app: App, era: Any) -> Connect:
    server = build(Opened(app), toolsets=TOOLSETS)
    return lambda person: Client(server, mode=era, cache=None, elicitation_callback=person)


@pytest.fixture
async def client(connect: Connect) -> AsyncIterator[Client]:
    """A client that cannot ask anybody."""
    async with connect(None) as client:
        yield client


@pytest.fixture
async def con(app: App, caller: Caller) -> Registered:
    return await personas.register_persona(app, caller, name="Con", role="developer")


@pytest.fixture
async def kind(con: Registered, app: App, caller: Caller) -> Registered:
    """Con, with the draft 1.0.0."""
    async with app.work(caller) as work:
        await service.create_spec(work, con.slug, {"constitution": ["Be kind."]})
    return con


async def publish(app: App, caller: Caller, version: str, principle: str | None = None) -> None:
    async with app.work(caller) as work:
        if principle:
            await service.create_spec(
                work, "con", {"version": version, "constitution": [principle]}
            )
        await publishing.publish_spec(work, "con", version, note="by the operator")


async def check_kindness(app: App, caller: Caller, *, words: str = "be honest") -> None:
    async with app.work(caller) as work:
        await gate.set_checks(work, "con", f"- {{name: kindness, must_contain: [{words}]}}")


async def active(client: Client) -> str | None:
    listed = await called(client, "list_persona_specs", persona="con")
    return listed["personas"][0]["active"]


def texts(result: CallToolResult) -> list[str]:
    return [content.text for content in result.content if isinstance(content, TextContent)]


async def read(client: Client, uri: str) -> str:
    (content,) = (await client.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    return content.text


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


async def test_a_read_only_server_only_reads_specs(app: App):
    async with Client(build(Opened(app), toolsets=["specs"], read_only=True), cache=None) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]

    assert names == [
        "list_persona_specs",
        "get_persona_spec",
        "diff_persona_specs",
        "compile_persona_prompt",
    ]


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
