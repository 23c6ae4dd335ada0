"""The toolset of standards, in both protocol eras; the rules are tested in tests/standards."""

from typing import Any

import pytest
from dirty_equals import IsDatetime, IsFloat, IsPartialDict, IsPositiveInt, IsStr
from inline_snapshot import snapshot
from mcp import Client

from server import access
from server.personas import service as personas
from server.standards.indexer import index_standards
from server.surfaces.mcp.server import build
from server.work import App, Caller
from tests.conftest import Opened, but, operator
from tests.standards.conftest import FLAKY, RETRIES, Project, agent_of, proposed
from tests.surfaces.test_mcp_tools import called, refused

pytestmark = pytest.mark.anyio

PROPOSAL: dict[str, Any] = {
    "domain": "testing",
    "topic": "Flaky Tests",
    "content": FLAKY,
    "reason": "Seen in three files.",
}


async def indexed(app: App) -> None:
    await index_standards(app, agent_of(app))


async def test_a_search_returns_passages_that_are_complete_in_themselves(
    agent: Client, placed: App, project: Project
):
    project.write("testing/flaky-tests.md")
    await indexed(placed)

    found = await called(agent, "search_standards", queries=["midnight", "the clock"])

    assert found == {
        "hits": [
            {
                "file": ".agent-os/standards/testing/flaky-tests.md",
                "domain": "testing",
                "topic": "flaky-tests",
                "layer": "project",
                "section": IsStr(regex=".*Pattern"),
                "line": IsPositiveInt(),
                "text": IsStr(regex="(?s).*around midnight.*"),
                "highlight": IsStr(regex=".*«midnight».*"),
                "relevance": IsFloat(ge=0, le=1),
                "tokens": IsPositiveInt(),
                "review": "unreviewed",
                "approved_by": None,
            }
        ],
        "found_by": "full text",
        "took_ms": IsFloat(ge=0),
        "tokens": IsPositiveInt(),
        "note": None,
    }


async def test_a_search_takes_one_text_filters_and_nulls(
    agent: Client, placed: App, project: Project
):
    project.write("testing/flaky-tests.md", f"---\ntags: [clock]\n---\n{FLAKY}")
    project.write("operations/flaky-tests.md")
    await indexed(placed)
    wanted = [
        {"domain": "testing"},
        {"tags": ["Clock"]},
        {"tags": ["other"]},
        {"layer": "universal"},
        {"domain": None, "tags": None, "layer": None},
    ]

    found = [
        await called(agent, "search_standards", queries="midnight", **filters) for filters in wanted
    ]

    assert [sorted({hit["domain"] for hit in one["hits"]}) for one in found] == [
        ["testing"],
        ["testing"],
        [],
        [],
        ["operations", "testing"],
    ]


@pytest.mark.parametrize("query", ["'; DROP TABLE", "-e", "%", "(a & | b", "null", "the"])
async def test_any_text_is_a_query(agent: Client, query: str):
    found = await called(agent, "search_standards", queries=[query])

    assert found["hits"] == []
    assert found["note"] is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"queries": []}, "queries: must have at least 1 item"),
        ({"queries": [" "]}, "queries.0: must not be empty or blank."),
        ({"queries": ["x"] * 6}, "queries: must have at most 5 items"),
        ({"queries": 7}, "queries: must be a list."),
        ({"queries": "x", "limit": 21}, "limit: must be less than or equal to 20."),
        ({"queries": "x", "layer": "mine"}, "layer: must be 'project', 'language' or 'universal'."),
        ({"query": "x"}, "queries: is required. query: is not known here. Known: queries, limit,"),
    ],
)
async def test_a_search_that_is_none_is_refused_by_field(
    agent: Client, arguments: dict[str, Any], message: str
):
    said = await refused(agent, "search_standards", **arguments)

    assert said.startswith(f"Error executing tool search_standards: invalid: {message}")


async def test_standards_are_listed_in_pages_and_read_whole(
    agent: Client, placed: App, project: Project
):
    project.write("testing/flaky-tests.md")
    project.write("operations/retries.md", RETRIES)
    await indexed(placed)

    first = await called(agent, "list_standards", domain=None, cursor=None, limit=1)
    rest = await called(agent, "list_standards", cursor=first["next_cursor"])
    text = await called(agent, "read_standard", domain="Testing", topic="flaky tests")

    assert [one["topic"] for one in first["standards"] + rest["standards"]] == [
        "retries",
        "flaky-tests",
    ]
    assert (rest["total"], rest["domains"]) == (2, ["operations", "testing"])
    assert text == {
        "domain": "testing",
        "topic": "flaky-tests",
        "layer": "project",
        "file": ".agent-os/standards/testing/flaky-tests.md",
        "text": FLAKY,
        "sha256": IsStr(regex="[0-9a-f]{64}"),
        "review": "unreviewed",
        "approved_by": None,
    }


