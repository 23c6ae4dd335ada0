"""Approving when many do it at once, and when somebody or something goes away in the middle."""

import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import psycopg
import pytest

from server.errors import DramatisError
from server.standards import queries
from server.standards.approving import approve_proposal
from server.standards.proposals import Proposed
from server.standards.search import search_standards
from server.standards.service import revise_proposal
from server.standards.writing import StandardNotWritten, write_approved
from server.work import App, Caller, DatabaseUnavailable
from tests.conftest import Databases, but
from tests.faults.test_registrations import environment
from tests.standards.conftest import (
    FLAKY,
    RETRIES,
    Project,
    agent_of,
    audited,
    person_of,
    proposed,
    shown,
    using,
)
from tests.test_migrations import plain

pytestmark = pytest.mark.anyio

RACERS = 10
DEADLINE_S = 30
PATH = "testing/flaky-tests.md"

# An approval locks the index before it looks at the file.
INDEX = "SELECT pg_advisory_xact_lock(hashtext('dramatis.standards'), id) FROM dramatis.projects"

APPROVE = """
import sys, anyio
from dataclasses import replace
from server.app import open_app
from server.settings import Settings
from server.standards.approving import approve_proposal
from server.work import PERSON_SCOPES, Caller

async def main(proposal, digest):
    async with open_app(Settings()) as app:
        app = replace(app, place=replace(app.place, host=""))
        person = Caller("human", "ada", app.tenant_id, PERSON_SCOPES)
        await approve_proposal(app, person, proposal, digest=digest, channel="terminal")

anyio.run(main, int(sys.argv[1]), sys.argv[2])
"""

Verb = Callable[[], Coroutine[Any, Any, Any]]


@dataclass(frozen=True, slots=True)
class Stage:
    """A project on a database of its own, and somebody beside it who can hold things up."""

    app: App
    project: Project
    admin_url: str

    @property
    def person(self) -> Caller:
        return person_of(self.app)

    async def propose(self, **values: Any) -> Proposed:
        return await proposed(self.app, agent_of(self.app), **values)

    def approving(self, made: Proposed, name: str = "ada") -> Verb:
        person = person_of(self.app, name)
        return lambda: approve_proposal(
            self.app, person, made.id, digest=made.digest, channel="console"
        )

    def revising(self, made: Proposed, content: str) -> Verb:
        return lambda: using(
            self.app,
            agent_of(self.app),
            lambda work: revise_proposal(work, made.id, content=content),
        )

    def repairing(self, made: Proposed) -> Verb:
        return lambda: write_approved(self.app, self.person, made.id)

    @asynccontextmanager
    async def held(self, statement: str) -> AsyncGenerator[psycopg.AsyncConnection]:
        """Keep everybody waiting who needs what `statement` locks, until this ends."""
        async with await psycopg.AsyncConnection.connect(self.admin_url) as holder:
            await holder.execute(statement.encode())
            yield holder

    async def waiting(self, count: int) -> list[int]:
        """Wait until so many backends wait for a lock. A lock that is granted shows at once."""
        query = (
            "SELECT pid FROM pg_locks JOIN pg_stat_activity USING (pid)"
            " WHERE NOT granted AND datname = current_database()"
        )
        connected = psycopg.AsyncConnection.connect(self.admin_url, autocommit=True)
        with anyio.fail_after(DEADLINE_S):
            async with await connected as admin:
                while True:
                    found = [row[0] for row in await (await admin.execute(query)).fetchall()]
                    if len(found) == count:
                        return found

    @asynccontextmanager
    async def committed(self, approve: Verb) -> AsyncGenerator[Verb]:
        """Hold an approval between its commit and the file; what is yielded lets it go on.

        Somebody who waits for the table of proposals gets it when the approval commits, and then
        the approval waits for them.
        """
        lock = b"LOCK TABLE dramatis.proposals IN ACCESS EXCLUSIVE MODE"
        connected = psycopg.AsyncConnection.connect(self.admin_url)
        async with await connected as holder, anyio.create_task_group() as group:
            async with anyio.create_task_group() as queued, self.held(INDEX):
                group.start_soon(approve)
                await self.waiting(1)
                queued.start_soon(holder.execute, lock)
                await self.waiting(2)
            await self.waiting(1)
            yield holder.rollback
            await holder.rollback()

    async def at_once(self, hold: str, *racers: Verb) -> list[Any]:
        """Let one after the other begin and wait; list what they answer once `hold` ends."""
        answers: list[Any] = [None] * len(racers)

        async def race(number: int, verb: Verb) -> None:
            try:
                answers[number] = await verb()
            except DramatisError as error:
                answers[number] = error.code

        async with anyio.create_task_group() as group, self.held(hold):
            for number, verb in enumerate(racers):
                group.start_soon(race, number, verb)
                await self.waiting(number + 1)
        return answers

    async def actions(self) -> list[str]:
        return [action for _, action, _, _ in await audited(self.app, self.person)]

    async def not_written(self) -> list[int]:
        return [one.id for one in await using(self.app, self.person, queries.not_written)]


