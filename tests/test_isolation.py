"""Row-level security, proved as the application's own role over a pool of one connection."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession

from db.session import connect
from db.tables import metadata
from server.access import add_tenant
from server.app import open_app
from server.jobs import queries as jobs
from server.jobs.following import follow_job, followed_job
from server.jobs.prompting import cast
from server.jobs.record import run_record
from server.jobs.retention import clean_jobs
from server.jobs.service import cancel_job, invoke_persona, reset_jobs, retry_job
from server.jobs.shapes import JobPending
from server.personas import files, listing, queries, service
from server.personas.queries import PersonaNotFound
from server.settings import Settings
from server.specs import gate, publishing, runtime
from server.specs import queries as spec_queries
from server.specs import service as specs
from server.specs.becoming import become_persona
from server.standards import approving, catalogue, writing
from server.standards import queries as proposals
from server.standards.search import search_standards
from server.standards.service import propose_standard, revise_proposal
from server.work import PERSON_SCOPES, App, Caller, JobLimits, JobSettings, Place, Work
from tests.conftest import Databases, but, external, operator
from tests.jobs.conftest import MODEL, aged, begun, ended, tool

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
# A row of each table that is right but for the tenant, which is another one.
ROWS = {
    "dramatis.approved_files": "project_id, proposal_id, decision_id, path, document, sha256)"
    " VALUES (:tenant, 2, 2, 4, '', '', ''",
    "dramatis.audit_log": "caller_kind, caller_name, action, subject) VALUES (:tenant, '', '', '', ''",
    "dramatis.job_cleanups": "cleaned_at) VALUES (:tenant, now()",
    "dramatis.job_steps": "job_id, attempt, kind, name, began_at, duration_ms)"
    " VALUES (:tenant, gen_random_uuid(), 1, 'note', '', now(), 0",
    "dramatis.persona_checks": "persona_id, checks, author) VALUES (:tenant, 2, '', ''",
    "dramatis.persona_jobs": "id, persona, persona_name, task, priority, prompt, trace, runner, model,"
    " requested_by, queue, spent_on, tokens_limit, seconds_limit)"
    " VALUES (:tenant, gen_random_uuid(), '', '', '', 'low', '', '{}', '', '', '', '', now(), 1, 1",
    "dramatis.persona_specs": "slug, major, minor, patch, document, digest, author)"
    " VALUES (:tenant, '', 9, 0, 0, '', '', ''",
    "dramatis.persona_spending": "persona, day) VALUES (:tenant, 'x', '2030-01-01'",
    "dramatis.passages": "project_id, standard_id, line, section, text) VALUES (:tenant, 2, 2, 1, '', ''",
    "dramatis.personas": "slug_stem, name, role_id) VALUES (:tenant, 'x', 'X', 2",
    "dramatis.postings": "project_id, term, passage_id, standard_id, tf, length)"
    " VALUES (:tenant, 2, 'x', 2, 2, 1, 1",
    "dramatis.projects": "host, root) VALUES (:tenant, '', '/x'",
    "dramatis.proposal_decisions": "proposal_id, number, digest, verdict, feedback, person, channel)"
    " VALUES (:tenant, 2, 1, '', 'approved', '', '', ''",
    "dramatis.proposal_revisions": "proposal_id, number, content, reason, evidence, confidence, digest,"
    " author_kind, author) VALUES (:tenant, 2, 9, '', '', '[]', 1, '', '', ''",
    "dramatis.proposals": "project_id, domain, topic, path, created_by, proposer_kind, proposer_name)"
    " VALUES (:tenant, 2, '', '', '', '', '', ''",
    "dramatis.roles": "name, label) VALUES (:tenant, 'x', 'X'",
    "dramatis.skill_versions": "slug, sha256, content, author) VALUES (:tenant, '', '', '', ''",
    "dramatis.spec_publications": "spec_id, author, confirmed, note) VALUES (:tenant, 2, '', 'agent', ''",
    "dramatis.standard_uses": "standard_id, query_count) VALUES (:tenant, 2, 1",
    "dramatis.standards": "project_id, layer, path, domain, topic, key, title, sha256, size_bytes,"
    " modified_at) VALUES (:tenant, 2, 'project', 'x', '', '', '', '', '', 1, now()",
}

# A job that belongs to something of another tenant.
JOB = (
    "persona_jobs (id, {0}, persona, persona_name, task, priority, prompt, trace, runner, model,"
    " requested_by, queue, spent_on, tokens_limit, seconds_limit)"
    " SELECT gen_random_uuid(), {0}, '', '', '', 'low', '', '{{}}', '', '', '', '', now(), 1, 1 FROM theirs"
)

Tenants = tuple[App, Caller, Caller]


@asynccontextmanager
async def filled(databases: Databases, data_root: Path) -> AsyncGenerator[Tenants]:
    """An app with one connection; in each of two tenants a row of every table that has one."""
    name = databases.migrated()
    async with open_app(external(databases.url(name), data_root)) as opened:
        database = connect(opened.database.engine.url.render_as_string(), pool_size=1)
        app = but(opened, database=database, jobs=JobSettings(model=MODEL))
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
            await make_a_standard(in_project_of(caller, app), caller)
            await make_a_job(in_project_of(caller, app), caller)
        yield app, first, second
        await database.engine.dispose()
    databases.drop(name)


@pytest.fixture(scope="module")
async def two_tenants(
    databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Tenants]:
    """For tests that leave everything as it was, which is nearly all of them."""
    async with filled(databases, tmp_path_factory.mktemp("tenants")) as tenants:
        yield tenants


@pytest.fixture
async def own_tenants(databases: Databases, tmp_path: Path) -> AsyncGenerator[Tenants]:
    async with filled(databases, tmp_path) as tenants:
        yield tenants


def in_project_of(caller: Caller, app: App) -> App:
    root = app.data_root / f"project of {caller.name}"
    return but(app, place=Place("", root, root / "standards", None))


def as_person(caller: Caller) -> Caller:
    return but(caller, kind="human", scopes=PERSON_SCOPES)


async def make_a_standard(app: App, caller: Caller) -> None:
    """Propose it, have changes asked for, approve it and find it."""
    text, person = f"# Retries of {caller.name}\n\nWith jitter.", as_person(caller)
    async with app.work(person) as work:
        made = await propose_standard(
            work, domain="data", topic="retries", content=text, reason="Seen.", persona="con"
        )
        await approving.request_changes(
            work, made.id, digest=made.digest, feedback=f"Asks {caller.name}.", channel="console"
        )
    await approving.approve_proposal(app, person, made.id, digest=made.digest, channel="console")
    assert (await search_standards(app, caller, "jitter")).hits


async def make_a_job(app: App, caller: Caller) -> None:
    """Invoke a persona, let its run fail, and look for what is old."""
    run = await begun(app, caller, "con", task=f"Work for {caller.name}.")
    await run.step(tool("search_standards"))
    assert await ended(run, "failed", error="No.")
    async with app.work(caller) as work:
        await clean_jobs(work)


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


async def test_a_persona_cannot_have_a_role_of_another_tenant(
    two_tenants: Tenants,
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
    two_tenants: Tenants, insert: str, constraint: str
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


@pytest.mark.parametrize(
    ("table", "owner", "constraint"),
    [
        ("standards", "projects", "fk_standards_tenant_id_project_id_projects"),
        ("standard_uses", "standards", "fk_standard_uses_tenant_id_standard_id_standards"),
        ("passages", "standards", "fk_passages_tenant_id_standard_id_standards"),
        ("proposals", "projects", "fk_proposals_tenant_id_project_id_projects"),
        ("proposal_revisions", "proposals", "fk_proposal_revisions_tenant_id_proposal_id"),
        ("proposal_decisions", "proposals", "fk_proposal_decisions_tenant_id_proposal_id"),
        ("approved_files", "projects", "fk_approved_files_tenant_id_(decision|project)_id"),
    ],
)
async def test_nothing_of_a_standard_can_belong_to_what_is_another_tenants(
    two_tenants: Tenants, table: str, owner: str, constraint: str
):
    app, first, second = two_tenants
    insert = f"INSERT INTO dramatis.{table} (tenant_id, {ROWS[f'dramatis.{table}']})"
    async with app.work(second) as work:
        query = text(f"SELECT id FROM dramatis.{owner} WHERE id = 2")
        assert list(await work.session.scalars(query)) == [2]

    async with app.work(first) as work:
        with pytest.raises(IntegrityError, match=constraint):
            await work.session.execute(text(insert), {"tenant": first.tenant_id})
        await work.session.rollback()


@pytest.mark.parametrize(
    ("insert", "constraint"),
    [
        (JOB.format("persona_id"), "fk_persona_jobs_tenant_id_persona_id_personas"),
        (JOB.format("project_id"), "fk_persona_jobs_tenant_id_project_id_projects"),
        (
            "job_steps (job_id, attempt, kind, name, began_at, duration_ms)"
            " SELECT job, 1, 'note', '', now(), 0 FROM theirs",
            "fk_job_steps_tenant_id_job_id_persona_jobs",
        ),
    ],
)
async def test_nothing_of_a_job_can_belong_to_what_is_another_tenants(
    two_tenants: Tenants, insert: str, constraint: str
):
    app, first, second = two_tenants
    query = "SELECT id AS job, persona_id, project_id FROM dramatis.persona_jobs"
    async with app.work(second) as work:
        theirs = (await work.session.execute(text(query))).mappings().one()
    values = (
        "WITH theirs AS (SELECT CAST(:job AS uuid) AS job, CAST(:persona_id AS int) AS persona_id,"
        " CAST(:project_id AS int) AS project_id)"
    )

    async with app.work(first) as work:
        with pytest.raises(IntegrityError, match=constraint):
            await work.session.execute(
                text(f"{values} INSERT INTO dramatis.{insert}"), dict(theirs)
            )
        await work.session.rollback()


async def test_nobody_proposes_as_a_persona_of_another_tenant(
    two_tenants: Tenants,
):
    app, first, second = two_tenants
    async with app.work(second) as work:
        theirs = await work.session.scalar(text("SELECT id FROM dramatis.personas"))
    insert = (
        "INSERT INTO dramatis.proposals (project_id, persona_id, domain, topic, path, created_by,"
        " proposer_kind, proposer_name) SELECT id, :persona, '', '', '', '', '', ''"
        " FROM dramatis.projects"
    )

    async with app.work(first) as work:
        with pytest.raises(IntegrityError, match="fk_proposals_tenant_id_persona_id_personas"):
            await work.session.execute(text(insert), {"persona": theirs})
        await work.session.rollback()


async def test_specs_of_two_tenants_know_nothing_of_each_other(
    two_tenants: Tenants,
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
    "invoke": lambda work, persona: cast(work, persona, "Review this."),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_a_spec_of_another_tenant_is_one_that_does_not_exist(
    two_tenants: Tenants, use: Callable[[Work, str], Awaitable[object]]
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


async def test_standards_of_two_tenants_know_nothing_of_each_other(
    two_tenants: Tenants,
):
    app, *callers = two_tenants

    for caller in callers:
        here = in_project_of(caller, app)
        found = await search_standards(here, caller, "retries jitter")
        async with here.work(caller) as work:
            listed = await catalogue.list_standards(work)
            page = await proposals.list_proposals(work, status="all")
            detail = await proposals.get_proposal(work, page.proposals[0].id)
        assert [hit.text for hit in found.hits] == ["With jitter."]
        assert [(one.title, one.approved_by) for one in listed.standards] == [
            (f"Retries of {caller.name}", caller.name)
        ]
        assert [one.feedback for one in detail.decisions] == [f"Asks {caller.name}.", None]


async def test_in_the_folder_of_another_tenant_there_are_files_and_nothing_else(
    two_tenants: Tenants,
):
    app, first, second = two_tenants
    there = in_project_of(second, app)

    found = await search_standards(there, first, "jitter")
    async with there.work(first) as work:
        listed = await catalogue.list_standards(work)
        page = await proposals.list_proposals(work, status="all")
        counts = await catalogue.statistics(work)
        unwritten = await proposals.not_written(work)
        read = await catalogue.read_standard(work, "data", "retries")

    assert (listed.standards, page.proposals, page.waiting, unwritten) == ([], [], 0, [])
    assert (counts.standards, counts.waiting_proposals) == (0, 0)
    assert found.found_by == "scan of the files"
    # The file itself says who approved it, and that is all there is to know.
    assert (read.review, read.approved_by) == ("claimed", "second")


async def approve(app: App, caller: Caller, number: int) -> object:
    return await approving.approve_proposal(app, caller, number, digest="", channel="console")


async def repair(app: App, caller: Caller, number: int) -> object:
    return await writing.write_approved(app, caller, number)


def deciding(
    verb: Callable[..., Awaitable[object]], **values: str
) -> Callable[[App, Caller, int], Awaitable[object]]:
    async def decide(app: App, caller: Caller, number: int) -> object:
        async with app.work(caller) as work:
            return await verb(work, number, **values)

    return decide


NO = {"digest": "", "feedback": "No.", "channel": "console"}
DECISIONS: dict[str, Callable[[App, Caller, int], Awaitable[object]]] = {
    "get": deciding(proposals.get_proposal),
    "revise": deciding(revise_proposal, content="# Mine"),
    "approve": approve,
    "ask for changes": deciding(approving.request_changes, **NO),
    "reject": deciding(approving.reject_proposal, **NO),
    "repair": repair,
}


@pytest.mark.parametrize("use", DECISIONS.values(), ids=DECISIONS)
async def test_a_proposal_of_another_tenant_is_one_that_does_not_exist(
    two_tenants: Tenants,
    use: Callable[[App, Caller, int], Awaitable[object]],
):
    app, first, second = two_tenants
    there = in_project_of(second, app)
    async with there.work(second) as work:
        (theirs,) = (await proposals.list_proposals(work, status="all")).proposals

    said: list[str] = []
    for number in (theirs.id, 999):
        # In their folder too, where only the tenant is another.
        for here in (in_project_of(first, app), there):
            with pytest.raises(proposals.ProposalNotFound) as refused:
                await use(here, as_person(first), number)
            said.append(str(refused.value).replace(str(number), "NUMBER"))
    assert len(set(said)) == 1


async def test_a_standard_of_another_tenant_is_one_that_does_not_exist(
    own_tenants: Tenants,
):
    app, first, second = own_tenants
    there = in_project_of(second, app)
    async with there.work(as_person(second)) as work:
        made = await propose_standard(
            work, domain="data", topic="theirs", content="# Theirs\n\nZebra.", reason="Seen."
        )
    person = as_person(second)
    await approving.approve_proposal(there, person, made.id, digest=made.digest, channel="rest")

    here = in_project_of(first, app)
    said: list[str] = []
    async with here.work(first) as work:
        for topic in ("theirs", "nobody"):
            with pytest.raises(catalogue.StandardNotFound) as refused:
                await catalogue.read_standard(work, "data", topic)
            said.append(str(refused.value).replace(topic, "TOPIC"))
        assert await catalogue.standards_starting_with(work, "the", 9, domain="data") == []
    assert said[0] == said[1]
    assert (await search_standards(here, first, "zebra")).hits == []


async def job_of(app: App, caller: Caller) -> str:
    async with app.work(caller) as work:
        query = text("SELECT id FROM dramatis.persona_jobs ORDER BY created_at LIMIT 1")
        return str(await work.session.scalar(query))


def on_job(verb: Callable[[Work, str], Awaitable[object]]) -> Callable[[App, Caller, str], Any]:
    async def act(app: App, caller: Caller, job_id: str) -> object:
        async with app.work(caller) as work:
            return await verb(work, job_id)

    return act


JOB_USES: dict[str, Callable[[App, Caller, str], Awaitable[object]]] = {
    "check": on_job(jobs.check_job),
    "find": on_job(jobs.find_job),
    "record": on_job(run_record),
    "cancel": on_job(cancel_job),
    "retry": retry_job,
    "follow": follow_job,
    "follow once": followed_job,
}


@pytest.mark.parametrize("use", JOB_USES.values(), ids=JOB_USES)
async def test_a_job_of_another_tenant_is_one_that_does_not_exist(
    two_tenants: Tenants, use: Callable[[App, Caller, str], Awaitable[object]]
):
    app, first, second = two_tenants
    theirs = await job_of(in_project_of(second, app), second)

    said: list[str] = []
    for job_id in (theirs, str(UUID(int=1))):
        # In their folder too, where only the tenant is another.
        for caller in (first, second):
            try:
                answer = str(await use(in_project_of(caller, app), first, job_id))
            except jobs.NoSuchJob as error:
                answer = str(error)
            said.append(answer.replace(job_id, "JOB"))
    assert len(set(said)) == 1
    assert await job_of(app, second) == theirs


async def test_jobs_of_two_tenants_know_nothing_of_each_other(two_tenants: Tenants):
    app, *callers = two_tenants

    for caller in callers:
        here = in_project_of(caller, app)
        async with here.work(caller) as work:
            listed = await jobs.list_jobs(work)
            counts = await jobs.job_statistics(work)
            usage = await jobs.persona_usage(work)
        assert [job.task for job in listed.jobs] == [f"Work for {caller.name}."]
        assert (listed.total_count, counts.jobs_by_status) == (1, {"failed": 1})
        assert [(one.persona, one.runs) for one in usage] == [(listed.jobs[0].persona, 1)]


async def test_in_the_folder_of_another_tenant_there_are_no_jobs(two_tenants: Tenants):
    app, first, second = two_tenants

    async with in_project_of(second, app).work(first) as work:
        listed = await jobs.list_jobs(work)

    assert (listed.jobs, listed.total_count, listed.filtered_count) == ([], 0, 0)


async def test_what_a_tenant_resets_and_cleans_is_its_own(own_tenants: Tenants):
    app, first, second = own_tenants
    theirs = await job_of(app, second)
    await aged(app, second, UUID(theirs), 100 * 86_400)

    for here in (in_project_of(first, app), in_project_of(second, app)):
        async with here.work(first) as work:
            await clean_jobs(work)
            await reset_jobs(work, confirm=True)

    assert await job_of(app, second) == theirs


async def test_in_the_queue_no_tenant_waits_for_another(own_tenants: Tenants):
    app, first, second = own_tenants
    app = but(app, jobs=but(app.jobs, limits=JobLimits(queue_length=1, per_minute=2)))
    await invoke_persona(app, second, "architect", "Review this.", priority="high")

    job = await invoke_persona(app, first, "architect", "Review this.", priority="low")

    async with app.work(first) as work:
        pending = await jobs.check_job(work, str(job.job_id))
    assert isinstance(pending, JobPending)
    assert pending.position == 1


async def test_a_version_that_only_another_tenant_has_is_one_that_does_not_exist(
    own_tenants: Tenants,
):
    app, first, second = own_tenants
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
    two_tenants: Tenants,
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


async def test_names_are_free_again_in_another_tenant(two_tenants: Tenants):
    app, first, second = two_tenants

    for caller in (first, second):
        async with app.work(caller) as work:
            assert [role.name for role in await listing.list_roles(work)] == ["developer"]


async def test_a_server_works_in_the_tenant_of_its_settings(
    databases: Databases, two_tenants: Tenants
):
    app, _, second = two_tenants
    url = app.database.engine.url.render_as_string()

    async with open_app(but_tenant(url, app, "ACME ")) as acme:
        assert acme.tenant_id == second.tenant_id


def but_tenant(url: str, app: App, tenant: str) -> Settings:
    return external(url, app.data_root).model_copy(update={"tenant": tenant})
