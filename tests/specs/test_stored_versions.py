"""What the database itself promises of versions and publications, asked as the application."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from server.personas import service as personas
from server.personas.shapes import Registered
from server.specs import publishing
from server.specs import service as specs
from server.work import App, Caller, Work

pytestmark = pytest.mark.anyio


@pytest.fixture
async def con(app: App, caller: Caller) -> Registered:
    return await personas.register_persona(app, caller, name="Con", role="developer")


async def create(work: Work, *versions: str) -> None:
    for version in versions:
        await specs.create_spec(work, "con", {"version": version})


@pytest.mark.parametrize(
    "assignment",
    [
        "document = '{}'",
        "digest = 'x'",
        "major = 9",
        "minor = 9",
        "patch = 9",
        "persona_id = NULL",
        "slug = 'x'",
        "origin = 'generated'",
        "sources = '{x}'",
        "author = 'x'",
        "created_at = now()",
        "tenant_id = 1",
        "id = DEFAULT",
        "status = 'archived', document = '{}'",
    ],
)
@pytest.mark.usefixtures("con")
async def test_the_application_cannot_change_a_stored_version(work: Work, assignment: str):
    await create(work, "1.0.0")

    with pytest.raises(ProgrammingError, match="permission denied for table persona_specs"):
        async with work.session.begin_nested():
            await work.session.execute(text(f"UPDATE dramatis.persona_specs SET {assignment}"))


@pytest.mark.parametrize(
    "statement", ["DELETE FROM dramatis.persona_specs", "TRUNCATE dramatis.persona_specs CASCADE"]
)
@pytest.mark.usefixtures("con")
async def test_the_application_cannot_remove_a_stored_version(work: Work, statement: str):
    await create(work, "1.0.0")

    with pytest.raises(ProgrammingError, match="permission denied for table persona_specs"):
        async with work.session.begin_nested():
            await work.session.execute(text(statement))


@pytest.mark.usefixtures("con")
async def test_the_database_allows_one_active_version_of_a_persona(work: Work):
    await create(work, "1.0.0", "1.0.1")
    activate = "UPDATE dramatis.persona_specs SET status = 'active'"

    with pytest.raises(IntegrityError, match="uq_persona_specs_active"):
        async with work.session.begin_nested():
            await work.session.execute(text(activate))
    await work.session.execute(text(f"{activate} WHERE version = '1.0.0'"))
    with pytest.raises(IntegrityError, match="uq_persona_specs_active"):
        async with work.session.begin_nested():
            await work.session.execute(text(f"{activate} WHERE version = '1.0.1'"))
    insert = (
        "INSERT INTO dramatis.persona_specs"
        " (persona_id, slug, major, minor, patch, status, document, digest, author)"
        " SELECT persona_id, slug, 7, 0, 0, 'active', document, digest, author"
        " FROM dramatis.persona_specs WHERE version = '1.0.0'"
    )
    with pytest.raises(IntegrityError, match="uq_persona_specs_active"):
        async with work.session.begin_nested():
            await work.session.execute(text(insert))


@pytest.mark.parametrize(
    ("values", "constraint"),
    [
        ("1, 0, 0, 'gone', 'written'", "ck_persona_specs_status"),
        ("1, 0, 0, 'draft', 'guessed'", "ck_persona_specs_origin"),
        ("1, -1, 0, 'draft', 'written'", "ck_persona_specs_version"),
        ("3, 0, 0, 'draft', 'written'", "uq_persona_specs_tenant_id_persona_id_version"),
    ],
)
async def test_the_database_itself_refuses_what_no_version_can_be(
    con: Registered, work: Work, values: str, constraint: str
):
    await create(work, "3.0.0")
    insert = text(
        "INSERT INTO dramatis.persona_specs"
        " (persona_id, slug, document, digest, author, major, minor, patch, status, origin)"
        f" VALUES (:persona, 'x', '', '', '', {values})"
    )

    with pytest.raises(IntegrityError, match=constraint):
        async with work.session.begin_nested():
            await work.session.execute(insert, {"persona": con.id})


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE dramatis.spec_publications SET note = 'x'",
        "UPDATE dramatis.spec_publications SET author = 'x'",
        "UPDATE dramatis.spec_publications SET replaced = NULL",
        "DELETE FROM dramatis.spec_publications",
    ],
)
@pytest.mark.usefixtures("con")
async def test_the_application_cannot_rewrite_the_history(work: Work, statement: str):
    await create(work, "1.0.0")
    await publishing.publish_spec(work, "con", "1.0.0", note="x")

    with pytest.raises(ProgrammingError, match="permission denied for table spec_publications"):
        async with work.session.begin_nested():
            await work.session.execute(text(statement))


@pytest.mark.usefixtures("con")
async def test_a_publication_is_of_a_version_that_there_is(work: Work):
    insert = text(
        "INSERT INTO dramatis.spec_publications (spec_id, author, confirmed, note)"
        " VALUES (2147483647, '', 'agent', '')"
    )

    with pytest.raises(IntegrityError, match="fk_spec_publications_tenant_id_spec_id"):
        async with work.session.begin_nested():
            await work.session.execute(insert)
