"""Lists and single versions; comparing two of them as they are stored."""

import pytest
from dirty_equals import IsDatetime
from sqlalchemy import text

from server.errors import Invalid
from server.personas import service as personas
from server.personas.queries import AmbiguousPersona, PersonaNotFound
from server.personas.shapes import Registered
from server.specs import publishing
from server.specs import service as specs
from server.specs.queries import (
    VERSIONS_NAMED,
    NoActiveSpec,
    NoSpec,
    SpecCorrupted,
    SpecNotFound,
    get_spec,
    list_specs,
    overview,
    spec_at,
    versions_starting_with,
)
from server.specs.service import diff_specs
from server.specs.shapes import SpecListing
from server.work import App, Caller, Work

pytestmark = pytest.mark.anyio


@pytest.fixture
async def con(app: App, caller: Caller) -> Registered:
    return await personas.register_persona(app, caller, name="Con", role="developer")


async def create(work: Work, persona: str, *versions: str) -> None:
    for version in versions:
        document = {"version": version, "constitution": [f"Of {version}."]}
        await specs.create_spec(work, persona, document)


async def numbered(work: Work, persona: str, **page: str | int) -> tuple[list[str], str | None]:
    before = page.get("before")
    assert before is None or isinstance(before, str)
    listed = await list_specs(work, persona, before=before, limit=int(page.get("limit", 20)))
    return [one.version for one in listed.versions], listed.next


async def test_a_persona_without_a_spec_has_an_empty_list(con: Registered, work: Work):
    assert await list_specs(work, con.slug) == SpecListing(personas=[], versions=[], next=None)
    assert await overview(work) == SpecListing(personas=[], versions=[], next=None)


async def test_a_list_says_all_of_each_version_but_its_text(con: Registered, work: Work):
    await create(work, "con", "1.0.0", "1.0.1")
    await publishing.publish_spec(work, "con", "1.0.0", note="the first")
    await publishing.publish_spec(work, "con", "1.0.1", note="the second")
    await publishing.publish_spec(work, "con", "1.0.0", note="back")

    listed = await list_specs(work, "con")

    assert [one.model_dump() for one in listed.personas] == [
        {"slug": con.slug, "name": "Con", "active": "1.0.0", "newest": "1.0.1", "versions": 2}
    ]
    second, first = (one.model_dump() for one in listed.versions)
    assert first == {
        "version": "1.0.0",
        "status": "active",
        "origin": "written",
        "sources": [],
        "author": "tester",
        "created_at": IsDatetime(),
        "digest": (await get_spec(work, "con", "1.0.0")).digest,
        "last_published": {
            "version": "1.0.0",
            "published_at": IsDatetime(),
            "author": "tester",
            "confirmed": "operator",
            "note": "back",
            "replaced": "1.0.1",
            "overridden": [],
        },
    }
    assert (second["version"], second["status"]) == ("1.0.1", "archived")
    assert second["last_published"]["note"] == "the second"
    assert listed.versions[0].created_at.utcoffset() is not None


async def test_a_draft_was_never_published(con: Registered, work: Work):
    await create(work, con.slug, "1.0.0")

    assert (await list_specs(work, "con")).versions[0].last_published is None
    assert (await get_spec(work, "con", "1.0.0")).publications == []


@pytest.mark.usefixtures("con")
async def test_pages_go_on_below_a_version_in_the_order_of_versions(work: Work):
    await create(work, "con", "1.0.9", "1.0.10", "2.0.0", "1.2.0", "0.9.9")

    assert await numbered(work, "con", limit=2) == (["2.0.0", "1.2.0"], "1.2.0")
    assert await numbered(work, "con", limit=2, before="1.2.0") == (["1.0.10", "1.0.9"], "1.0.9")
    assert await numbered(work, "con", limit=2, before="1.0.9") == (["0.9.9"], None)
    assert await numbered(work, "con", limit=5) == (
        ["2.0.0", "1.2.0", "1.0.10", "1.0.9", "0.9.9"],
        None,
    )
    assert await numbered(work, "con", before="1.1.0") == (["1.0.10", "1.0.9", "0.9.9"], None)
    assert await numbered(work, "con", before="0.9.9") == ([], None)