@pytest.mark.parametrize(
    ("domain", "topic"), [("testing", "../x"), ("a/../../b", "x"), ("..", "..%2Fx"), ("/etc", "x")]
)
async def test_names_that_would_lead_out_find_nothing(
    agent: Client, project: Project, domain: str, topic: str
):
    (project.place.root / "x.md").write_text("out of bounds")

    said = await refused(agent, "read_standard", domain=domain, topic=topic)

    assert "standard_not_found: " in said
    assert "out of bounds" not in said


async def test_a_proposal_is_stored_and_writes_nothing(
    agent: Client, placed: App, project: Project
):
    con = await personas.register_persona(placed, operator(placed), name="Con", role="developer")
    evidence = [{"file": "tests/test_tokens.py", "lines": "14-20", "note": "reads it twice"}]

    answer = await called(
        agent,
        "propose_standard",
        **PROPOSAL,
        evidence=evidence,
        confidence=0.9,
        tags=["Clock"],
        persona="con",
    )

    listed = await called(agent, "list_standard_proposals", proposal=None, before=None)
    shown = await called(agent, "list_standard_proposals", proposal=answer["id"])
    assert answer == {
        "id": IsPositiveInt(),
        "revision": 1,
        "file": ".agent-os/standards/testing/flaky-tests.md",
        "status": "draft",
        "digest": IsStr(regex="[0-9a-f]{64}"),
        "similar": [],
        "other_proposals": [],
        "message": IsStr(regex=r"Proposal \d+ waits for a person. Go on with your work; .*"),
    }
    assert listed["detail"] is None
    assert listed["page"] == {
        "proposals": [
            {
                "id": answer["id"],
                "domain": "testing",
                "topic": "flaky-tests",
                "file": ".agent-os/standards/testing/flaky-tests.md",
                "status": "draft",
                "waits_for": "person",
                "changes_existing": False,
                "revision": 1,
                "reason": "Seen in three files.",
                "created_by": con.slug,
                "created_at": IsDatetime(iso_string=True),
                "feedback": None,
                "not_written": False,
            }
        ],
        "waiting": 1,
        "next_before": None,
    }
    assert shown["page"] is None
    assert shown["detail"] == IsPartialDict(
        listed["page"]["proposals"][0]
        | {
            "content": FLAKY.strip(),
            "evidence": evidence,
            "confidence": 0.9,
            "tags": ["clock"],
            "digest": answer["digest"],
            "review_command": IsStr(regex=rf"dramatis standards review {answer['id']} .*"),
        }
    )
    assert project.files() == []


async def test_proposals_come_in_pages_and_by_status(agent: Client, placed: App):
    caller = agent_of(placed)
    ids = [(await proposed(placed, caller, topic=f"topic-{n}")).id for n in range(3)]

    newest = await called(agent, "list_standard_proposals", limit=2)
    before = newest["page"]["next_before"]
    oldest = await called(agent, "list_standard_proposals", limit=2, before=before)
    rejected = await called(agent, "list_standard_proposals", status="rejected")

    pages = [newest["page"], oldest["page"], rejected["page"]]
    assert [[one["id"] for one in page["proposals"]] for page in pages] == [
        ids[:0:-1],
        ids[:1],
        [],
    ]
    assert [page["waiting"] for page in pages] == [3, 3, 3]


async def test_a_revision_keeps_what_it_leaves_out(agent: Client, placed: App):
    first = await proposed(placed, agent_of(placed), tags=["clock"])

    second = await called(
        agent, "revise_standard_proposal", proposal=first.id, reason="Seen in four.", tags=None
    )

    shown = (await called(agent, "list_standard_proposals", proposal=first.id))["detail"]
    assert (second["id"], second["revision"]) == (first.id, 2)
    assert second["digest"] != first.digest
    assert (shown["reason"], shown["tags"]) == ("Seen in four.", ["clock"])
    assert [one["number"] for one in shown["revisions"]] == [1, 2]


