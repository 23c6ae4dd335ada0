"""Row-level security, proved as the application's own role over a pool of one connection."""

from collections.abc import AsyncIterator

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
from server.work import App, Caller
from tests.conftest import Databases, but, external, operator

pytestmark = pytest.mark.anyio

OWNED = [table.fullname for table in metadata.sorted_tables if "tenant_id" in table.columns]
CHANGEABLE = [table for table in OWNED if table != "dramatis.audit_log"]


@pytest.fixture
async def two_tenants(own_app: App) -> AsyncIterator[tuple[App, Caller, Caller]]:
    """An app with one connection and a persona, its files and history in each of two tenants."""
    database = connect(own_app.database.engine.url.render_as_string(), pool_size=1)
    app = but(own_app, database=database)
    first = operator(app, "first")
    async with app.work(first) as work:
        second = but(first, name="second", tenant_id=(await add_tenant(work, " Acme ")).id)
    for caller in (first, second):
        con = await service.register_persona(app, caller, name="Con", role="developer")
        await files.write_skill(app, caller, con.slug, content=caller.name)
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


async def test_a_row_of_another_tenant_cannot_be_added(two_tenants: tuple[App, Caller, Caller]):
    app, first, second = two_tenants
    insert = "INSERT INTO dramatis.roles (tenant_id, name, label) VALUES (:tenant, 'x', 'X')"

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
