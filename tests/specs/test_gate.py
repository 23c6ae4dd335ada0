"""Checks stay with a persona over its versions, and decide what may be published."""

import json

import pytest
from dirty_equals import IsStr
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from db.tables import AuditRow
from server.errors import Forbidden, Invalid
from server.personas import service as personas
from server.personas.shapes import Registered
from server.specs import publishing
from server.specs import service as specs
from server.specs.gate import ChecksCorrupted, check_spec, get_checks, set_checks
from server.specs.notation import SpecNotReadable
from server.specs.publishing import ChecksFailed, PublishingChanged, foresee_publishing
from server.specs.queries import NoSpec, SpecNotFound, get_spec
from server.specs.shapes import Prospect
from server.work import AGENT_SCOPES, App, Caller, Work
from tests.conftest import but

pytestmark = pytest.mark.anyio

KIND = "checks: [{name: kindness, must_contain: [be kind]}]"


@pytest.fixture
async def con(app: App, caller: Caller) -> Registered:
    return await personas.register_persona(app, caller, name="Con", role="developer")


@pytest.fixture
async def rude_and_kind(con: Registered, work: Work) -> Registered:
    """A persona with the versions 1.0.0, which fails its check, and 1.0.1, which passes."""
    for principle in ("Be rude.", "Be kind."):
        await specs.create_spec(work, con.slug, {"constitution": [principle]})
    await set_checks(work, con.slug, KIND)
    return con


async def test_a_version_that_fails_is_not_published_and_the_failures_are_listed(
    rude_and_kind: Registered, work: Work
):
    await set_checks(
        work,
        "con",
        "- {name: kindness, must_contain: [be kind]}\n"
        "- {name: short, max_tokens: 1, must_not_contain: [rude]}\n"
        "- {name: fine, section_order: [constitution]}\n",
    )

    with pytest.raises(ChecksFailed) as refused:
        await publishing.publish_spec(work, "con", "1.0.0", note="the first")

    assert str(refused.value) == IsStr(
        regex=rf"{rude_and_kind.slug} 1\.0\.0 fails its checks: kindness: lacks 'be kind'\."
        r" short: contains 'rude'; has \d+ tokens, more than 1\."
        r" Mend the spec as a new version\. A person can override the checks with a note that says"
        rf" why: `dramatis spec publish {rude_and_kind.slug} 1\.0\.0 --override-checks`\."
    )
    assert (await get_spec(work, "con", "1.0.0")).status == "draft"
    published = select(AuditRow.id).where(AuditRow.action == "spec.published")
    assert (await work.session.scalars(published)).all() == []


@pytest.mark.usefixtures("rude_and_kind")
async def test_a_version_that_passes_is_published(work: Work):
    published = await publishing.publish_spec(work, "con", "1.0.1", note="kinder")

    assert (published.changed, published.overridden) == (True, [])


@pytest.mark.usefixtures("rude_and_kind")
async def test_an_override_is_recorded_with_what_failed_and_why(work: Work):
    published = await publishing.publish_spec(
        work, "con", "1.0.0", note="the customer asked", override_checks=True
    )

    assert published.overridden == ["kindness: lacks 'be kind'."]
    detail = await get_spec(work, "con")
    assert [(one.note, one.overridden) for one in detail.publications] == [
        ("the customer asked", published.overridden)
    ]
    query = select(AuditRow.details["overridden"]).where(AuditRow.action == "spec.published")
    assert (await work.session.scalars(query)).all() == [published.overridden]


@pytest.mark.usefixtures("rude_and_kind")
async def test_an_agent_overrides_only_what_a_person_has_agreed_to(work: Work):
    agent = but(work, caller=but(work.caller, kind="agent", scopes=AGENT_SCOPES))
    agreed = await foresee_publishing(agent, "con", "1.0.0", override_checks=True)

    with pytest.raises(ChecksFailed):
        await publishing.publish_spec(agent, "con", "1.0.0", note="x", override_checks=True)
    published = await publishing.publish_spec(
        agent, "con", "1.0.0", note="x", override_checks=True, agreed=agreed
    )

    assert published.overridden == agreed.failing


@pytest.mark.usefixtures("rude_and_kind")
async def test_an_override_without_a_note_is_refused(work: Work):
    with pytest.raises(Invalid, match="note: must not be empty"):
        await publishing.publish_spec(work, "con", "1.0.0", note=" ", override_checks=True)


@pytest.mark.usefixtures("rude_and_kind")
async def test_an_override_that_was_not_needed_records_nothing(work: Work):
    published = await publishing.publish_spec(work, "con", "1.0.1", note="x", override_checks=True)

    assert published.overridden == []


