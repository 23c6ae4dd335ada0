"""The index of standards when several keep it, and when the database is taken from under it."""

import logging
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import psycopg
import pytest
from psycopg import sql

from server.standards.indexer import index_standards
from server.standards.shapes import IndexReport
from server.work import App, DatabaseUnavailable, Embedding
from tests.conftest import Databases, but
from tests.standards.conftest import (
    DEADLINE_S,
    Project,
    agent_of,
    eventually,
    last_passages,
    watching,
)
from tests.standards.tiny_model import make_model
from tests.test_migrations import plain

pytestmark = pytest.mark.anyio

INDEX_LOCK = "SELECT pg_advisory_lock(hashtext('dramatis.standards'), id) FROM dramatis.projects"


def saying(words: str) -> str:
    return f"# A title\n\n{words}\n"


@dataclass(frozen=True, slots=True)
class Stage:
    """Apps of one project on one database, and somebody beside them who can hold things up."""

    app: App
    project: Project
    database: str
    admin_url: str
    maintenance_url: str

    async def index(self) -> IndexReport:
        return await index_standards(self.app, agent_of(self.app))

    @asynccontextmanager
    async def held(self, statement: str) -> AsyncGenerator[psycopg.AsyncConnection]:
        """Keep everybody waiting who needs what `statement` locks, until this ends."""
        async with await psycopg.AsyncConnection.connect(self.admin_url) as holder:
            await holder.execute(statement.encode())
            yield holder

    async def execute(self, statement: str) -> psycopg.AsyncCursor:
        async with await psycopg.AsyncConnection.connect(self.admin_url) as admin:
            return await admin.execute(statement.encode())

    async def waiting(self, count: int) -> list[int]:
        """Wait until so many backends wait for a lock."""
        query = (
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        async with await psycopg.AsyncConnection.connect(self.admin_url, autocommit=True) as admin:
            found: list[int] = []

            async def so_many() -> bool:
                found[:] = [row[0] for row in await (await admin.execute(query)).fetchall()]
                return len(found) == count

            await eventually(so_many)
            return found

    @asynccontextmanager
    async def away(self) -> AsyncGenerator[None]:
        """Cut every connection to the database and refuse new ones, until this ends."""
        allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        name = sql.Identifier(self.database)
        async with await psycopg.AsyncConnection.connect(
            self.maintenance_url, autocommit=True
        ) as admin:
            await admin.execute(allow.format(name, sql.SQL("false")))
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                [self.database],
            )
            try:
                yield
            finally:
                await admin.execute(allow.format(name, sql.SQL("true")))


@pytest.fixture
def stage(own_app: App, databases: Databases, tmp_path: Path) -> Stage:
    project = Project((tmp_path / "repository").resolve())
    database = own_app.database.engine.url.database
    assert database
    return Stage(
        but(own_app, place=project.place),
        project,
        database,
        plain(databases.url(database, "postgres")),
        plain(databases.url("postgres", "postgres")),
    )


@contextmanager
def warned() -> Generator[anyio.Event]:
    """Tell when the watcher logs a warning."""
    event = anyio.Event()
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: event.set()
    logger = logging.getLogger("server.standards.watcher")
    logger.addHandler(handler)
    try:
        yield event
    finally:
        logger.removeHandler(handler)


async def test_a_change_while_an_index_run_is_under_way_is_not_lost(stage: Stage):
    stage.project.write("testing/a.md", saying("one"))

    async with watching(stage.app) as watch:
        async with stage.held(INDEX_LOCK):
            stage.project.write("testing/b.md", saying("two"))
            await stage.waiting(1)
            # The run has listed the files already.
            stage.project.write("testing/c.md", saying("three"))
            stage.project.write("testing/a.md", saying("four"))
        await watch.until(a="four", b="two", c="three")


async def test_a_file_that_is_deleted_while_an_index_run_is_under_way_is_taken_out(stage: Stage):
    file = stage.project.write("testing/a.md", saying("one"))

    async with watching(stage.app) as watch:
        async with stage.held(INDEX_LOCK):
            new = stage.project.write("testing/b.md", saying("two"))
            await stage.waiting(1)
            file.unlink()
            new.unlink()
            stage.project.write("testing/c.md", saying("three"))
        await watch.until(c="three")