@pytest.fixture
def stage(own_app: App, databases: Databases, tmp_path: Path) -> Stage:
    project = Project((tmp_path / "repository").resolve())
    database = own_app.database.engine.url.database
    assert database
    url = plain(databases.url(database, "postgres"))
    return Stage(but(own_app, place=project.place), project, url)


async def test_of_ten_that_approve_at_once_exactly_one_does(stage: Stage):
    made = await stage.propose()
    people = [f"person {number}" for number in range(RACERS)]

    answers = await stage.at_once(INDEX, *(stage.approving(made, name) for name in people))

    detail = await shown(stage.app, stage.person, made.id)
    assert [answer for answer in answers if answer != "proposal_decided"] == [answers[0]]
    assert [one.person for one in detail.decisions] == ["person 0"]
    assert await stage.actions() == ["standard.proposed", "standard.approved", "standard.written"]


async def test_of_two_proposals_for_one_new_file_one_wins_and_the_file_is_its(stage: Stage):
    first = await stage.propose()
    second = await stage.propose(content=RETRIES)

    won, lost = await stage.at_once(INDEX, stage.approving(first), stage.approving(second))

    assert (won.id, won.status) == (first.id, "approved")
    assert lost in ("standard_pending", "standard_changed")
    assert (await shown(stage.app, stage.person, second.id)).status == "draft"
    assert stage.project.read(PATH).endswith(f"\n\n{FLAKY}")


async def test_what_is_revised_while_it_is_approved_stays_as_it_was_approved(stage: Stage):
    made = await stage.propose()

    approval, revision = await stage.at_once(
        INDEX, stage.approving(made), stage.revising(made, RETRIES)
    )

    assert (approval.digest, revision) == (made.digest, "proposal_decided")
    assert stage.project.read(PATH).endswith(f"\n\n{FLAKY}")


async def test_what_is_approved_while_it_is_revised_is_shown_anew_first(stage: Stage):
    made = await stage.propose()

    # A revision is stored before it is audited.
    revision, approval = await stage.at_once(
        "LOCK TABLE dramatis.audit_log IN EXCLUSIVE MODE",
        stage.revising(made, RETRIES),
        stage.approving(made),
    )

    assert (revision.revision, approval) == (2, "proposal_changed")
    assert stage.project.files() == []
    assert (await stage.approving(revision)()).status == "approved"


async def test_who_leaves_after_the_commit_still_gets_the_file(stage: Stage):
    made = await stage.propose()
    leaving = anyio.CancelScope()

    async def approve() -> None:
        with leaving:
            await stage.approving(made)()

    async with stage.committed(approve):
        leaving.cancel()
        assert stage.project.files() == []

    assert stage.project.read(PATH).endswith(f"\n\n{FLAKY}")
    assert await stage.not_written() == []


def approving_process(
    stage: Stage, made: Proposed, settings: dict[str, str]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", APPROVE, str(made.id), made.digest],
        env={**settings, "DRAMATIS_PROJECT_ROOT": str(stage.project.place.root)},
    )


async def test_a_process_killed_after_the_commit_leaves_a_file_to_repair(
    stage: Stage, databases: Databases, tmp_path: Path
):
    made = await stage.propose()
    database = str(stage.app.database.engine.url.database)
    process = approving_process(stage, made, environment(databases, database, tmp_path))

    async def ended() -> None:
        await anyio.to_thread.run_sync(process.wait)

    async with stage.committed(ended):
        process.kill()

    detail = await shown(stage.app, stage.person, made.id)
    assert (process.returncode, detail.status) == (-signal.SIGKILL, "approved")
    assert (detail.not_written, stage.project.files()) == (True, [])
    repaired = await stage.repairing(made)()
    assert (repaired.created, await stage.not_written()) == (True, [])
    assert stage.project.read(PATH).endswith(f"\n\n{FLAKY}")


async def test_a_database_that_leaves_after_the_file_was_written_is_told_by_a_repair(stage: Stage):
    made = await stage.propose()

    async def approve() -> None:
        with pytest.raises(DatabaseUnavailable):
            await stage.approving(made)()

    update = "LOCK TABLE dramatis.approved_files IN EXCLUSIVE MODE"
    async with stage.committed(approve) as go_on, stage.held(update) as holder:
        await go_on()
        (backend,) = await stage.waiting(1)
        written = stage.project.read(PATH)
        await holder.execute("SELECT pg_terminate_backend(%s)", [backend])

    assert await stage.not_written() == [made.id]
    repaired = await stage.repairing(made)()
    assert (repaired.created, await stage.not_written()) == (True, [])
    assert stage.project.read(PATH) == written
    (hit,) = (await search_standards(stage.app, stage.person, "clock midnight")).hits
    assert (hit.review, hit.approved_by) == ("approved", "ada")


async def test_two_that_repair_at_once_write_one_file_and_one_entry(stage: Stage):
    made = await stage.propose()
    folder = stage.project.write("testing", "in the way")
    with pytest.raises(StandardNotWritten):
        await stage.approving(made)()
    folder.unlink()

    answers = await stage.at_once(
        "LOCK TABLE dramatis.proposals IN ACCESS EXCLUSIVE MODE",
        stage.repairing(made),
        stage.repairing(made),
    )

    assert answers[0] == answers[1]
    assert (await stage.actions()).count("standard.written") == 1
