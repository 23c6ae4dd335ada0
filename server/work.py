"""One use case: a transaction, the caller it acts for, and the app it runs in."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import anyio
from jinja2 import Environment
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession

from db.session import Database
from db.unavailable import EmbeddedUnavailable
from server.errors import Unavailable

Scope = Literal["personas:read", "personas:write", "tenants:write"]
SCOPES: frozenset[Scope] = frozenset(("personas:read", "personas:write", "tenants:write"))
READ_SCOPES: frozenset[Scope] = frozenset(("personas:read",))

# A begin that takes longer than this has met a database that is frozen or out of reach: it is
# one round trip. It leaves time to report that within the 10 seconds of SPEC 3.6.
BEGIN_TIMEOUT_S = 4


class DatabaseUnavailable(Unavailable):
    code = "database_unavailable"

    def __init__(self) -> None:
        super().__init__(
            "The database does not answer.",
            hint="Nothing was changed. Try again; if it persists, run `dramatis doctor`.",
        )


@dataclass(frozen=True, slots=True)
class Caller:
    """Who acts. `name` is for the audit log and for bylines; it proves nothing by itself."""

    kind: Literal["human", "agent", "operator"]
    name: str
    tenant_id: int
    scopes: frozenset[Scope] = SCOPES


@dataclass(frozen=True, slots=True)
class App:
    """What every use case may reach. Built once, in `server.app`."""

    database: Database
    templates: Environment
    data_root: Path
    prompt_tokens: int
    skill_template: str
    tenant_id: int

    @asynccontextmanager
    async def work(self, caller: Caller) -> AsyncGenerator["Work"]:
        """Open a transaction for `caller`; commit on success, roll back on any error.

        Raises:
            DatabaseUnavailable: no answer; what was done in the transaction is undone.
        """
        try:
            async with self.database.sessions(info={"tenant_id": caller.tenant_id}) as session:
                await _begin(session)
                yield Work(session, caller, self)
                await session.commit()
        except EmbeddedUnavailable as error:
            raise DatabaseUnavailable from error
        except (OperationalError, InterfaceError, PoolTimeout) as error:
            raise DatabaseUnavailable from error
        except DBAPIError as error:
            if error.connection_invalidated:
                raise DatabaseUnavailable from error
            raise


OpenApp = Callable[[], AbstractAsyncContextManager[App]]


@dataclass(frozen=True, slots=True)
class Work:
    session: AsyncSession
    caller: Caller
    app: App


async def _begin(session: AsyncSession) -> None:
    """Start the transaction, on a second connection when the pooled one turns out dead.

    The pool does not ping: that would add a round trip to every use case, and here nothing has
    happened yet, so beginning again is safe.
    """
    try:
        await _reach(session)
    except OperationalError as error:
        if not error.connection_invalidated:
            raise
        await session.rollback()
        await _reach(session)


async def _reach(session: AsyncSession) -> None:
    try:
        with anyio.fail_after(BEGIN_TIMEOUT_S):
            await session.connection()
    except TimeoutError as error:
        raise DatabaseUnavailable from error
