from typing import Any

import pytest
from dirty_equals import IsDatetime, IsNow, IsPartialDict, IsStr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inline_snapshot import snapshot

from server.access import add_tenant
from server.errors import Invalid
from server.standards.catalogue import (
    StandardNotFound,
    StandardNotReadable,
    list_standards,
    open_standard,
    read_standard,
    standards_starting_with,
    statistics,
)
from server.standards.documents import body_sha256
from server.standards.indexer import index_standards
from server.standards.search import search_standards
from server.standards.shapes import StandardListing, StandardText, Statistics
from server.work import App, Caller
from tests.conftest import but
from tests.standards.conftest import (
    FLAKY,
    RETRIES,
    Index,
    Project,
    agent_of,
    approved,
    person_of,
    proposed,
    using,
)

pytestmark = pytest.mark.anyio

SHOWN = ".agent-os/standards"
CLAIM = f"approved_by: grace\napproved_sha256: {body_sha256(RETRIES)}"
CLAIMED = f"---\ncreated_by: sre-con-1\n{CLAIM}\n---\n\n{RETRIES}"


async def listed(app: App, **asked: Any) -> StandardListing:
    return await using(app, agent_of(app), lambda work: list_standards(work, **asked))


async def topics(app: App, **asked: Any) -> list[str]:
    return [one.topic for one in (await listed(app, **asked)).standards]


async def read(app: App, domain: str, topic: str) -> StandardText:
    return await using(app, agent_of(app), lambda work: read_standard(work, domain, topic))


async def counted(app: App) -> Statistics:
    return await using(app, agent_of(app), statistics)


async def starting(app: App, typed: str, limit: int = 10, domain: str | None = None) -> list[str]:
    return await using(
        app,
        agent_of(app),
        lambda work: standards_starting_with(work, typed, limit, domain=domain),
    )


async def not_found(app: App, domain: str, topic: str) -> str:
    with pytest.raises(StandardNotFound) as error:
        await read(app, domain, topic)
    return str(error.value)


async def approve(app: App, topic: str) -> None:
    proposal = await proposed(app, agent_of(app), topic=topic)
    await approved(app, person_of(app, "grace"), proposal.id)


@pytest.fixture
async def shelf(project: Project, app: App) -> App:
    """Standards of every layer, and one that is in two of them."""
    library = project.place.root.parent / "library"
    for path in ("universal/testing/names.md", "languages/python/retries.md"):
        (library / path).parent.mkdir(parents=True, exist_ok=True)
        (library / path).write_text("# Of the library\n\nNames are words.\n", encoding="utf-8")
    project.write("testing/flaky-tests.md", f"---\ntags: [Python, flaky]\n---\n\n{FLAKY}")
    project.write("testing/names.md", "# Names\n\nA name is a sentence.\n")
    project.write("Error Handling/Retry_rules.md", CLAIMED)
    app = but(app, place=but(project.place, library=library), memory={})
    await index_standards(app, agent_of(app))
    return app


async def test_a_listing_says_of_each_standard_what_is_known(project: Project, app: App):
    project.write("development/retries.md", CLAIMED.replace("---\n", "---\ntags: [HTTP]\n", 1))
    await approve(app, "flaky-tests")
    await index_standards(app, agent_of(app))
    await search_standards(app, agent_of(app), "jitter")

    listing = await listed(app)

    assert listing.model_dump() == snapshot(
        {
            "standards": [
                {
                    "domain": "development",
                    "topic": "retries",
                    "layer": "project",
                    "file": ".agent-os/standards/development/retries.md",
                    "title": "Retries",
                    "tags": ["http"],
                    "created_by": "sre-con-1",
                    "review": "claimed",
                    "approved_by": "grace",
                    "last_updated": IsDatetime(),
                    "query_count": 1,
                    "problem": None,
                },
                {
                    "domain": "testing",
                    "topic": "flaky-tests",
                    "layer": "project",
                    "file": ".agent-os/standards/testing/flaky-tests.md",
                    "title": "Flaky tests",
                    "tags": [],
                    "created_by": "ada via claude-code",
                    "review": "approved",
                    "approved_by": "grace",
                    "last_updated": IsDatetime(),
                    "query_count": 0,
                    "problem": None,
                },
            ],
            "total": 2,
            "domains": ["development", "testing"],
            "next_cursor": None,
        }
    )


