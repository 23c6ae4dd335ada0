"""Two tenants, each with rows of its own, behind a pool of one connection."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from db.session import connect
from server.access import add_tenant
from server.app import open_app
from server.jobs.retention import clean_jobs
from server.personas import files, service
from server.specs import gate, publishing
from server.specs import service as specs
from server.standards import approving
from server.standards.search import search_standards
from server.standards.service import propose_standard
from server.work import PERSON_SCOPES, App, Caller, JobSettings, Place
from tests.conftest import Databases, but, external, operator
from tests.jobs.conftest import MODEL, begun, ended, tool

# A row of each table that is right but for the tenant, which is another one.
ROWS = {
    "dramatis.approved_files": "project_id, proposal_id, decision_id, path, document, sha256)"
    " VALUES (:tenant, 2, 2, 4, '', '', ''",
    "dramatis.audit_log": "caller_kind, caller_name, action, subject) VALUES (:tenant, '', '', '', ''",
    "dramatis.job_cleanups": "cleaned_at) VALUES (:tenant, now()",
    "dramatis.job_steps": "job_id, attempt, number, kind, name, began_at, duration_ms)"
    " VALUES (:tenant, gen_random_uuid(), 1, 1, 'note', '', now(), 0",
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


@pytest.fixture(scope="package")
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
