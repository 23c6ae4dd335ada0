"""Publishing makes one version the active one; going back is publishing again."""

from collections.abc import Awaitable, Callable
from typing import Literal

import pytest
from dirty_equals import IsDatetime, IsPartialDict, IsStr
from sqlalchemy import select, text

from db.tables import AuditRow
from server.errors import Forbidden, Invalid
from server.personas import service as personas
from server.personas.queries import PersonaNotFound
from server.personas.service import PersonaArchived
from server.personas.shapes import Registered
from server.specs import publishing
from server.specs import service as specs
from server.specs.gate import check_spec
from server.specs.publishing import NothingToGoBackTo
from server.specs.queries import NoActiveSpec, SpecCorrupted, SpecNotFound, get_spec, list_specs
from server.specs.runtime import runtime_prompt
from server.specs.shapes import NOTE_LENGTH, Published
from server.work import AGENT_SCOPES, READ_ONLY, App, Caller, Work
from tests.conftest import but

pytestmark = pytest.mark.anyio


@pytest.fixture
async def con(app: App, caller: Caller, work: Work) -> Registered:
    """A persona with the drafts 1.0.0, 1.0.1 and 1.0.2."""
    con = await personas.register_persona(app, caller, name="Con", role="developer")
    for number in range(3):
        await specs.create_spec(work, con.slug, {"constitution": [f"Principle {number}."]})
    return con


async def publish(work: Work, *versions: str) -> list[Published]:
    return [
        await publishing.publish_spec(work, "con", version, note=f"for {version}")
        for version in versions
    ]


async def statuses(work: Work) -> dict[str, str]:
    listed = (await list_specs(work, "con")).versions
    return {one.version: one.status for one in listed}


async def published_notes(work: Work) -> list[str]:
    query = select(AuditRow.details["note"].astext).where(AuditRow.action == "spec.published")
    return list(await work.session.scalars(query.order_by(AuditRow.id)))


async def test_the_first_publication_replaces_none(con: Registered, work: Work):
    (published,) = await publish(work, "1.0.1")

    assert published == Published(
        slug=con.slug,
        version="1.0.1",
        changed=True,
        replaced=None,
        digest=(await get_spec(work, "con", "1.0.1")).digest,
        overridden=[],
    )
    assert await statuses(work) == {"1.0.2": "draft", "1.0.1": "active", "1.0.0": "draft"}


@pytest.mark.usefixtures("con")
async def test_publishing_another_archives_the_one_before(work: Work):
    first, second, third = await publish(work, "1.0.1", "1.0.0", "1.0.2")

    assert [one.replaced for one in (first, second, third)] == [None, "1.0.1", "1.0.0"]
    assert await statuses(work) == {"1.0.2": "active", "1.0.1": "archived", "1.0.0": "archived"}


@pytest.mark.usefixtures("con")
async def test_publishing_the_active_version_again_changes_nothing(work: Work):
    await publish(work, "1.0.0")
    before = await get_spec(work, "con")

    (again,) = await publish(work, "1.0.0")

    assert (again.changed, again.replaced, again.version) == (False, None, "1.0.0")
    assert await get_spec(work, "con") == before
    assert await published_notes(work) == ["for 1.0.0"]


@pytest.mark.usefixtures("con")
async def test_an_archived_version_published_again_is_the_rollback(work: Work):
    await publish(work, "1.0.0", "1.0.1")

    (back,) = await publish(work, "1.0.0")

    assert (back.changed, back.replaced) == (True, "1.0.1")
    assert await statuses(work) == {"1.0.2": "draft", "1.0.1": "archived", "1.0.0": "active"}
    assert len((await get_spec(work, "con", "1.0.0")).publications) == 2


