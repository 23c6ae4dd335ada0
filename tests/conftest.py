"""A real Postgres for every test, started by the supervisor that users get, and migrated once.

Most tests share one database and roll back. A test that needs real commits or several
connections at once takes `own_app`, on a clone of the migrated database.
"""

import itertools
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from mcp import Client
from psycopg import sql
from pydantic import SecretStr
from sniffio import current_async_library_cvar
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db.embedded import Connection, EmbeddedPostgres
from db.migrate import upgrade
from db.session import Database, TenantSession
from server.app import open_app
from server.settings import Settings
from server.surfaces.mcp.server import Dramatis, build
from server.work import OPERATOR_SCOPES, App, Caller, Work

_numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--postgres", default=18, type=int, help="Major to test on: 18 or 16.")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def no_loop_is_claimed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let a test that is not async call commands, which run an event loop of their own.

    For as long as anyio's plugin keeps a loop for fixtures it says that one is running. With
    sniffio installed, which the model libraries bring, `anyio.run` believes that and refuses.
    """
    if request.node.get_closest_marker("anyio") is not None:
        yield
        return
    token = current_async_library_cvar.set(None)
    yield
    current_async_library_cvar.reset(token)


@pytest.fixture(scope="session")
def postgres(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Connection]:
    major = int(str(request.config.getoption("--postgres")))
    root = tmp_path_factory.mktemp("postgres")
    server = EmbeddedPostgres(root, linger=timedelta(0), major=major)
    yield server.acquire()
    server.stop()
    server.release()
    # As root the cluster lies outside the temporary folder.
    shutil.rmtree(server.base, ignore_errors=True)


@pytest.fixture(scope="session")
def admin(postgres: Connection) -> Iterator[psycopg.Connection]:
    with psycopg.connect(
        host=postgres.host, user="postgres", dbname="postgres", autocommit=True
    ) as connection:
        yield connection


class Databases:
    """Makes databases, empty or with every migration applied, and drops them."""

    def __init__(self, postgres: Connection, admin: psycopg.Connection) -> None:
        self._postgres = postgres
        self._admin = admin
        self._template: str | None = None

    def empty(self, template: str = "template1") -> str:
        name = f"test_{next(_numbers)}"
        self._admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER dramatis_owner").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
        return name

    def migrated(self) -> str:
        if self._template is None:
            self._template = self.empty()
            upgrade(self.url(self._template, "dramatis_owner"))
        return self.empty(self._template)

    def url(self, name: str, user: str = "dramatis_app") -> str:
        return self._postgres.url(user, name)

    def drop(self, name: str) -> None:
        statement = sql.SQL("DROP DATABASE {} WITH (FORCE)")
        self._admin.execute(statement.format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def databases(postgres: Connection, admin: psycopg.Connection) -> Databases:
    return Databases(postgres, admin)


@pytest.fixture(scope="session")
async def shared_app(
    databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[App]:
    name = databases.migrated()
    async with open_app(external(databases.url(name), tmp_path_factory.mktemp("shared"))) as app:
        yield app
    databases.drop(name)


@pytest.fixture
async def app(shared_app: App, tmp_path: Path) -> AsyncIterator[App]:
    """The app on one connection whose outer transaction is never committed."""
    engine = shared_app.database.engine
    async with engine.connect() as connection:
        outer = await connection.begin()
        sessions = async_sessionmaker(
            connection,
            class_=AsyncSession,
            sync_session_class=TenantSession,
            expire_on_commit=False,
            join_transaction_mode="create_savepoint",
        )
        yield replace(shared_app, database=Database(engine, sessions), data_root=tmp_path)
        await outer.rollback()


@pytest.fixture
async def own_app(databases: Databases, tmp_path: Path) -> AsyncIterator[App]:
    """The app on a database of its own: commits are real, connections are many."""
    name = databases.migrated()
    async with open_app(external(databases.url(name), tmp_path)) as app:
        yield app
    databases.drop(name)


@pytest.fixture
def caller(app: App) -> Caller:
    return operator(app)


@pytest.fixture
async def work(app: App, caller: Caller) -> AsyncIterator[Work]:
    async with app.work(caller) as work:
        yield work


@pytest.fixture
def mcp(app: App) -> Dramatis:
    return build(Opened(app))


@pytest.fixture(params=["auto", "legacy"])
async def client(mcp: Dramatis, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    """A client in each protocol era."""
    async with Client(mcp, mode=request.param, cache=None) as client:
        yield client


but = replace


def operator(app: App, name: str = "tester") -> Caller:
    return Caller("operator", name, app.tenant_id, OPERATOR_SCOPES)


def external(url: str, data_root: Path) -> Settings:
    return Settings(database_url=SecretStr(url), data_root=data_root, start_worker=False)


class Opened:
    """Stands in for opening: the test owns the app."""

    def __init__(self, app: App) -> None:
        self._app = app

    def __call__(self) -> AbstractAsyncContextManager[App]:
        return nullcontext(self._app)
