"""Standards that a run proposes, in the name of its persona."""

from typing import Any

import pytest
from dirty_equals import IsInt, IsStr

from server.errors import Forbidden
from server.jobs.running import RunJob
from server.jobs.tooling import ToolAnswer
from server.personas.service import PersonaArchived, register_persona, update_persona
from server.standards.service import AlreadyProposed
from server.work import READ_ONLY, App
from tests.conftest import but, operator
from tests.jobs.tools.conftest import call, job_of
from tests.standards.conftest import FLAKY, RETRIES, Project, agent_of, shown

pytestmark = pytest.mark.anyio


async def propose(job: RunJob, **values: Any) -> ToolAnswer:
    """Propose something; what is left out is the text on flaky tests."""
    whole = {
        "domain": "testing",
        "topic": "flaky-tests",
        "content": FLAKY,
        "reason": "Seen in three files.",
        "confidence": 0.8,
        **values,
    }
    return await call(job, "propose_standard", **whole)


async def test_a_change_is_proposed_against_the_file_that_was_read(
    app: App, project: Project, job: RunJob
):
    project.write("data/retries.md", RETRIES)
    read = await call(job, "read_standard", domain="data", topic="retries")
    sha256 = read.text.partition("sha256 ")[2][:64]

    made = await propose(
        job,
        domain="data",
        topic="retries",
        content=f"{RETRIES}\nNever in a loop.\n",
        evidence=None,
        base_sha256=sha256,
    )

    assert (made.text, made.details) == (
        IsStr(regex=r"Proposal \d+ waits for a person.* close: none\."),
        {"proposal_id": IsInt(), "file": ".agent-os/standards/data/retries.md"},
    )
    assert project.read("data/retries.md") == RETRIES


async def test_a_core_persona_proposes_in_its_own_name(app: App, job: RunJob):
    made = await propose(job)

    detail = await shown(app, job.caller, int(str(made.details["proposal_id"])))
    assert (detail.created_by, detail.status) == ("architect", "draft")


async def test_a_registered_persona_proposes_under_its_slug_whoever_shares_its_name(app: App):
    con = await register_persona(app, operator(app), name="architect", role="Developer")
    caller = agent_of(app, "somebody")

    by_con = await propose(job_of(app, caller, con.slug))
    by_core = await propose(job_of(app, caller, "architect"), topic="other")

    proposers = [
        (await shown(app, caller, int(str(made.details["proposal_id"])))).created_by
        for made in (by_con, by_core)
    ]
    assert proposers == [con.slug, "somebody"]


async def test_a_persona_that_was_archived_meanwhile_proposes_nothing(app: App):
    con = await register_persona(app, operator(app), name="Con", role="Developer")
    async with app.work(operator(app)) as work:
        await update_persona(work, con.slug, status="archived")

    with pytest.raises(PersonaArchived):
        await propose(job_of(app, agent_of(app), con.slug))


async def test_a_run_that_begins_again_does_not_propose_twice(job: RunJob):
    await propose(job)

    with pytest.raises(AlreadyProposed):
        await propose(job)


async def test_a_caller_that_may_not_propose_is_refused(app: App, job: RunJob):
    with pytest.raises(Forbidden):
        await propose(but(job, caller=but(job.caller, scopes=READ_ONLY)))
