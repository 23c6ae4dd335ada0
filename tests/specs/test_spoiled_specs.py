"""A stored spec that somebody changed by hand: what runs instead, and how that is said."""

import logging

import psycopg
import pytest

from server.personas import service as personas
from server.specs import publishing
from server.specs import service as specs
from server.specs.becoming import become_persona
from server.specs.notation import digest
from server.specs.queries import SpecCorrupted, get_spec
from server.specs.runtime import compiled_prompt, runtime_prompt
from server.work import App
from tests.conftest import Databases, operator
from tests.test_migrations import plain

pytestmark = pytest.mark.anyio

KIND = {"constitution": ["Be kind."]}


@pytest.fixture
async def spoiling(own_app: App, databases: Databases) -> tuple[App, str]:
    """An app with a published spec, and the URL of somebody who may change it by hand."""
    caller = operator(own_app)
    con = await personas.register_persona(own_app, caller, name="Con", role="developer")
    async with own_app.work(caller) as work:
        await specs.create_spec(work, con.slug, KIND)
        await publishing.publish_spec(work, con.slug, "1.0.0", note="x")
        await specs.create_spec(work, con.slug, {"constitution": ["Be sane."]})
    return own_app, plain(databases.url(own_app.database.engine.url.database or "", "postgres"))


def spoil(url: str, assignment: str, *values: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(
            f"UPDATE dramatis.persona_specs SET {assignment} WHERE version = '1.0.0'".encode(),
            values,
        )


NO_JSON = "constitution: [Be sane.]"
NO_FIELD = '{"version":"1.0.0","obedience":["Obey."]}'
TOO_LITTLE = '{"version":"1.0.0","constitution":[""]}'
OF_ANOTHER = '{"version":"1.0.1","constitution":["Be sane."]}'


@pytest.mark.parametrize(
    ("assignment", "values", "reason"),
    [
        ("document = replace(document, 'kind', 'rude')", [], "its digest does not fit"),
        ("document = document || ' '", [], "its digest does not fit"),
        ("document = ''", [], "its digest does not fit"),
        ("digest = 'x'", [], "its digest does not fit"),
        ("digest = upper(digest)", [], "its digest does not fit"),
        *(
            ("document = %s, digest = %s", [document, digest(document)], reason)
            for document, reason in [
                (NO_JSON, "breaks the rules for specs"),
                (NO_FIELD, "breaks the rules for specs"),
                (TOO_LITTLE, "breaks the rules for specs"),
                ("[]", "breaks the rules for specs"),
                ("[" * 100_000, "breaks the rules for specs"),
                (OF_ANOTHER, "is another version's"),
            ]
        ),
    ],
)
async def test_a_spec_changed_by_hand_falls_back_and_says_why(
    spoiling: tuple[App, str],
    caplog: pytest.LogCaptureFixture,
    assignment: str,
    values: list[str],
    reason: str,
):
    app, url = spoiling
    spoil(url, assignment, *values)

    async with app.work(operator(app)) as work:
        ran = await runtime_prompt(work, "con")
        logged = [(record.name, record.levelno) for record in caplog.records]
        said = caplog.messages
        become = await become_persona(work, "con", "Mend the clock.")
        for attempt in (get_spec(work, "con"), compiled_prompt(work, "con", "1.0.0")):
            with pytest.raises(SpecCorrupted):
                await attempt

    assert (ran.trace.source, ran.trace.persona_spec_version) == ("fallback", None)
    assert ran.trace.spec_digest is None
    assert ran.trace.reason
    assert ran.trace.reason.startswith("The stored spec 1.0.0 of developer-con-1 ")
    assert reason in ran.trace.reason
    assert "You are Con, a developer." in ran.text
    assert ran.plan is None
    assert logged == [("server.specs.runtime", logging.ERROR)]
    assert said[0].endswith(ran.trace.reason)
    assert become.trace == ran.trace
    assert f"Source: settings and skill.md ({ran.trace.reason}), prompt" in become.text
    assert "Mend the clock." in become.text


async def test_a_persona_with_a_spoiled_spec_is_mended_by_publishing_another(
    spoiling: tuple[App, str],
):
    app, url = spoiling
    spoil(url, "document = '{}'")

    async with app.work(operator(app)) as work:
        with pytest.raises(SpecCorrupted):
            await publishing.publish_spec(work, "con", "1.0.0", note="x")
        published = await publishing.publish_spec(work, "con", "1.0.1", note="mended")
        ran = await runtime_prompt(work, "con")
        with pytest.raises(SpecCorrupted):
            await publishing.rollback_spec(work, "con", note="x")

    assert (published.replaced, published.changed) == ("1.0.0", True)
    assert ran.trace.persona_spec_version == "1.0.1"


async def test_what_is_asked_about_a_spoiled_version_leaves_out_what_cannot_be_read(
    spoiling: tuple[App, str],
):
    app, url = spoiling
    spoil(url, "document = '{}'")

    async with app.work(operator(app)) as work:
        foreseen = await publishing.foresee_publishing(work, "con", "1.0.1")
        published = await publishing.publish_spec(
            work, "con", "1.0.1", note="mend", agreed=foreseen
        )

    assert (foreseen.active, foreseen.changes, published.replaced) == ("1.0.0", [], "1.0.0")


async def test_a_spoiled_version_gives_no_examples_to_a_generated_one(spoiling: tuple[App, str]):
    app, url = spoiling
    spoil(url, "document = '{}'")

    async with app.work(operator(app)) as work:
        draft = await specs.generate_spec(work, "con")

    assert (draft.version, draft.sources) == ("1.0.2", ["name and role"])