async def test_standards_are_listed_by_domain_and_topic(shelf: App):
    listing = await listed(shelf)

    assert [one.file for one in listing.standards] == snapshot(
        [
            ".agent-os/standards/Error Handling/Retry_rules.md",
            "languages/python/retries.md",
            ".agent-os/standards/testing/flaky-tests.md",
            ".agent-os/standards/testing/names.md",
            "universal/testing/names.md",
        ]
    )
    assert (listing.total, listing.domains) == (5, ["Error Handling", "python", "testing"])


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"domain": "error handling"}, ["Retry_rules"]),
        ({"domain": "ERROR-HANDLING"}, ["Retry_rules"]),
        ({"domain": "error"}, []),
        ({"tags": ["python"]}, ["flaky-tests"]),
        ({"tags": ["Flaky", "PYTHON"]}, ["flaky-tests"]),
        ({"tags": ["flaky", "java"]}, []),
        ({"layer": "universal"}, ["names"]),
        ({"layer": "language"}, ["retries"]),
        ({"layer": "project", "domain": "testing"}, ["flaky-tests", "names"]),
    ],
)
async def test_filters_hold_and_the_total_is_of_what_they_leave(
    shelf: App, asked: dict[str, Any], found: list[str]
):
    listing = await listed(shelf, **asked)

    assert [one.topic for one in listing.standards] == found
    assert (listing.total, len(listing.domains)) == (len(found), 3)


async def test_pages_hold_each_standard_once(shelf: App):
    pages: list[list[str]] = []
    cursor: str | None = None
    while True:
        listing = await listed(shelf, limit=2, cursor=cursor)
        pages.append([one.file for one in listing.standards])
        cursor = listing.next_cursor
        assert listing.total == 5
        if cursor is None:
            break

    whole = [one.file for one in (await listed(shelf)).standards]
    assert pages == [whole[:2], whole[2:4], whole[4:]]


async def test_a_page_goes_on_behind_a_standard_that_is_gone_meanwhile(
    project: Project, shelf: App
):
    first = await listed(shelf, limit=3)
    (project.place.standards / "testing" / "flaky-tests.md").unlink()
    await index_standards(shelf, agent_of(shelf))

    assert first.standards[-1].topic == "flaky-tests"
    assert await topics(shelf, cursor=first.next_cursor) == ["names", "names"]


async def test_names_may_be_as_long_as_the_disk_allows(project: Project, app: App, index: Index):
    for last in "ab":
        project.write(f"{'d' * 200}/{'t' * 200}/{last}.md", FLAKY)
    await index()

    first = await listed(app, limit=1)

    assert await topics(app, cursor=first.next_cursor) == [f"{'t' * 200}/b"]


@pytest.mark.parametrize("cursor", ["x", "0", "1" * 30, "testing/names 1", "' OR true --"])
async def test_a_cursor_of_something_else_is_refused(shelf: App, cursor: str):
    with pytest.raises(Invalid, match="cursor: is not one of this listing's"):
        await listed(shelf, cursor=cursor)


@pytest.mark.parametrize(
    "asked",
    [{"limit": 0}, {"limit": 101}, {"domain": " "}, {"tags": ["a\nb"]}, {"layer": "mine"}],
)
async def test_what_breaks_a_rule_is_refused(shelf: App, asked: dict[str, Any]):
    with pytest.raises(Invalid, match=f"^{next(iter(asked))}"):
        await listed(shelf, **asked)


async def test_what_cannot_be_searched_is_listed_with_the_reason(
    project: Project, app: App, index: Index
):
    project.write("testing/binary.md", b"\xff\xfe")
    project.write("testing/large.md", "x" * 2_000_000)
    project.write("testing/unclosed.md", f"---\ntags: [\n---\n\n{FLAKY}")
    await index()

    listing = await listed(app)

    assert {one.topic: one.problem for one in listing.standards} == snapshot(
        {
            "binary": "binary.md of testing is not UTF-8 text.",
            "large": "large.md of testing is 2,000,000 bytes; the limit is 1,000,000.",
            "unclosed": "The front matter cannot be used: it is no YAML (line 3).",
        }
    )
    assert (await counted(app)).unsearchable == 2


async def test_a_project_that_was_never_indexed_has_an_empty_listing(app: App):
    assert (await listed(app)).model_dump() == {
        "standards": [],
        "total": 0,
        "domains": [],
        "next_cursor": None,
    }