async def test_every_publication_is_kept_with_author_time_and_note(con: Registered, work: Work):
    ann = but(work, caller=but(work.caller, name="ann"))
    await publishing.publish_spec(work, "con", "1.0.0", note=" the first \n")
    await publishing.publish_spec(ann, "con", "1.0.1", note="kinder")
    await publishing.rollback_spec(ann, "con", note="too kind")

    detail = await get_spec(work, "con")

    assert [one.model_dump() for one in detail.publications] == [
        {
            "version": "1.0.0",
            "published_at": IsDatetime(),
            "author": "ann",
            "confirmed": "operator",
            "note": "too kind",
            "replaced": "1.0.1",
            "overridden": [],
        },
        {
            "version": "1.0.0",
            "published_at": IsDatetime(),
            "author": "tester",
            "confirmed": "operator",
            "note": "the first",
            "replaced": None,
            "overridden": [],
        },
    ]
    assert all(one.published_at.utcoffset() is not None for one in detail.publications)
    (kinder,) = (await get_spec(work, "con", "1.0.1")).publications
    assert (kinder.author, kinder.confirmed, kinder.replaced) == ("ann", "operator", "1.0.0")


@pytest.mark.parametrize(
    ("kind", "asked", "confirmed"),
    [
        ("operator", False, "operator"),
        ("operator", True, "operator"),
        ("human", False, "person"),
        ("agent", True, "person"),
        ("agent", False, "agent"),
    ],
)
@pytest.mark.usefixtures("con")
async def test_who_said_yes_is_kept(
    work: Work, kind: Literal["human", "agent", "operator"], *, asked: bool, confirmed: str
):
    somebody = but(work, caller=but(work.caller, kind=kind))
    agreed = await publishing.foresee_publishing(somebody, "con", "1.0.0") if asked else None

    await publishing.publish_spec(somebody, "con", "1.0.0", note="x", agreed=agreed)

    assert [one.confirmed for one in (await get_spec(work, "con")).publications] == [confirmed]


async def test_publishing_is_in_the_audit_log(con: Registered, work: Work):
    await publish(work, "1.0.0", "1.0.1")

    query = select(AuditRow).where(AuditRow.action == "spec.published").order_by(AuditRow.id)
    entry = (await work.session.scalars(query)).all()[-1]
    assert (entry.subject, entry.caller_name, entry.caller_kind) == (con.slug, "tester", "operator")
    assert entry.details == {
        "version": "1.0.1",
        "replaced": "1.0.0",
        "digest": (await get_spec(work, "con", "1.0.1")).digest,
        "note": "for 1.0.1",
        "confirmed": "operator",
        "overridden": [],
    }


@pytest.mark.parametrize(
    ("note", "said"),
    [
        ("", "note: must not be empty or blank"),
        (" \n", "note: must not be empty or blank"),
        ("x" * (NOTE_LENGTH + 1), "note: must have at most 1000 characters"),
        ("a\x00b", "note: must not contain"),
    ],
)
@pytest.mark.usefixtures("con")
async def test_a_note_is_needed_and_has_a_limit(work: Work, note: str, said: str):
    await publish(work, "1.0.0")

    with pytest.raises(Invalid, match=said):
        await publishing.publish_spec(work, "con", "1.0.1", note=note)
    assert (await statuses(work))["1.0.0"] == "active"


@pytest.mark.usefixtures("con")
async def test_where_nothing_will_be_recorded_no_note_is_needed(work: Work):
    await publish(work, "1.0.0")

    assert not (await publishing.publish_spec(work, "con", "1.0.0", note="")).changed


@pytest.mark.usefixtures("con")
async def test_the_longest_note_is_kept_whole(work: Work):
    await publishing.publish_spec(work, "con", "1.0.0", note="王" * NOTE_LENGTH)

    assert (await get_spec(work, "con")).publications[0].note == "王" * NOTE_LENGTH


async def test_an_unknown_version_is_refused_and_names_those_there_are(con: Registered, work: Work):
    await publish(work, "1.0.0")

    with pytest.raises(SpecNotFound) as refused:
        await publish(work, "9.9.9")

    assert str(refused.value) == (
        f"{con.slug} has no spec 9.9.9. Known: 1.0.2 draft, 1.0.1 draft, 1.0.0 active."
    )
    assert (await get_spec(work, "con")).version == "1.0.0"


@pytest.mark.parametrize("version", ["", "1", "1.0", "1.0.0.0", "v1.0.0", "01.0.0", "1.0.0-rc"])
@pytest.mark.usefixtures("con")
async def test_a_malformed_version_is_refused(work: Work, version: str):
    with pytest.raises(Invalid, match="version: must be three numbers"):
        await publish(work, version)


