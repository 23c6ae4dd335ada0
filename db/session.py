"""Engine and sessions. One session is one transaction is one use case of one tenant."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio.to_thread
import psycopg
from sqlalchemy import Connection, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, SessionTransaction

from db.queue import QUEUE_SCHEMA

CONNECT_TIMEOUT_S = 5
POOL_TIMEOUT_S = 3
LOCK_TIMEOUT = "5s"
STATEMENT_TIMEOUT = "8s"
# Of a process that was frozen in the middle of a transaction, which others wait for.
IDLE_TIMEOUT = "30s"

Sessions = async_sessionmaker[AsyncSession]


class TenantSession(Session):
    """A session whose every transaction belongs to the tenant in `info["tenant_id"]`."""


# The queue's functions name its tables without a schema; everything of ours names it.
SEARCH_PATH = f"{QUEUE_SCHEMA}, public"

# The tenant is set per transaction, for then a pooled connection forgets it by itself. The time
# limits ride along: a statement of their own would cost a round trip, and start-up options are
# refused by some connection poolers.
_BEGIN = text(
    "SELECT set_config('app.tenant_id', :tenant_id, true),"
    " set_config('lock_timeout', :lock_timeout, true),"
    " set_config('statement_timeout', :statement_timeout, true),"
    " set_config('idle_in_transaction_session_timeout', :idle_timeout, true),"
    " set_config('timezone', 'UTC', true),"
    " set_config('search_path', :search_path, true)"
)


@event.listens_for(TenantSession, "after_begin")
def _enter_tenant(session: Session, _: SessionTransaction, connection: Connection) -> None:
    connection.execute(
        _BEGIN,
        {
            "tenant_id": str(session.info["tenant_id"]),
            "lock_timeout": LOCK_TIMEOUT,
            "statement_timeout": STATEMENT_TIMEOUT,
            "idle_timeout": IDLE_TIMEOUT,
            "search_path": SEARCH_PATH,
        },
    )


class BadDatabaseUrl(ValueError):
    """The text is no PostgreSQL URL. It may hold a password, so it is not repeated."""


@dataclass(frozen=True, slots=True)
class Database:
    engine: AsyncEngine
    sessions: Sessions


def connect(
    url: str, *, pool_size: int, before_connect: Callable[[], None] | None = None
) -> Database:
    """Make the engine and its session factory. Nothing is opened yet.

    Args:
        url: `postgresql://` or `postgres://`, as libpq and most hosts write it.
        before_connect: called in a worker thread before each new connection; the embedded
            server uses it to start again after a crash.

    Raises:
        BadDatabaseUrl: `url` cannot be read.
    """
    arguments: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_S}
    if before_connect is not None:

        async def open_connection(*args: Any, **kwargs: Any) -> psycopg.AsyncConnection[Any]:
            await anyio.to_thread.run_sync(before_connect)
            return await psycopg.AsyncConnection.connect(*args, **kwargs)

        arguments["async_creator_fn"] = open_connection
        # Set, so that PGOPTIONS of the environment, which means some other server, is not read.
        arguments["options"] = ""
    engine = create_async_engine(
        psycopg_url(url),
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=POOL_TIMEOUT_S,
        # Parameters are people's texts; they have no place in a log.
        hide_parameters=True,
        connect_args=arguments,
    )
    sessions = async_sessionmaker(engine, sync_session_class=TenantSession, expire_on_commit=False)
    return Database(engine, sessions)


def psycopg_url(url: str) -> URL:
    """Read a PostgreSQL URL and name the driver.

    Raises:
        BadDatabaseUrl: it is none.
    """
    try:
        parsed = make_url(url.replace("postgres://", "postgresql://", 1))
    except (ArgumentError, ValueError) as error:
        raise BadDatabaseUrl from error
    if parsed.get_backend_name() != "postgresql":
        raise BadDatabaseUrl
    return parsed.set(drivername="postgresql+psycopg")