async def test_two_watchers_of_one_folder_each_tell_every_change(stage: Stage):
    file = stage.project.write("testing/a.md", saying("one"))
    shown = [f".agent-os/standards/testing/{topic}.md" for topic in "abcd"]

    async with watching(stage.app) as watch, watching(but(stage.app, memory={})) as beside:

        async def changed() -> bool:
            # The first is new to whoever indexed it.
            return all({*shown[1:]} <= {*one.changed} for one in (watch, beside))

        async def removed() -> bool:
            return watch.removed == beside.removed == shown[:1]

        # Both come for the lock before either has it.
        async with stage.held(INDEX_LOCK):
            for topic in "bcd":
                stage.project.write(f"testing/{topic}.md", saying(topic))
            await stage.waiting(2)
        await eventually(changed)
        file.unlink()
        await eventually(removed)

    assert await last_passages(stage.app) == {topic: topic for topic in "bcd"}


async def test_two_that_make_the_project_at_once_make_one(stage: Stage):
    stage.project.write("testing/a.md", saying("one"))
    reports: list[IndexReport] = []

    async def index() -> None:
        reports.append(await stage.index())

    lock = "LOCK TABLE dramatis.projects IN SHARE ROW EXCLUSIVE MODE"
    async with anyio.create_task_group() as tasks, stage.held(lock):
        tasks.start_soon(index)
        tasks.start_soon(index)
        await stage.waiting(2)

    shown = [".agent-os/standards/testing/a.md"]
    assert sorted(report.changed for report in reports) == [[], shown]
    assert (await stage.execute("SELECT FROM dramatis.projects")).rowcount == 1
    assert await last_passages(stage.app) == {"a": "one"}


async def test_a_connection_killed_inside_an_index_run_leaves_the_index_as_it_was(stage: Stage):
    stage.project.write("testing/a.md", saying("one"))
    await stage.index()
    stage.project.write("testing/a.md", saying("two"))

    async def index() -> None:
        with pytest.raises(DatabaseUnavailable):
            await stage.index()

    lock = "LOCK TABLE dramatis.postings IN EXCLUSIVE MODE"
    async with anyio.create_task_group() as tasks, stage.held(lock) as holder:
        tasks.start_soon(index)
        (backend,) = await stage.waiting(1)
        await holder.execute("SELECT pg_terminate_backend(%s)", [backend])

    assert await last_passages(stage.app) == {"a": "one"}
    report = await stage.index()
    assert report.changed == [".agent-os/standards/testing/a.md"]
    assert await last_passages(stage.app) == {"a": "two"}


async def test_what_changes_while_the_database_is_away_is_caught_up(stage: Stage):
    file = stage.project.write("testing/a.md", saying("one"))
    stage.project.write("testing/b.md", saying("two"))

    async with watching(stage.app) as watch:
        with warned() as warning:
            async with stage.away():
                file.unlink()
                stage.project.write("testing/b.md", saying("three"))
                stage.project.write("testing/c.md", saying("four"))
                with anyio.fail_after(DEADLINE_S):
                    await warning.wait()
        await watch.until(b="three", c="four")
        stage.project.write("testing/c.md", saying("five"))
        await watch.until(b="three", c="five")


async def test_an_index_whose_table_is_taken_away_and_brought_back_is_caught_up(stage: Stage):
    stage.project.write("testing/a.md", saying("one"))

    async with watching(stage.app) as watch:
        with warned() as warning:
            await stage.execute("ALTER TABLE dramatis.postings RENAME TO gone")
            stage.project.write("testing/b.md", saying("two"))
            with anyio.fail_after(DEADLINE_S):
                await warning.wait()
            await stage.execute("ALTER TABLE dramatis.gone RENAME TO postings")
        await watch.until(a="one", b="two")


async def test_vectors_that_cannot_be_kept_do_not_end_the_watching(stage: Stage, tmp_path: Path):
    model = make_model(tmp_path / "model")
    app = but(stage.app, embedding=Embedding(str(model), None, None))
    await stage.execute("ALTER TABLE dramatis.passages DROP COLUMN embedded_by")
    stage.project.write("testing/a.md", saying("one"))

    with warned() as warning:
        async with watching(app) as watch:
            with anyio.fail_after(DEADLINE_S):
                await warning.wait()
            stage.project.write("testing/b.md", saying("two"))
            await watch.until(a="one", b="two")
