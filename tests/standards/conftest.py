"""A project with a folder of standards, and an app that was started in it."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import psycopg
import pytest
from sqlalchemy import text

from db.embedded import Connection
from server.standards.approving import approve_proposal, reject_proposal, request_changes
from server.standards.indexer import index_standards
from server.standards.proposals import Decided, ProposalDetail, Proposed
from server.standards.queries import get_proposal
from server.standards.service import propose_standard
from server.standards.shapes import IndexReport
from server.standards.watcher import keep_indexed
from server.work import PERSON_SCOPES, App, Caller, Place, Work
from tests.conftest import but

T = TypeVar("T")

DEADLINE_S = 20

FLAKY = """\
# Flaky tests

## Context

A test that fails now and then is worse than none: people stop reading the red.

## Pattern

Pass the clock in. A test that reads the time twice fails around midnight.
"""
RETRIES = """\
# Retries

## Pattern

Retry only what is idempotent, with exponential back-off and jitter.
"""


class Project:
    """A checkout on the disk. Paths are relative to its folder of standards."""

    def __init__(self, root: Path) -> None:
        self.place = Place("", root, root / ".agent-os" / "standards", None)
        (root / ".git").mkdir(parents=True)

    def write(self, path: str, text: str | bytes = FLAKY) -> Path:
        file = self.place.standards / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return file

    def read(self, path: str) -> str:
        return (self.place.standards / path).read_text(encoding="utf-8")

    def files(self) -> list[str]:
        return sorted(
            file.relative_to(self.place.standards).as_posix()
            for file in self.place.standards.rglob("*")
            if file.is_file()
        )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project((tmp_path / "repository").resolve())


@pytest.fixture
async def app(app: App, project: Project) -> App:
    return but(app, place=project.place)


@pytest.fixture
async def own_app(own_app: App, project: Project) -> App:
    return but(own_app, place=project.place)


@pytest.fixture
def agent(app: App) -> Caller:
    return agent_of(app)


@pytest.fixture
def person(app: App) -> Caller:
    return person_of(app)


def agent_of(app: App, name: str = "ada via claude-code") -> Caller:
    return Caller("agent", name, app.tenant_id, frozenset(("standards:propose",)))


def person_of(app: App, name: str = "ada") -> Caller:
    return Caller("human", name, app.tenant_id, PERSON_SCOPES)


Index = Callable[[], Awaitable[IndexReport]]


@pytest.fixture
def index(app: App, agent: Caller) -> Index:
    return lambda: index_standards(app, agent)


async def proposed(app: App, caller: Caller, **values: Any) -> Proposed:
    """Propose something; what is left out is the text on flaky tests."""
    whole: Mapping[str, Any] = {
        "domain": "testing",
        "topic": "flaky-tests",
        "content": FLAKY,
        "reason": "Seen in three files.",
        **values,
    }
    async with app.work(caller) as work:
        return await propose_standard(work, **whole)


async def using(app: App, caller: Caller, verb: Callable[[Work], Awaitable[T]]) -> T:
    async with app.work(caller) as work:
        return await verb(work)


class Watch:
    """A watcher at work, and what it told."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._news = anyio.Event()
        self.reports: list[IndexReport] = []

    async def told(self, report: IndexReport) -> None:
        self.reports.append(report)
        news, self._news = self._news, anyio.Event()
        news.set()

    @property
    def changed(self) -> list[str]:
        """Every file that was indexed, once for each time."""
        return sorted(path for report in self.reports for path in report.changed)

    @property
    def removed(self) -> list[str]:
        return sorted(path for report in self.reports for path in report.removed)

    async def until(self, **texts: str) -> None:
        """Wait until exactly these topics are in the index, each with this in its last passage."""
        with anyio.fail_after(DEADLINE_S):
            while True:
                news = self._news
                if await last_passages(self._app) == texts:
                    return
                await news.wait()

    async def until_told(self) -> None:
        with anyio.fail_after(DEADLINE_S):
            while not self.reports:
                await self._news.wait()


@asynccontextmanager
async def watching(app: App) -> AsyncGenerator[Watch]:
    """Watch until the block ends; it begins when the first index run is over."""
    watch = Watch(app)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keep_indexed, app, agent_of(app), watch.told)
        await watch.until_told()
        yield watch
        tasks.cancel_scope.cancel()


async def eventually(done: Callable[[], Awaitable[object]]) -> None:
    """Wait for what nothing tells of."""
    with anyio.fail_after(DEADLINE_S):
        while not await done():
            await anyio.lowlevel.checkpoint()


async def last_passages(app: App) -> dict[str, str]:
    async def read(work: Work) -> dict[str, str]:
        rows = await work.session.execute(
            text(
                "SELECT topic, p.text FROM dramatis.standards s"
                " JOIN dramatis.passages p ON p.standard_id = s.id ORDER BY p.id"
            )
        )
        return {row.topic: row.text for row in rows}

    return await using(app, agent_of(app), read)


async def shown(app: App, caller: Caller, proposal: int) -> ProposalDetail:
    return await using(app, caller, lambda work: get_proposal(work, proposal))


async def approved(app: App, person: Caller, proposal: int, **values: Any) -> Decided:
    """Approve what is shown at this moment, on a terminal, unless `values` say otherwise."""
    digest = (await shown(app, person, proposal)).digest
    whole: Mapping[str, Any] = {"digest": digest, "channel": "terminal", **values}
    return await approve_proposal(app, person, proposal, **whole)


async def returned(app: App, person: Caller, proposal: int, feedback: str) -> Decided:
    """Ask for changes to what is shown at this moment."""
    digest = (await shown(app, person, proposal)).digest
    return await using(
        app,
        person,
        lambda work: request_changes(
            work, proposal, digest=digest, feedback=feedback, channel="console"
        ),
    )


async def rejected(app: App, person: Caller, proposal: int, feedback: str) -> Decided:
    digest = (await shown(app, person, proposal)).digest
    return await using(
        app,
        person,
        lambda work: reject_proposal(
            work, proposal, digest=digest, feedback=feedback, channel="rest"
        ),
    )


async def audited(app: App, caller: Caller) -> list[tuple[str, str, str, Mapping[str, Any]]]:
    """Return who did what to which file, and the details, in the order of the acts."""
    query = text("SELECT caller_name, action, subject, details FROM dramatis.audit_log ORDER BY id")

    async def read(work: Work) -> list[tuple[str, str, str, Mapping[str, Any]]]:
        return [tuple(row) for row in await work.session.execute(query)]

    return await using(app, caller, read)


@pytest.fixture
def owner(own_app: App, postgres: Connection) -> Iterator[psycopg.Connection]:
    """The login that may take tables away."""
    with psycopg.connect(
        host=postgres.host,
        user="dramatis_owner",
        dbname=own_app.database.engine.url.database,
        autocommit=True,
    ) as connection:
        yield connection