@pytest.mark.usefixtures("con")
async def test_blanks_around_a_version_do_not_count(work: Work):
    assert (await publish(work, " 1.0.0\n"))[0].version == "1.0.0"


async def test_nothing_of_an_archived_or_unknown_persona_is_published(con: Registered, work: Work):
    await publish(work, "1.0.0", "1.0.1")
    await personas.update_persona(work, con.slug, status="archived")

    for attempt in (
        publishing.publish_spec(work, con.slug, "1.0.2", note="x"),
        publishing.rollback_spec(work, con.slug, note="x"),
    ):
        with pytest.raises(PersonaArchived, match="Restore it first"):
            await attempt
    with pytest.raises(PersonaNotFound):
        await publishing.publish_spec(work, "developer-con-999999", "1.0.0", note="x")
    await personas.update_persona(work, con.slug, status="active")
    assert (await get_spec(work, con.slug)).version == "1.0.1"


@pytest.mark.usefixtures("con")
async def test_publishing_needs_its_scope_and_an_agent_has_it(work: Work):
    reader = but(work, caller=but(work.caller, kind="agent", scopes=READ_ONLY))
    writer = but(work, caller=but(work.caller, kind="agent", scopes=frozenset({"specs:write"})))
    agent = but(work, caller=but(work.caller, kind="agent", scopes=AGENT_SCOPES))

    for refused in (reader, writer):
        with pytest.raises(Forbidden, match="specs:publish"):
            await publish(refused, "1.0.0")
        with pytest.raises(Forbidden, match="specs:publish"):
            await publishing.rollback_spec(refused, "con", note="x")
    assert set((await statuses(work)).values()) == {"draft"}
    assert (await publish(agent, "1.0.0"))[0].changed


@pytest.mark.usefixtures("con")
async def test_rolling_back_returns_to_the_version_before_and_again_to_the_one_after(work: Work):
    await publish(work, "1.0.1", "1.0.0", "1.0.2")

    first = await publishing.rollback_spec(work, "con", note="worse")
    second = await publishing.rollback_spec(work, "con", note="better after all")

    assert (first.version, first.replaced) == ("1.0.0", "1.0.2")
    assert (second.version, second.replaced) == ("1.0.2", "1.0.0")


@pytest.mark.usefixtures("con")
async def test_rolling_back_can_name_any_version_that_was_active(work: Work):
    await publish(work, "1.0.0", "1.0.1", "1.0.2")

    back = await publishing.rollback_spec(work, "con", "1.0.0", note="two back")

    assert (back.version, back.replaced) == ("1.0.0", "1.0.2")
    assert (await runtime_prompt(work, "con")).trace.persona_spec_version == "1.0.0"


@pytest.mark.usefixtures("con")
async def test_rolling_back_to_the_active_version_changes_nothing(work: Work):
    await publish(work, "1.0.0", "1.0.1")

    again = await publishing.rollback_spec(work, "con", "1.0.1", note="x")

    assert (again.changed, again.version) == (False, "1.0.1")


async def test_there_is_nothing_to_go_back_to_before_the_second_publication(
    con: Registered, work: Work
):
    with pytest.raises(NothingToGoBackTo, match=f"No version of {con.slug} was active before"):
        await publishing.rollback_spec(work, "con", note="x")
    await publish(work, "1.0.0")
    with pytest.raises(NothingToGoBackTo, match="was active before"):
        await publishing.rollback_spec(work, "con", note="x")
    assert (await get_spec(work, "con")).version == "1.0.0"


@pytest.mark.usefixtures("con")
async def test_nobody_goes_back_to_a_draft_or_to_what_there_is_not(work: Work):
    await publish(work, "1.0.0", "1.0.1")

    with pytest.raises(NothingToGoBackTo, match=r"1\.0\.2 is a draft and was never active"):
        await publishing.rollback_spec(work, "con", "1.0.2", note="x")
    with pytest.raises(SpecNotFound):
        await publishing.rollback_spec(work, "con", "9.9.9", note="x")
    with pytest.raises(Invalid, match="three numbers"):
        await publishing.rollback_spec(work, "con", "latest", note="x")
    assert (await get_spec(work, "con")).version == "1.0.1"