async def test_a_standard_that_exists_is_changed_only_by_its_hash(agent: Client, project: Project):
    project.write("testing/flaky-tests.md")
    change = PROPOSAL | {"content": f"{FLAKY}\nNever sleep."}

    said = await refused(agent, "propose_standard", **change)
    now = await called(agent, "read_standard", domain="testing", topic="flaky-tests")
    answer = await called(agent, "propose_standard", **change, base_sha256=now["sha256"])

    shown = (await called(agent, "list_standard_proposals", proposal=answer["id"]))["detail"]
    assert "standard_exists: " in said
    assert shown["diff"][-2:] == ["+", "+Never sleep."]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"domain": "../x"}, "invalid: domain: must be a name, not a path"),
        ({"topic": "a/b"}, "invalid: topic: must be a name, not a path"),
        ({"topic": "..%2Fx"}, "invalid: topic: must be a name, not a path"),
        ({"content": " "}, "invalid: content: must not be empty or blank."),
        ({"content": "---\napproved_by: ada\n---\nx"}, "invalid: content: must not begin with"),
        ({"content": "x\npassword = 'hunter2-Xy9!kQ'"}, "secret_found: .*content, line 2: "),
        ({"reason": "x" * 2001}, "invalid: reason: must have at most 2000 characters."),
        ({"evidence": ["x.py"]}, "invalid: evidence.0: must be a mapping."),
        ({"evidence": [{"file": "x", "by": "me"}]}, "invalid: evidence.0.by: is not known here."),
        ({"confidence": 2}, "invalid: confidence: must be less than or equal to 1."),
        ({"persona": "nobody"}, "persona_not_found: "),
        ({"approved_by": "ada"}, "invalid: approved_by: is not known here."),
        ({"status": "approved"}, "invalid: status: is not known here."),
        ({"confirm": True}, "invalid: confirm: is not known here."),
    ],
)
async def test_what_may_not_be_proposed_is_refused_and_nothing_is_stored(
    agent: Client, arguments: dict[str, Any], message: str
):
    said = await refused(agent, "propose_standard", **PROPOSAL | arguments)

    assert said == IsStr(regex=rf"(?s)Error executing tool propose_standard: {message}.*")
    assert (await called(agent, "list_standard_proposals"))["page"]["proposals"] == []


async def test_the_same_text_is_proposed_once(agent: Client):
    first = await called(agent, "propose_standard", **PROPOSAL)

    said = await refused(agent, "propose_standard", **PROPOSAL)

    assert f"already_proposed: Proposal {first['id']} says the same" in said


async def test_without_a_project_every_tool_says_so(app: App, each_era: Any):
    server = build(Opened(but(app, place=None)), toolsets=["standards"])
    everything: dict[str, dict[str, Any]] = {
        "search_standards": {"queries": "x"},
        "list_standards": {},
        "read_standard": {"domain": "a", "topic": "b"},
        "propose_standard": PROPOSAL,
        "revise_standard_proposal": {"proposal": 1, "reason": "x"},
        "list_standard_proposals": {},
        "request_standard_approval": {"proposal": 1},
    }

    async with Client(server, mode=each_era, cache=None) as client:
        said = {await refused(client, tool, **arguments) for tool, arguments in everything.items()}

    assert len(said) == len(everything)
    assert all(": no_project: There is no project here" in one for one in said)


async def test_the_proposal_of_another_tenant_or_project_does_not_exist(
    placed: App, caller: Caller, each_era: Any, project: Project
):
    theirs = await proposed(placed, agent_of(placed))
    async with placed.work(caller) as work:
        other = await access.add_tenant(work, "other")
    elsewhere = Project(project.place.root.parent / "elsewhere")
    one = {"proposal": theirs.id}

    for app in (but(placed, tenant_id=other.id), but(placed, place=elsewhere.place)):
        server = build(Opened(app), toolsets=["standards"])
        async with Client(server, mode=each_era, cache=None) as client:
            for tool, more in {
                "list_standard_proposals": {},
                "revise_standard_proposal": {"reason": "x"},
                "request_standard_approval": {},
            }.items():
                assert "proposal_not_found: " in await refused(client, tool, **one, **more)
            listed = await called(client, "list_standard_proposals", status="all")
        assert listed["page"] == {"proposals": [], "waiting": 0, "next_before": None}


async def test_a_read_only_server_only_reads_standards(placed: App):
    server = build(Opened(placed), toolsets=["standards"], read_only=True)
    async with Client(server, cache=None) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        for tool in ("propose_standard", "revise_standard_proposal", "request_standard_approval"):
            assert await refused(client, tool, proposal=1) == f"Unknown tool: {tool}"

    assert names == snapshot(
        ["search_standards", "list_standards", "read_standard", "list_standard_proposals"]
    )