@pytest.mark.usefixtures("rude_and_kind")
async def test_checks_gate_a_rollback_too(work: Work):
    await publishing.publish_spec(work, "con", "1.0.0", note="first", override_checks=True)
    await publishing.publish_spec(work, "con", "1.0.1", note="second")

    with pytest.raises(ChecksFailed, match="kindness"):
        await publishing.rollback_spec(work, "con", note="back")
    back = await publishing.rollback_spec(work, "con", note="back", override_checks=True)

    assert (back.version, back.overridden) == ("1.0.0", ["kindness: lacks 'be kind'."])


@pytest.mark.usefixtures("rude_and_kind")
async def test_the_active_version_runs_on_whatever_new_checks_say(work: Work):
    await publishing.publish_spec(work, "con", "1.0.1", note="first")
    await set_checks(work, "con", "- {name: never, must_contain: [never there]}")

    again = await publishing.publish_spec(work, "con", "1.0.1", note="again")

    assert again.changed is False


@pytest.mark.usefixtures("rude_and_kind")
async def test_checks_stay_over_versions_and_are_of_one_persona_only(
    app: App, caller: Caller, work: Work
):
    ann = await personas.register_persona(app, caller, name="Ann", role="developer")
    await specs.create_spec(work, ann.slug, {"constitution": ["Be rude."]})
    await publishing.publish_spec(work, "con", "1.0.1", note="first")
    await specs.create_spec(work, "con", {"constitution": ["Be rude again."]})

    with pytest.raises(ChecksFailed):
        await publishing.publish_spec(work, "con", "1.0.2", note="worse")
    assert [check.name for check in await get_checks(work, "con")] == ["kindness"]
    assert await get_checks(work, ann.slug) == []
    assert (await publishing.publish_spec(work, ann.slug, "1.0.0", note="first")).changed


@pytest.mark.usefixtures("rude_and_kind")
async def test_replaced_checks_are_the_new_ones_only_and_an_empty_list_removes_all(work: Work):
    replaced = await set_checks(work, "con", '[{"name": "b", "max_tokens": 9}]')
    assert await get_checks(work, "con") == replaced
    assert [check.name for check in replaced] == ["b"]

    assert await set_checks(work, "con", "[]") == []

    assert await get_checks(work, "con") == []
    assert await work.session.scalar(text("SELECT count(*) FROM dramatis.persona_checks")) == 0
    assert (await publishing.publish_spec(work, "con", "1.0.0", note="x")).changed


async def test_every_field_of_a_check_is_read_back(con: Registered, work: Work):
    written = [
        {
            "name": "all",
            "intent": "review",
            "query": "a bug",
            "variant": "compact",
            "must_contain": ["a"],
            "must_not_contain": ['b"\n王'],
            "section_order": ["constitution", "rules"],
            "max_tokens": 7,
            "sample_answer": "No.",
        }
    ]

    await set_checks(work, con.slug, json.dumps(written))

    assert [check.model_dump() for check in await get_checks(work, "con")] == written


@pytest.mark.usefixtures("rude_and_kind")
async def test_refused_checks_leave_those_there_are(work: Work):
    for document, refusal, said in [
        ("checks: [", SpecNotReadable, "no YAML"),
        ("- {name: x}", Invalid, "expects nothing"),
        ("- {name: x, must: [y]}", Invalid, "must: is not known here. Known: name, intent"),
        ("- {name: x, max_tokens: 1}\n- {name: x, max_tokens: 2}", Invalid, "called 'x'"),
        ("- {name: x, max_tokens: 0}", Invalid, "max_tokens: must be greater"),
    ]:
        with pytest.raises(refusal, match=said):
            await set_checks(work, "con", document)

    assert [check.name for check in await get_checks(work, "con")] == ["kindness"]


async def test_replacing_checks_is_in_the_audit_log(rude_and_kind: Registered, work: Work):
    await set_checks(work, "con", "- {name: b, max_tokens: 9}")
    await set_checks(work, "con", "[]")

    query = select(AuditRow.details).where(
        AuditRow.action == "checks.replaced", AuditRow.subject == rude_and_kind.slug
    )
    assert (await work.session.scalars(query.order_by(AuditRow.id))).all() == [
        {"from": [], "to": ["kindness"]},
        {"from": ["kindness"], "to": ["b"]},
        {"from": ["b"], "to": []},
    ]


@pytest.mark.usefixtures("rude_and_kind")
async def test_an_agent_may_not_change_the_checks_that_gate_it(work: Work):
    agent = but(work, caller=but(work.caller, kind="agent", scopes=AGENT_SCOPES))

    with pytest.raises(Forbidden, match="checks:write"):
        await set_checks(agent, "con", "[]")
    assert [check.name for check in await get_checks(agent, "con")] == ["kindness"]
    assert (await check_spec(agent, "con", "1.0.0")).passed is False