@pytest.mark.usefixtures("con")
async def test_what_fails_after_publishing_takes_the_publication_along(app: App, caller: Caller):
    async def publish_and_fail() -> None:
        async with app.work(caller) as work:
            await publish(work, "1.0.1")
            raise RuntimeError

    async with app.work(caller) as work:
        await publish(work, "1.0.0")
    with pytest.raises(RuntimeError):
        await publish_and_fail()

    async with app.work(caller) as work:
        assert (await statuses(work))["1.0.0"] == "active"
        assert await published_notes(work) == ["for 1.0.0"]


async def test_a_version_changed_by_hand_is_not_published(con: Registered, app: App, work: Work):
    await publish(work, "1.0.0")
    # The application itself may insert, and nothing else stands between a person and this row.
    insert = text(
        "INSERT INTO dramatis.persona_specs"
        " (persona_id, slug, major, minor, patch, document, digest, author)"
        " VALUES (:persona, :slug, 5, 0, 0, '{}', 'not its digest', 'somebody')"
    )
    await work.session.execute(insert, {"persona": con.id, "slug": con.slug})

    with pytest.raises(SpecCorrupted) as refused:
        await publish(work, "5.0.0")

    assert str(refused.value) == IsStr(
        regex=rf"The stored spec 5\.0\.0 of {con.slug} was changed by hand: .* Publish another .*"
    )
    assert (await get_spec(work, "con")).version == "1.0.0"


@pytest.mark.usefixtures("con")
async def test_with_drafts_alone_none_is_active(work: Work):
    with pytest.raises(NoActiveSpec, match=r"Name a version \(1\.0\.2 draft, "):
        await get_spec(work, "con")


async def test_the_highest_version_is_foreseen_when_none_is_named(con: Registered, work: Work):
    await publish(work, "1.0.0")

    foreseen = await publishing.foresee_publishing(work, "con")

    assert foreseen.model_dump(exclude={"published"}) == {
        "slug": con.slug,
        "name": "Con",
        "version": "1.0.2",
        "active": "1.0.0",
        "changes": [IsPartialDict(kind="changed", path="constitution")],
        "failing": [],
    }
    assert foreseen.published is not None
    assert foreseen.published.version == "1.0.0"


@pytest.mark.usefixtures("con")
async def test_a_highest_version_that_was_active_before_is_published_only_by_its_name(work: Work):
    await publish(work, "1.0.2", "1.0.1")

    with pytest.raises(publishing.NothingToPublish, match="Name the version"):
        await publishing.foresee_publishing(work, "con")
    assert (await publishing.foresee_publishing(work, "con", "1.0.2")).version == "1.0.2"


@pytest.mark.usefixtures("con")
async def test_going_back_is_foreseen_however_many_versions_are_higher(work: Work):
    await publish(work, "1.0.0", "1.0.1")
    for _ in range(120):
        await specs.create_spec(work, "con", {})

    foreseen = await publishing.foresee_rollback(work, "con")

    assert (foreseen.version, foreseen.active) == ("1.0.0", "1.0.1")


@pytest.mark.parametrize("verb", [publishing.foresee_publishing, publishing.foresee_rollback])
@pytest.mark.usefixtures("con")
async def test_who_may_not_publish_is_not_told_what_it_would_do(
    work: Work, verb: Callable[[Work, str], Awaitable[object]]
):
    reader = but(work, caller=but(work.caller, scopes=READ_ONLY))

    with pytest.raises(Forbidden):
        await verb(reader, "con")


@pytest.mark.parametrize("version", ["", " ", "1"])
@pytest.mark.usefixtures("con")
async def test_an_empty_version_means_none(work: Work, version: str):
    await publish(work, "1.0.0", "1.0.1")

    for attempt in (
        publishing.foresee_publishing(work, "con", version),
        publishing.foresee_rollback(work, "con", version),
        publishing.rollback_spec(work, "con", version, note="x"),
        specs.open_spec(work, "con", version),
        specs.diff_specs(work, "con", "1.0.0", version),
        check_spec(work, "con", version),
    ):
        with pytest.raises(Invalid, match="version"):
            await attempt