@pytest.mark.usefixtures("con")
async def test_a_page_out_of_range_is_refused(work: Work):
    for page, said in [
        ({"limit": 0}, "limit: must be greater"),
        ({"limit": 101}, "limit: must be less"),
        ({"before": "1.0"}, "before: must be three numbers"),
    ]:
        with pytest.raises(Invalid, match=said):
            await numbered(work, "con", **page)
    with pytest.raises(Invalid, match="limit"):
        await overview(work, limit=101)


async def test_the_overview_lists_those_with_specs_by_slug_in_pages(
    app: App, caller: Caller, con: Registered, work: Work
):
    eve = await personas.register_persona(app, caller, name="Eve", role="tester")
    ann = await personas.register_persona(app, caller, name="Ann", role="developer")
    await personas.register_persona(app, caller, name="Bob", role="developer")
    for slug in (con.slug, eve.slug, ann.slug):
        await create(work, slug, "1.0.10", "1.0.9")
    await publishing.publish_spec(work, con.slug, "1.0.9", note="x")

    first = await overview(work, limit=2)
    rest = await overview(work, limit=2, after=first.next)

    assert [one.model_dump() for one in first.personas] == [
        {"slug": ann.slug, "name": "Ann", "active": None, "newest": "1.0.10", "versions": 2},
        {"slug": con.slug, "name": "Con", "active": "1.0.9", "newest": "1.0.10", "versions": 2},
    ]
    assert (first.next, first.versions) == (con.slug, [])
    assert [one.slug for one in rest.personas] == [eve.slug]
    assert rest.next is None


@pytest.mark.usefixtures("con")
async def test_a_version_is_read_whole_and_the_active_one_when_none_is_named(work: Work):
    await create(work, "con", "1.0.0", "2.0.0")
    await publishing.publish_spec(work, "con", "1.0.0", note="x")

    active, named = await get_spec(work, "con"), await get_spec(work, "con", " 2.0.0 ")

    assert (active.version, active.status) == ("1.0.0", "active")
    assert (named.version, named.status) == ("2.0.0", "draft")
    assert active.document == {
        "version": "1.0.0",
        "constitution": ["Of 1.0.0."],
        "decision_policy": {},
        "stance_values": {},
        "identity_voice": {},
        "interaction_style": {},
        "procedural_modules": [],
        "canonical_examples": [],
        "anti_examples": [],
        "deterministic_rules": {"banned_phrases": [], "anti_style_rules": [], "format_rules": []},
        "metadata": {},
    }
    assert active.last_published == active.publications[0]


async def test_what_is_not_there_says_how_to_begin(con: Registered, work: Work):
    begin = (
        "Write one with create_persona_spec or generate_persona_spec, or with"
        f" `dramatis spec new {con.slug}`."
    )

    with pytest.raises(NoSpec) as none_yet:
        await get_spec(work, "con")
    with pytest.raises(SpecNotFound) as unknown:
        await get_spec(work, "con", "1.0.0")
    for attempt in (specs.open_spec(work, "con"), diff_specs(work, "con")):
        with pytest.raises(NoSpec):
            await attempt

    assert str(none_yet.value) == f"{con.slug} has no spec. {begin}"
    assert str(unknown.value) == f"{con.slug} has no spec 1.0.0. {begin}"


async def test_the_highest_versions_are_named_where_one_is_missing(con: Registered, work: Work):
    await create(work, "con", *(f"1.0.{patch}" for patch in range(VERSIONS_NAMED + 1)))

    with pytest.raises(NoActiveSpec, match=r"\(1\.0\.10 draft, .*, 1\.0\.1 draft, …\)"):
        await get_spec(work, "con")
    with pytest.raises(SpecNotFound, match=r"Known: 1\.0\.10 draft, .*, 1\.0\.1 draft, …\."):
        await get_spec(work, con.slug, "9.0.0")


@pytest.mark.parametrize("version", ["", "1", "1.0", "latest", "1.0.0 beta", "1.00.0", "-1.0.0"])
@pytest.mark.usefixtures("con")
async def test_a_malformed_version_is_refused(work: Work, version: str):
    await create(work, "con", "1.0.0")

    with pytest.raises(Invalid, match="version: must be three numbers"):
        await get_spec(work, "con", version)


