"""No row can belong to what is another tenant's."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from tests.isolation.conftest import ROWS, Tenants

pytestmark = pytest.mark.anyio

# A job that belongs to something of another tenant.
JOB = (
    "persona_jobs (id, {0}, persona, persona_name, task, priority, prompt, trace, runner, model,"
    " requested_by, queue, spent_on, tokens_limit, seconds_limit)"
    " SELECT gen_random_uuid(), {0}, '', '', '', 'low', '', '{{}}', '', '', '', '', now(), 1, 1 FROM theirs"
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
            "job_steps (job_id, attempt, number, kind, name, began_at, duration_ms)"
            " SELECT job, 1, 1, 'note', '', now(), 0 FROM theirs",
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