async def test_a_standard_is_read_as_its_file_is_now(project: Project, shelf: App):
    text = CLAIMED + "\nChanged just now.\n"
    project.write("Error Handling/Retry_rules.md", text)

    found = await read(shelf, "error-handling", "retry rules")

    assert found.model_dump() == {
        "domain": "Error Handling",
        "topic": "Retry_rules",
        "layer": "project",
        "file": f"{SHOWN}/Error Handling/Retry_rules.md",
        "text": text,
        "sha256": IsStr(regex="[0-9a-f]{64}"),
        "review": "unreviewed",
        "approved_by": None,
    }


@pytest.mark.parametrize(
    ("domain", "topic"),
    [
        ("Error Handling", "Retry_rules"),
        (" ERROR-HANDLING\n", "retry-rules.md"),
        ("error_handling", "retry RULES"),
    ],
)
async def test_names_are_compared_in_any_spelling(shelf: App, domain: str, topic: str):
    assert (await read(shelf, domain, topic)).file == f"{SHOWN}/Error Handling/Retry_rules.md"


async def test_a_topic_may_lie_deeper(project: Project, app: App):
    project.write("testing/unit/names.md", FLAKY)

    assert (await read(app, "testing", "unit/names")).topic == "unit/names"


async def test_of_two_layers_the_project_s_own_standard_is_read(project: Project, shelf: App):
    here = await read(shelf, "testing", "names")
    (project.place.standards / "testing" / "names.md").unlink()
    there = await read(shelf, "testing", "names")

    assert [(one.layer, one.file) for one in (here, there)] == [
        ("project", f"{SHOWN}/testing/names.md"),
        ("universal", "universal/testing/names.md"),
    ]


async def test_who_approved_a_text_is_said_where_it_is_read(shelf: App):
    await approve(shelf, "clocks")

    found = {
        topic: await read(shelf, domain, topic)
        for domain, topic in (
            ("testing", "clocks"),
            ("error-handling", "retry-rules"),
            ("testing", "flaky-tests"),
        )
    }

    assert {topic: (one.review, one.approved_by) for topic, one in found.items()} == {
        "clocks": ("approved", "grace"),
        "retry-rules": ("claimed", "grace"),
        "flaky-tests": ("unreviewed", None),
    }


async def test_a_file_that_was_never_indexed_is_read_too(project: Project, app: App):
    project.write("development/retries.md", CLAIMED)

    found = await read(app, "development", "retries")

    assert (found.text, found.review) == (CLAIMED, "claimed")


async def test_where_there_is_none_the_closest_are_suggested(shelf: App):
    assert await not_found(shelf, "testing", "flaky") == snapshot(
        "There is no such standard. Did you mean testing/flaky-tests, testing/names?"
        " list_standards has those there are."
    )
    assert await not_found(shelf, "operations", "retries") == snapshot(
        "There is no such standard. Did you mean python/retries, error-handling/retry-rules?"
        " list_standards has those there are."
    )
    assert await not_found(shelf, "zzz", "qqq") == snapshot(
        "There is no such standard. list_standards has those there are."
    )


@pytest.mark.parametrize(
    ("domain", "topic"),
    [
        ("..", "secret"),
        ("../..", "secret"),
        (".", "../secret"),
        ("testing", "../../../secret"),
        ("testing", "../testing/names"),
        ("testing/../testing", "names"),
        ("a/../../b", "names"),
        ("testing", "..%2Fsecret"),
        ("testing", "..\\secret"),
        ("testing", "/etc/passwd"),
        ("/", "etc/passwd"),
        ("testing", "names.md/../names"),
    ],
)
async def test_names_that_are_paths_find_nothing(
    project: Project, shelf: App, domain: str, topic: str
):
    for folder in (project.place.standards.parent, project.place.root, project.place.root.parent):
        (folder / "secret.md").write_text("# Secret\n")

    assert (await not_found(shelf, domain, topic)).startswith("There is no such standard.")


@settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(max_size=220), st.text(max_size=220))
async def test_any_other_names_find_nothing_or_break_a_rule(shelf: App, domain: str, topic: str):
    with pytest.raises((StandardNotFound, Invalid)):
        await read(shelf, domain, topic)