async def test_a_persona_that_does_not_exist_or_is_not_clear_is_said(
    app: App, caller: Caller, con: Registered, work: Work
):
    await personas.register_persona(app, caller, name="Con", role="tester")

    for attempt in (list_specs(work, "con"), get_spec(work, "con"), get_spec(work, "con", "1.0.0")):
        with pytest.raises(AmbiguousPersona, match=con.slug):
            await attempt
    for attempt in (list_specs(work, "developer-x-999999"), get_spec(work, "developer-x-999999")):
        with pytest.raises(PersonaNotFound):
            await attempt


async def test_an_archived_personas_versions_can_still_be_read(con: Registered, work: Work):
    await create(work, con.slug, "1.0.0")
    await publishing.publish_spec(work, con.slug, "1.0.0", note="x")
    await personas.update_persona(work, con.slug, status="archived")

    assert (await get_spec(work, con.slug)).version == "1.0.0"
    assert (await numbered(work, con.slug))[0] == ["1.0.0"]
    assert con.slug not in [one.slug for one in (await overview(work)).personas]


async def test_a_version_is_found_by_its_address(con: Registered, work: Work):
    await create(work, con.slug, "1.0.0", "1.0.1")
    await publishing.publish_spec(work, con.slug, "1.0.0", note="x")

    assert (await spec_at(work, con.slug)).version == "1.0.0"
    assert (await spec_at(work, con.slug, "1.0.1")).version == "1.0.1"
    with pytest.raises(PersonaNotFound):
        await spec_at(work, "con")
    with pytest.raises(SpecNotFound):
        await spec_at(work, con.slug, "2.0.0")


async def test_versions_are_completed_highest_first(con: Registered, work: Work):
    await create(work, con.slug, "1.0.9", "1.0.10", "2.0.0")

    assert await versions_starting_with(work, con.slug, "1.", 5) == ["1.0.10", "1.0.9"]
    assert await versions_starting_with(work, con.slug, "", 2) == ["2.0.0", "1.0.10"]
    assert await versions_starting_with(work, con.slug, "_.0", 5) == []
    assert await versions_starting_with(work, con.slug, "%", 5) == []
    assert await versions_starting_with(work, "con", "", 5) == []


async def test_the_active_and_the_highest_version_are_compared_unless_others_are_named(
    con: Registered, work: Work
):
    await create(work, "con", "1.0.0", "3.0.0", "2.0.0")
    with pytest.raises(NoActiveSpec):
        await diff_specs(work, "con")
    await publishing.publish_spec(work, "con", "1.0.0", note="x")

    unnamed = await diff_specs(work, "con")
    named = await diff_specs(work, "con", "3.0.0", "2.0.0")

    assert (unnamed.slug, unnamed.before, unnamed.after) == (con.slug, "1.0.0", "3.0.0")
    assert (named.before, named.after) == ("3.0.0", "2.0.0")
    (change,) = named.changes
    assert (change.path, change.before, change.after) == ("constitution", "Of 3.0.0.", "Of 2.0.0.")
    changed = [row for row in named.compiled if row.kind == "changed"]
    assert [(row.before, row.after) for row in changed] == [("1. Of 3.0.0.", "1. Of 2.0.0.")]
    with pytest.raises(SpecNotFound):
        await diff_specs(work, "con", "1.0.0", "9.0.0")
    assert (await diff_specs(work, "con", "1.0.0", "1.0.0")).changes == []


async def test_a_version_changed_by_hand_is_listed_but_not_shown(con: Registered, work: Work):
    insert = text(
        "INSERT INTO dramatis.persona_specs"
        " (persona_id, slug, major, minor, patch, document, digest, author)"
        " VALUES (:persona, :slug, 1, 0, 0, '{}', 'not its digest', 'somebody')"
    )
    await work.session.execute(insert, {"persona": con.id, "slug": con.slug})

    assert (await numbered(work, "con"))[0] == ["1.0.0"]
    for attempt in (
        get_spec(work, "con", "1.0.0"),
        specs.open_spec(work, "con"),
        diff_specs(work, "con", "1.0.0", "1.0.0"),
    ):
        with pytest.raises(SpecCorrupted, match="its digest does not fit"):
            await attempt
