"""Row-level security, proved as the application's own role over a pool of one connection."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession

from db.session import connect
from db.tables import metadata
from server.access import add_tenant
from server.app import open_app
from server.personas import files, listing, queries, service
from server.personas.queries import PersonaNotFound
from server.settings import Settings
from server.specs import gate, publishing, runtime
from server.specs import queries as spec_queries
from server.specs import service as specs
from server.specs.becoming import become_persona
from server.work import App, Caller, Work
from tests.conftest import Databases, but, external, operator

pytestmark = pytest.mark.anyio

OWNED = [table.fullname for table in metadata.sorted_tables if "tenant_id" in table.columns]
# History: the application has not even the right to try.
NARROWER = {
    "dramatis.audit_log": "INSERT, SELECT",
    "dramatis.persona_specs": "INSERT, SELECT",
    "dramatis.spec_publications": "INSERT, SELECT",
}
CHANGEABLE = [table for table in OWNED if table not in NARROWER]
# A row of each table that is right but for the tenant, which is another one.
ROWS = {
    "dramatis.audit_log": "caller_kind, caller_name, action, subject) VALUES (:tenant, '', '', '', ''",
    "dramatis.persona_checks": "persona_id, checks, author) VALUES (:tenant, 2, '', ''",
    "dramatis.persona_specs": "slug, major, minor, patch, document, digest, author)"
    " VALUES (:tenant, '', 9, 0, 0, '', '', ''",
    "dramatis.personas": "slug_stem, name, role_id) VALUES (:tenant, 'x', 'X', 2",
    "dramatis.roles": "name, label) VALUES (:tenant, 'x', 'X'",
    "dramatis.skill_versions": "slug, sha256, content, author) VALUES (:tenant, '', '', '', ''",
    "dramatis.spec_publications": "spec_id, author, confirmed, note) VALUES (:tenant, 2, '', 'agent', ''",
}


@pytest.fixture
async def two_tenants(own_app: App) -> AsyncIterator[tuple[App, Caller, Caller]]:
    """An app with one connection; in each of two tenants a persona, its files, spec and history."""
    database = connect(own_app.database.engine.url.render_as_string(), pool_size=1)
    app = but(own_app, database=database)
    first = operator(app, "first")
    async with app.work(first) as work:
        second = but(first, name="second", tenant_id=(await add_tenant(work, " Acme ")).id)
    for caller in (first, second):
        con = await service.register_persona(app, caller, name="Con", role="developer")
        await files.write_skill(app, caller, con.slug, content=caller.name)
        async with app.work(caller) as work:
            await specs.create_spec(work, con.slug, {"constitution": [f"Obey {caller.name}."]})
            await publishing.publish_spec(work, con.slug, "1.0.0", note="the first")
            await gate.set_checks(work, con.slug, "- {name: short, max_tokens: 1000}")
    yield app, first, second
    await database.engine.dispose()


async def rows(session: AsyncSession, table: str) -> list[int]:
    return list(await session.scalars(text(f"SELECT DISTINCT tenant_id FROM {table} ORDER BY 1")))


@pytest.mark.parametrize("table", OWNED)
async def test_each_tenant_sees_its_own_rows_only(
    two_tenants: tuple[App, Caller, Caller], table: str
):
    app, *callers = two_tenants

    for caller in [*callers, *callers]:
        async with app.work(caller) as work:
            assert await rows(work.session, table) == [caller.tenant_id]


@pytest.mark.parametrize("table", OWNED)
async def test_without_a_tenant_there_are_no_rows(
    two_tenants: tuple[App, Caller, Caller], table: str
):
    app, first, _ = two_tenants
    async with app.work(first) as work:
        await work.session.execute(text("SELECT 1"))

    async with AsyncSession(app.database.engine) as session:
        assert await rows(session, table) == []


@pytest.mark.parametrize("table", CHANGEABLE)
async def test_a_tenant_can_neither_change_nor_remove_rows_of_another(
    two_tenants: tuple[App, Caller, Caller], table: str
):
    app, first, second = two_tenants
    everything = f"SELECT * FROM {table} ORDER BY id"
    async with app.work(second) as work:
        before = (await work.session.execute(text(everything))).all()

    async with app.work(first) as work:
        await work.session.execute(
            text(f"DELETE FROM {table} WHERE tenant_id = {second.tenant_id}")
        )
        with pytest.raises(ProgrammingError, match="row-level security"):
            await work.session.execute(text(f"UPDATE {table} SET tenant_id = {second.tenant_id}"))
        await work.session.rollback()

    async with app.work(second) as work:
        assert (await work.session.execute(text(everything))).all() == before


@pytest.mark.parametrize("table", NARROWER)
async def test_the_history_of_a_tenant_is_beyond_even_an_attempt_to_change_it(
    two_tenants: tuple[App, Caller, Caller], table: str
):
    app, first, second = two_tenants

    async with app.work(first) as work:
        for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET tenant_id = 2"):
            with pytest.raises(ProgrammingError, match="permission denied"):
                async with work.session.begin_nested():
                    await work.session.execute(text(statement))
    async with app.work(second) as work:
        assert await rows(work.session, table) == [second.tenant_id]


async def test_the_status_of_another_tenants_spec_cannot_be_changed(
    two_tenants: tuple[App, Caller, Caller],
):
    app, first, second = two_tenants

    async with app.work(first) as work:
        await work.session.execute(text("UPDATE dramatis.persona_specs SET status = 'archived'"))
    async with app.work(second) as work:
        query = text("SELECT status FROM dramatis.persona_specs")
        assert list(await work.session.scalars(query)) == ["active"]


async def test_the_application_may_do_what_it_needs_and_nothing_else(own_app: App):
    query = text(
        "SELECT 'dramatis.' || table_name, string_agg(privilege_type, ', ' ORDER BY privilege_type)"
        " FROM information_schema.role_table_grants"
        " WHERE table_schema = 'dramatis' AND grantee = 'dramatis_app' GROUP BY 1"
    )
    columns = text(
        "SELECT table_name, column_name FROM information_schema.role_column_grants"
        " WHERE table_schema = 'dramatis' AND grantee = 'dramatis_app'"
        " AND privilege_type = 'UPDATE' AND table_name IN ('persona_specs', 'spec_publications')"
    )

    async with AsyncSession(own_app.database.engine) as session:
        granted = {str(table): str(rights) for table, rights in await session.execute(query)}
        assert granted == {
            **dict.fromkeys(CHANGEABLE, "DELETE, INSERT, SELECT, UPDATE"),
            **NARROWER,
            "dramatis.tenants": "INSERT, SELECT",
            "dramatis.alembic_version": "SELECT",
        }
        assert (await session.execute(columns)).all() == [("persona_specs", "status")]


@pytest.mark.parametrize("table", OWNED)
async def test_a_row_of_another_tenant_cannot_be_added(
    two_tenants: tuple[App, Caller, Caller], table: str
):
    app, first, second = two_tenants
    insert = f"INSERT INTO {table} (tenant_id, {ROWS[table]})"

    async with app.work(first) as work:
        with pytest.raises(ProgrammingError, match="row-level security"):
            await work.session.execute(text(insert), {"tenant": second.tenant_id})
        await work.session.rollback()


async def test_without_a_tenant_nothing_can_be_added(two_tenants: tuple[App, Caller, Caller]):
    app, *_ = two_tenants

    async with AsyncSession(app.database.engine) as session:
        with pytest.raises(DBAPIError, match=r"row-level security|null value"):
            await session.execute(
                text("INSERT INTO dramatis.roles (name, label) VALUES ('x', 'X')")
            )


async def test_a_persona_cannot_have_a_role_of_another_tenant(
    two_tenants: tuple[App, Caller, Caller],
):
    app, first, second = two_tenants
    async with app.work(second) as work:
        theirs = await work.session.scalar(text("SELECT id FROM dramatis.roles"))
    insert = "INSERT INTO dramatis.personas (slug_stem, name, role_id) VALUES ('x', 'X', :role)"

    async with app.work(first) as work:
        with pytest.raises(IntegrityError, match="fk_personas_tenant_id_role_id_roles"):
            await work.session.execute(text(insert), {"role": theirs})
        await work.session.rollback()


@pytest.mark.parametrize(
    ("insert", "constraint"),
    [
        (
            "persona_specs (persona_id, slug, major, minor, patch, document, digest, author)"
            " SELECT id, slug, 9, 0, 0, '', '', '' FROM theirs",
            "fk_persona_specs_tenant_id_persona_id_personas",
        ),
        (
            "persona_checks (persona_id, checks, author) SELECT id, '', '' FROM theirs",
            "fk_persona_checks_tenant_id_persona_id_personas",
        ),
        (
            "spec_publications (spec_id, author, confirmed, note)"
            " SELECT spec_id, '', 'agent', '' FROM theirs",
            "fk_spec_publications_tenant_id_spec_id_persona_specs",
        ),
    ],
)
async def test_nothing_of_a_spec_can_belong_to_what_is_another_tenants(
    two_tenants: tuple[App, Caller, Caller], insert: str, constraint: str
):
    app, first, second = two_tenants
    query = "SELECT persona_id, slug, id FROM dramatis.persona_specs"
    async with app.work(second) as work:
        persona, slug, spec = (await work.session.execute(text(query))).one()

    async with app.work(first) as work:
        with pytest.raises(IntegrityError, match=constraint):
            await work.session.execute(
                text(
                    "WITH theirs AS (SELECT CAST(:id AS int) AS id, CAST(:slug AS text) AS slug,"
                    f" CAST(:spec_id AS int) AS spec_id) INSERT INTO dramatis.{insert}"
                ),
                {"id": persona, "slug": slug, "spec_id": spec},
            )
        await work.session.rollback()


async def test_specs_of_two_tenants_know_nothing_of_each_other(
    two_tenants: tuple[App, Caller, Caller],
):
    app, *callers = two_tenants

    for caller in callers:
        async with app.work(caller) as work:
            ran = await runtime.runtime_prompt(work, "con")
            listed = await spec_queries.overview(work)
            versions = await spec_queries.list_specs(work, "con")
            detail = await spec_queries.get_spec(work, "con")
        assert ran.text == f"## Constitution\n\n1. Obey {caller.name}.\n"
        assert [(one.active, one.versions) for one in listed.personas] == [("1.0.0", 1)]
        assert [one.author for one in versions.versions] == [caller.name]
        assert [one.author for one in detail.publications] == [caller.name]


USES: dict[str, Callable[[Work, str], Awaitable[object]]] = {
    "list": spec_queries.list_specs,
    "get": spec_queries.get_spec,
    "get a version": lambda work, persona: spec_queries.get_spec(work, persona, "1.0.0"),
    "get by address": lambda work, persona: spec_queries.spec_at(work, persona, "1.0.0"),
    "open": specs.open_spec,
    "create": lambda work, persona: specs.create_spec(work, persona, {}),
    "generate": specs.generate_spec,
    "publish": lambda work, persona: publishing.publish_spec(work, persona, "1.0.0", note="x"),
    "roll back": lambda work, persona: publishing.rollback_spec(work, persona, note="x"),
    "compare": specs.diff_specs,
    "run": runtime.runtime_prompt,
    "compile": lambda work, persona: runtime.compiled_prompt(work, persona, "1.0.0"),
    "become": become_persona,
    "foresee": lambda work, persona: publishing.foresee_publishing(work, persona, "1.0.0"),
    "check": gate.check_spec,
    "get checks": gate.get_checks,
    "set checks": lambda work, persona: gate.set_checks(work, persona, "[]"),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_a_spec_of_another_tenant_is_one_that_does_not_exist(
    two_tenants: tuple[App, Caller, Caller], use: Callable[[Work, str], Awaitable[object]]
):
    app, first, second = two_tenants
    async with app.work(second) as work:
        (theirs,) = (await listing.list_personas(work)).personas

    said: list[str] = []
    async with app.work(first) as work:
        for reference in (theirs.slug, "developer-con-999"):
            with pytest.raises(PersonaNotFound) as refused:
                await use(work, reference)
            said.append(str(refused.value).replace(reference, "SLUG"))
        assert await spec_queries.versions_starting_with(work, theirs.slug, "", 9) == []
    assert said[0] == said[1]


async def test_a_version_that_only_another_tenant_has_is_one_that_does_not_exist(
    two_tenants: tuple[App, Caller, Caller],
):
    app, first, second = two_tenants
    async with app.work(second) as work:
        await specs.create_spec(work, "con", {"version": "7.0.0"})

    async with app.work(first) as work:
        said: list[str] = []
        for version in ("7.0.0", "8.0.0"):
            for attempt in (
                spec_queries.get_spec(work, "con", version),
                publishing.publish_spec(work, "con", version, note="x"),
                runtime.compiled_prompt(work, "con", version),
            ):
                with pytest.raises(spec_queries.SpecNotFound) as refused:
                    await attempt
                said.append(str(refused.value).replace(version, "VERSION"))
        assert len(set(said)) == 1
        assert (await specs.create_spec(work, "con", {})).version == "1.0.1"


async def test_a_persona_of_another_tenant_is_one_that_does_not_exist(
    two_tenants: tuple[App, Caller, Caller],
):
    app, first, second = two_tenants
    async with app.work(second) as work:
        (theirs,) = (await listing.list_personas(work)).personas

    async with app.work(first) as work:
        said: list[str] = []
        for reference in (theirs.slug, "developer-con-999"):
            with pytest.raises(PersonaNotFound) as refused:
                await queries.get_persona(work, reference)
            said.append(str(refused.value).replace(reference, "SLUG"))
    assert said[0] == said[1]


@pytest.mark.parametrize(
    "statement", ["UPDATE dramatis.audit_log SET action = 'x'", "DELETE FROM dramatis.audit_log"]
)
async def test_the_audit_log_only_grows(two_tenants: tuple[App, Caller, Caller], statement: str):
    app, first, _ = two_tenants

    async with app.work(first) as work:
        with pytest.raises(ProgrammingError, match="permission denied"):
            await work.session.execute(text(statement))
        await work.session.rollback()


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE dramatis.personas DISABLE ROW LEVEL SECURITY",
        "TRUNCATE dramatis.personas CASCADE",
        "SET ROLE dramatis_owner",
        "CREATE TABLE dramatis.mine (id int)",
        "DELETE FROM dramatis.tenants",
    ],
)
async def test_the_applications_role_cannot_lift_the_fence(
    two_tenants: tuple[App, Caller, Caller], statement: str
):
    app, first, _ = two_tenants

    async with app.work(first) as work:
        with pytest.raises(ProgrammingError, match=r"permission denied|must be owner"):
            await work.session.execute(text(statement))
        await work.session.rollback()


async def test_every_table_with_a_tenant_is_fenced_against_its_owner_too(own_app: App):
    query = (
        "SELECT 'dramatis.' || relname FROM pg_class JOIN pg_policy ON polrelid = pg_class.oid"
        " WHERE relrowsecurity AND relforcerowsecurity ORDER BY 1"
    )

    async with AsyncSession(own_app.database.engine) as session:
        assert list(await session.scalars(text(query))) == sorted(OWNED)


async def test_names_are_free_again_in_another_tenant(two_tenants: tuple[App, Caller, Caller]):
    app, first, second = two_tenants

    for caller in (first, second):
        async with app.work(caller) as work:
            assert [role.name for role in await listing.list_roles(work)] == ["developer"]


async def test_a_server_works_in_the_tenant_of_its_settings(
    databases: Databases, two_tenants: tuple[App, Caller, Caller]
):
    app, _, second = two_tenants
    url = app.database.engine.url.render_as_string()

    async with open_app(but_tenant(url, app, "ACME ")) as acme:
        assert acme.tenant_id == second.tenant_id


def but_tenant(url: str, app: App, tenant: str) -> Settings:
    return external(url, app.data_root).model_copy(update={"tenant": tenant})