async def test_a_file_that_is_no_text_is_said_to_be_none(project: Project, app: App):
    project.write("testing/binary.md", b"\xff\xfe")

    for reading in (read_standard, open_standard):
        with pytest.raises(StandardNotReadable, match="not UTF-8 text") as error:
            await using(app, agent_of(app), lambda work, do=reading: do(work, "testing", "binary"))

        assert error.value.hint == "Mend it in an editor."


async def test_a_standard_is_opened_without_its_front_matter(project: Project, app: App):
    project.write("development/retries.md", CLAIMED)

    opened = await using(
        app, agent_of(app), lambda work: open_standard(work, "Development", "retries")
    )

    assert opened.model_dump() == {
        "file": f"{SHOWN}/development/retries.md",
        "text": RETRIES,
        "base_sha256": (await read(app, "development", "retries")).sha256,
    }


async def test_a_standard_that_is_to_be_new_is_opened_as_an_outline(app: App):
    opened = await using(
        app, agent_of(app), lambda work: open_standard(work, "testing", "Clock skew")
    )

    assert opened.model_dump() == {
        "file": f"{SHOWN}/testing/clock-skew.md",
        "text": IsStr(regex=r"(?s)# Clock skew\n.*## Pattern\n.*"),
        "base_sha256": None,
    }


async def test_domains_and_topics_are_completed(shelf: App):
    assert await starting(shelf, "") == ["Error Handling", "python", "testing"]
    assert await starting(shelf, "ERR") == ["Error Handling"]
    assert await starting(shelf, "", limit=1) == ["Error Handling"]
    assert await starting(shelf, "", domain="testing") == ["flaky-tests", "names"]
    assert await starting(shelf, "na", domain="testing") == ["names"]
    assert await starting(shelf, "%") == []


async def test_what_is_gone_is_neither_listed_nor_completed(project: Project, shelf: App):
    (project.place.standards / "testing" / "flaky-tests.md").unlink()
    await index_standards(shelf, agent_of(shelf))

    assert await topics(shelf, domain="testing") == ["names", "names"]
    assert await starting(shelf, "f", domain="testing") == []


async def test_before_there_is_a_project_nothing_is_completed(app: App):
    assert await starting(app, "") == []


async def test_what_there_is_is_counted(project: Project, shelf: App):
    for query in ("midnight", "midnight", "jitter"):
        await search_standards(shelf, agent_of(shelf), query)
    project.write("testing/empty.md", "")
    await index_standards(shelf, agent_of(shelf))
    await proposed(shelf, agent_of(shelf), topic="clocks")

    found = await counted(shelf)

    assert found.model_dump(exclude={"most_queried", "never_queried", "recently_changed"}) == {
        "standards": 6,
        "passages": 6,
        "unsearchable": 1,
        "unreviewed": 5,
        "waiting_proposals": 1,
        "not_written": 0,
        "indexed_at": IsNow(delta=60, tz="UTC"),
        "vectors": "off: DRAMATIS_EMBEDDING_MODEL names no model",
    }
    assert [(one.topic, one.query_count) for one in found.most_queried] == [
        ("flaky-tests", 2),
        ("Retry_rules", 1),
    ]
    assert [one.topic for one in found.never_queried] == ["retries", "empty", "names", "names"]
    assert found.recently_changed[0].topic == "empty"
    assert len(found.recently_changed) == 5


async def test_before_there_is_a_project_there_is_nothing_to_count(app: App):
    assert (await counted(app)).model_dump() == IsPartialDict(
        standards=0, indexed_at=None, vectors="nothing is indexed yet", most_queried=[]
    )


async def test_two_projects_and_two_tenants_never_mix(project: Project, shelf: App, caller: Caller):
    elsewhere = Project((project.place.root.parent / "elsewhere").resolve())
    elsewhere.write("testing/clocks.md", FLAKY)
    tenant = await using(shelf, caller, lambda work: add_tenant(work, "acme"))
    other, theirs = but(shelf, place=elsewhere.place), but(shelf, tenant_id=tenant.id)
    await index_standards(other, agent_of(other))
    before = await topics(theirs)
    await search_standards(other, agent_of(other), "midnight")

    assert (before, (await counted(theirs)).standards) == ([], 0)
    assert await topics(other) == ["clocks"]
    assert await starting(other, "", domain="testing") == ["clocks"]
    assert (await counted(other)).standards == 1
    assert (await counted(shelf)).most_queried == []
