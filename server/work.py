"""One use case: a transaction, the caller it acts for, and the app it runs in."""

from collections.abc import (
    AsyncGenerator,
    Callable,
    Collection,
    Generator,
    Hashable,
    MutableMapping,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Literal, get_args

import anyio
from cachetools import TTLCache
from jinja2 import Environment
from psycopg import errors
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession

from db.session import Database
from db.unavailable import EmbeddedUnavailable
from server.errors import Unavailable

Scope = Literal[
    "personas:write",
    "specs:write",
    "specs:publish",
    "checks:write",
    "tenants:write",
    "standards:propose",
    "standards:approve",
    "jobs:write",
]
# Approving a standard is for a person who was asked, not for whoever may run a command.
PERSON_SCOPES: frozenset[Scope] = frozenset(("standards:propose", "standards:approve"))
OPERATOR_SCOPES: frozenset[Scope] = frozenset(get_args(Scope)) - {"standards:approve"}
# Checks gate what an agent publishes, so it may not change them.
AGENT_SCOPES: frozenset[Scope] = frozenset(
    ("personas:write", "specs:write", "specs:publish", "standards:propose", "jobs:write")
)
# A persona that runs asks for standards; it starts nobody else.
PERSONA_SCOPES: frozenset[Scope] = frozenset(("standards:propose",))
READ_ONLY: frozenset[Scope] = frozenset()

# A database that is frozen or out of reach shows at the first round trip. Both limits leave
# time to report it within the 10 seconds of SPEC 3.6.
BEGIN_TIMEOUT_S = 4
USE_CASE_TIMEOUT_S = 8

BUSY = (errors.LockNotAvailable, errors.DeadlockDetected, errors.SerializationFailure)
FULL = (errors.DiskFull, errors.OutOfMemory, errors.TooManyConnections)


REMEMBERED = 512
REMEMBERED_S = 300


def _memory() -> MutableMapping[Hashable, object]:
    return TTLCache[Hashable, object, float](REMEMBERED, REMEMBERED_S, timer=monotonic)


class DatabaseUnavailable(Unavailable):
    code = "database_unavailable"


class DatabaseBusy(Unavailable):
    code = "database_busy"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who acts. `name` is for the audit log and for bylines; it proves nothing by itself."""

    kind: Literal["human", "agent", "operator"]
    name: str
    tenant_id: int
    scopes: frozenset[Scope]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the project's standards are.

    Attributes:
        host: the machine, where the database serves several; paths mean nothing elsewhere.
        root: the project, absolute and without symbolic links.
        standards: its folder of standards, which need not be there.
        library: the folder of read-only standards, if the operator has one.
    """

    host: str
    root: Path
    standards: Path
    library: Path | None


@dataclass(frozen=True, slots=True)
class Embedding:
    """The model that makes vectors of texts: in a folder, or at an endpoint."""

    model: str
    url: str | None
    key: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """What invoked personas run on.

    Attributes:
        name: `provider:name`, or a name at `url`; empty for a command.
        command: whether it is a command-line agent, which the worker's own settings name.
    """

    name: str
    url: str | None
    command: bool


@dataclass(frozen=True, slots=True)
class JobLimits:
    """What invocations may take; `None` is no limit. Days are those of UTC."""

    queue_length: int = 20
    per_minute: int = 60
    running: int = 32
    running_per_persona: int = 4
    run_s: float = 900
    run_tokens: int = 200_000
    day_tokens: int | None = None
    run_usd: float | None = None
    day_usd: float | None = None


# That of all who start no workers of their own.
SHARED_QUEUE = "jobs"


@dataclass(frozen=True, slots=True)
class JobSettings:
    """How personas are invoked.

    Attributes:
        model: `None` where nothing was configured.
        personas: the operator's folder of core personas.
        queue: the queue that jobs are put into. That of a machine that starts its own workers is
            taken care of by them, with the settings they were started with, and by operators'
            workers, which take from all.
        start_worker: starts a worker on this machine, if none is there, for jobs that wait in these
            queues, or for those of `queue`, and returns at once; `None` where workers are the
            operator's.
    """

    model: ModelChoice | None = None
    limits: JobLimits = field(default_factory=JobLimits)
    personas: Path | None = None
    queue: str = SHARED_QUEUE
    start_worker: Callable[[Collection[str] | None], None] | None = None


@dataclass(frozen=True, slots=True)
class App:
    """What every use case may reach. Built once, in `server.app`.

    Attributes:
        place: `None` where the server was not started in a project.
        embedding: `None` without a model: then texts are searched by their words alone.
        memory: what rooms found out before and may forget at any time.
    """

    database: Database
    templates: Environment
    data_root: Path
    prompt_tokens: int
    skill_template: str
    tenant_id: int
    place: Place | None = None
    embedding: Embedding | None = None
    jobs: JobSettings = field(default_factory=JobSettings)
    memory: MutableMapping[Hashable, object] = field(default_factory=_memory)

    @asynccontextmanager
    async def work(self, caller: Caller) -> AsyncGenerator["Work"]:
        """Open a transaction for `caller`; commit on success, roll back on any error.

        Raises:
            DatabaseUnavailable: no answer. When it came after the beginning, nobody knows whether
                the commit arrived.
            DatabaseBusy: somebody else held what was needed for too long; nothing was done.
        """
        with _within(USE_CASE_TIMEOUT_S, "It may or may not have been carried out: look first."):
            async with self.database.sessions(info={"tenant_id": caller.tenant_id}) as session:
                await _begin(session)
                yield Work(session, caller, self)
                await session.commit()


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
    with _within(BEGIN_TIMEOUT_S, "Nothing was changed."):
        try:
            await session.connection()
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            await session.rollback()
            await session.connection()


@contextmanager
def _within(limit_s: float, outcome: str) -> Generator[None]:
    """Give the database so long, and put what it says into our words."""
    try:
        with anyio.fail_after(limit_s):
            yield
    except PoolTimeout as error:
        raise DatabaseBusy(
            "All connections to the database are in use.", hint="Try again in a moment."
        ) from error
    except (TimeoutError, EmbeddedUnavailable) as error:
        raise _unavailable(outcome) from error
    except DBAPIError as error:
        if isinstance(error.orig, BUSY):
            raise DatabaseBusy(
                "Somebody else is changing the same thing; nothing was done.",
                hint="Try again in a moment.",
            ) from error
        if isinstance(error.orig, FULL):
            raise DatabaseBusy(
                "The database server has no room left; nothing was done.",
                hint="Free disk space or connections on it.",
            ) from error
        if error.connection_invalidated or isinstance(error.orig, errors.OperationalError):
            raise _unavailable(outcome) from error
        raise


def _unavailable(outcome: str) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        f"The database does not answer. {outcome}",
        hint="Try again; if it persists, run `dramatis doctor`.",
    )
