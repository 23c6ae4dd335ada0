"""Row-level security, proved as the application's own role over a pool of one connection."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession

from db.tables import metadata
from server.app import open_app
from server.settings import Settings
from server.work import App
from tests.conftest import Databases, external
from tests.isolation.conftest import ROWS, Tenants

pytestmark = pytest.mark.anyio

OWNED = [table.fullname for table in metadata.sorted_tables if "tenant_id" in table.columns]
# History: the application has not even the right to try.
NARROWER = {
    "dramatis.approved_files": "INSERT, SELECT",
    "dramatis.audit_log": "INSERT, SELECT",
    "dramatis.persona_specs": "INSERT, SELECT",
    "dramatis.proposal_decisions": "INSERT, SELECT",
    "dramatis.proposal_revisions": "INSERT, SELECT",
    "dramatis.proposals": "INSERT, SELECT",
    "dramatis.spec_publications": "INSERT, SELECT",
}
# Rows that come and go, and are never changed.
REMOVABLE = {"dramatis.job_steps": "DELETE, INSERT, SELECT"}
# The one column of such a table that may change.
CHANGEABLE_COLUMNS = [
    ("approved_files", "abandoned_at"),
    ("approved_files", "written_at"),
    ("persona_specs", "status"),
    ("proposals", "status"),
]
CHANGEABLE = [table for table in OWNED if table not in NARROWER | REMOVABLE]
REFUSALS = {
    **dict.fromkeys(CHANGEABLE, "row-level security"),
    **dict.fromkeys(REMOVABLE, "permission denied"),
}


async def rows(session: AsyncSession, table: str) -> list[int]:
    return list(await session.scalars(text(f"SELECT DISTINCT tenant_id FROM {table} ORDER BY 1")))


@pytest.mark.parametrize("table", OWNED)
async def test_each_tenant_sees_its_own_rows_only(two_tenants: Tenants, table: str):
    app, *callers = two_tenants

    for caller in [*callers, *callers]:
        async with app.work(caller) as work:
            assert await rows(work.session, table) == [caller.tenant_id]


@pytest.mark.parametrize("table", OWNED)
async def test_without_a_tenant_there_are_no_rows(two_tenants: Tenants, table: str):
    app, first, _ = two_tenants
    async with app.work(first) as work:
        await work.session.execute(text("SELECT 1"))

    async with AsyncSession(app.database.engine) as session:
        assert await rows(session, table) == []


@pytest.mark.parametrize(("table", "refusal"), REFUSALS.items())
async def test_a_tenant_can_neither_change_nor_remove_rows_of_another(
    two_tenants: Tenants, table: str, refusal: str
):
    app, first, second = two_tenants
    everything = f"SELECT * FROM {table} row ORDER BY row"
    async with app.work(second) as work:
        before = (await work.session.execute(text(everything))).all()

    async with app.work(first) as work:
        await work.session.execute(
            text(f"DELETE FROM {table} WHERE tenant_id = {second.tenant_id}")
        )
        with pytest.raises(ProgrammingError, match=refusal):
            await work.session.execute(text(f"UPDATE {table} SET tenant_id = {second.tenant_id}"))
        await work.session.rollback()

    async with app.work(second) as work:
        assert (await work.session.execute(text(everything))).all() == before


@pytest.mark.parametrize("table", NARROWER)
async def test_the_history_of_a_tenant_is_beyond_even_an_attempt_to_change_it(
    two_tenants: Tenants, table: str
):
    app, first, second = two_tenants

    async with app.work(first) as work:
        for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET tenant_id = 2"):
            with pytest.raises(ProgrammingError, match="permission denied"):
                async with work.session.begin_nested():
                    await work.session.execute(text(statement))
    async with app.work(second) as work:
        assert await rows(work.session, table) == [second.tenant_id]


@pytest.mark.parametrize(("table", "column"), CHANGEABLE_COLUMNS[1:])
async def test_what_may_change_of_the_history_of_another_tenant_stays_as_it_is(
    own_tenants: Tenants, table: str, column: str
):
    app, *callers = own_tenants
    query = text(f"SELECT {column} FROM dramatis.{table}")

    async def values() -> list[list[object]]:
        found: list[list[object]] = []
        for caller in callers:
            async with app.work(caller) as work:
                found.append([*await work.session.scalars(query)])
        return found

    mine, theirs = await values()
    async with app.work(callers[0]) as work:
        await work.session.execute(text(f"UPDATE dramatis.{table} SET {column} = DEFAULT"))

    changed, untouched = await values()
    assert changed != mine
    assert untouched == theirs


async def test_the_application_may_do_what_it_needs_and_nothing_else(own_app: App):
    query = text(
        "SELECT 'dramatis.' || table_name, string_agg(privilege_type, ', ' ORDER BY privilege_type)"
        " FROM information_schema.role_table_grants"
        " WHERE table_schema = 'dramatis' AND grantee = 'dramatis_app' GROUP BY 1"
    )
    columns = text(
        "SELECT table_name, column_name FROM information_schema.role_column_grants"
        " WHERE table_schema = 'dramatis' AND grantee = 'dramatis_app'"
        " AND privilege_type = 'UPDATE' AND 'dramatis.' || table_name = ANY(:narrower)"
        " ORDER BY 1, 2"
    )

    async with AsyncSession(own_app.database.engine) as session:
        granted = {str(table): str(rights) for table, rights in await session.execute(query)}
        assert granted == {
            **dict.fromkeys(CHANGEABLE, "DELETE, INSERT, SELECT, UPDATE"),
            **NARROWER,
            **REMOVABLE,
            "dramatis.tenants": "INSERT, SELECT",
            "dramatis.alembic_version": "SELECT",
        }
        found = await session.execute(columns, {"narrower": [*NARROWER]})
        assert [(table, column) for table, column in found] == CHANGEABLE_COLUMNS


@pytest.mark.parametrize("table", OWNED)
async def test_a_row_of_another_tenant_cannot_be_added(two_tenants: Tenants, table: str):
    app, first, second = two_tenants
    insert = f"INSERT INTO {table} (tenant_id, {ROWS[table]})"

    async with app.work(first) as work:
        with pytest.raises(ProgrammingError, match="row-level security"):
            await work.session.execute(text(insert), {"tenant": second.tenant_id})
        await work.session.rollback()


async def test_without_a_tenant_nothing_can_be_added(two_tenants: Tenants):
    app, *_ = two_tenants

    async with AsyncSession(app.database.engine) as session:
        with pytest.raises(DBAPIError, match=r"row-level security|null value"):
            await session.execute(
                text("INSERT INTO dramatis.roles (name, label) VALUES ('x', 'X')")
            )


@pytest.mark.parametrize(
    "statement", ["UPDATE dramatis.audit_log SET action = 'x'", "DELETE FROM dramatis.audit_log"]
)
async def test_the_audit_log_only_grows(two_tenants: Tenants, statement: str):
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
async def test_the_applications_role_cannot_lift_the_fence(two_tenants: Tenants, statement: str):
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


async def test_a_server_works_in_the_tenant_of_its_settings(
    databases: Databases, two_tenants: Tenants
):
    app, _, second = two_tenants
    url = app.database.engine.url.render_as_string()

    async with open_app(but_tenant(url, app, "ACME ")) as acme:
        assert acme.tenant_id == second.tenant_id


def but_tenant(url: str, app: App, tenant: str) -> Settings:
    return external(url, app.data_root).model_copy(update={"tenant": tenant})