@pytest.mark.usefixtures("rude_and_kind")
async def test_a_version_is_checked_without_publishing_it(work: Work):
    highest, named = await check_spec(work, "con"), await check_spec(work, "con", "1.0.0")

    assert (highest.version, highest.passed) == ("1.0.1", True)
    assert (named.version, named.passed) == ("1.0.0", False)
    assert [outcome.model_dump() for outcome in named.outcomes] == [
        {"name": "kindness", "passed": False, "failures": ["lacks 'be kind'"]}
    ]
    assert (await get_spec(work, "con", "1.0.1")).status == "draft"


async def test_there_is_nothing_to_check_without_a_version(con: Registered, work: Work):
    with pytest.raises(NoSpec):
        await check_spec(work, con.slug)
    with pytest.raises(SpecNotFound):
        await check_spec(work, con.slug, "1.0.0")


@pytest.mark.usefixtures("rude_and_kind")
async def test_what_was_foreseen_is_kept_to(work: Work):
    foreseen = await foresee_publishing(work, "con", "1.0.1")
    assert (foreseen.version, foreseen.active, foreseen.failing) == ("1.0.1", None, [])
    await publishing.publish_spec(work, "con", "1.0.0", note="meanwhile", override_checks=True)

    with pytest.raises(PublishingChanged):
        await publishing.publish_spec(work, "con", "1.0.1", note="x", agreed=foreseen)
    assert (await get_spec(work, "con")).version == "1.0.0"
    now = await foresee_publishing(work, "con", "1.0.1")
    published = await publishing.publish_spec(work, "con", "1.0.1", note="x", agreed=now)
    assert (published.changed, published.replaced) == (True, "1.0.0")


async def test_foreseeing_changes_nothing_and_says_what_would_be_overridden(
    rude_and_kind: Registered, work: Work
):
    with pytest.raises(ChecksFailed):
        await foresee_publishing(work, "con", "1.0.0")
    foreseen = await foresee_publishing(work, "con", "1.0.0", override_checks=True)

    assert foreseen == Prospect(
        slug=rude_and_kind.slug,
        name="Con",
        version="1.0.0",
        active=None,
        published=None,
        changes=[],
        failing=["kindness: lacks 'be kind'."],
    )
    assert (await get_spec(work, "con", "1.0.0")).status == "draft"


@pytest.mark.usefixtures("rude_and_kind")
async def test_long_checks_stay_readable_when_storing_them_makes_them_longer(work: Work):
    quotes = [{"name": f"n{n}", "must_not_contain": ['"' * 19_000]} for n in range(51)]
    written = "\n".join(
        f"- {{name: {one['name']}, must_not_contain: ['{one['must_not_contain'][0]}']}}"
        for one in quotes
    )

    await set_checks(work, "con", written)

    assert len(await get_checks(work, "con")) == 51
    assert (await publishing.publish_spec(work, "con", "1.0.0", note="x")).changed


@pytest.mark.parametrize("stored", ["not JSON", "{}", '{"checks": [{"name": "x", "must": 1}]}'])
@pytest.mark.usefixtures("rude_and_kind")
async def test_checks_changed_by_hand_let_nothing_pass_and_can_be_replaced(work: Work, stored: str):
    change = text("UPDATE dramatis.persona_checks SET checks = :checks")
    await work.session.execute(change, {"checks": stored})

    for attempt in (
        publishing.publish_spec(work, "con", "1.0.1", note="x", override_checks=True),
        check_spec(work, "con"),
        get_checks(work, "con"),
    ):
        with pytest.raises(ChecksCorrupted, match="Replace them by"):
            await attempt
    await set_checks(work, "con", KIND)
    assert (await publishing.publish_spec(work, "con", "1.0.1", note="x")).changed


async def test_a_persona_has_its_checks_once(con: Registered, work: Work):
    await set_checks(work, con.slug, KIND)
    insert = text(
        "INSERT INTO dramatis.persona_checks (persona_id, checks, author) VALUES (:id, '', '')"
    )

    with pytest.raises(IntegrityError, match="uq_persona_checks_tenant_id_persona_id"):
        async with work.session.begin_nested():
            await work.session.execute(insert, {"id": con.id})


async def test_checks_say_who_wrote_them_last_and_when(con: Registered, work: Work):
    await set_checks(work, con.slug, KIND)
    later = text("UPDATE dramatis.persona_checks SET updated_at = '2000-01-01'")
    await work.session.execute(later)

    await set_checks(but(work, caller=but(work.caller, name="ann")), con.slug, KIND)

    query = text("SELECT author, updated_at = now() FROM dramatis.persona_checks")
    assert (await work.session.execute(query)).all() == [("ann", True)]
