"""From a command to a use case: settings, app, caller, transaction."""

import logging
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from server.cli.options import Given
from server.cli.output import is_terminal

if TYPE_CHECKING:
    from server.settings import Settings
    from server.work import App, Caller, Work

T = TypeVar("T")


def in_work(given: Given, act: "Callable[[Work], Awaitable[T]]", **flags: object) -> T:
    """Run one service function in a transaction of the operator's."""

    async def session() -> T:
        async with opened(given.settings(**flags)) as (app, caller), app.work(caller) as work:
            return await act(work)

    return anyio.run(session)


def in_app(given: Given, act: "Callable[[App, Caller], Awaitable[T]]", **flags: object) -> T:
    """Run a service function that opens its transactions itself, or several of them."""

    async def session() -> T:
        async with opened(given.settings(**flags)) as (app, caller):
            return await act(app, caller)

    return anyio.run(session)


@dataclass(frozen=True, slots=True)
class Person:
    """Who sits at this terminal, for as long as they read and answer."""

    portal: BlockingPortal
    app: "App"
    caller: "Caller"

    def in_work(self, act: "Callable[[Work], Awaitable[T]]") -> T:
        """Run one service function in a transaction of theirs."""

        async def session() -> T:
            async with self.app.work(self.caller) as work:
                return await act(work)

        return self.portal.call(session)

    def in_app(self, act: "Callable[[App, Caller], Awaitable[T]]") -> T:
        """Run a service function that opens its transactions itself."""
        return self.portal.call(act, self.app, self.caller)


@contextmanager
def person_at_terminal(given: Given) -> Generator[Person, None, None]:
    """Let the person at this terminal act, who alone decides what becomes a standard.

    The event loop runs beside them: in its own thread, a question would keep Ctrl-C waiting.

    Raises:
        NeedsPerson: nobody can be shown anything here, or nobody can answer.
    """
    from server.access import login_name
    from server.standards.approving import NeedsPerson
    from server.work import PERSON_SCOPES, Caller

    # Agents run commands with the terminal of whoever started them as input, but read the output
    # themselves: then a person would answer what they never saw.
    if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        raise NeedsPerson(
            "Only a person decides what becomes a standard, and nobody sits at a terminal here.",
            hint="A person types this command on a terminal; no option takes the place of that.",
        )
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(opened(given.settings())) as (app, _),
    ):
        yield Person(portal, app, Caller("human", login_name(), app.tenant_id, PERSON_SCOPES))


@asynccontextmanager
async def opened(settings: "Settings") -> "AsyncGenerator[tuple[App, Caller]]":
    from server.access import login_name
    from server.app import open_app
    from server.work import OPERATOR_SCOPES, Caller

    log_to_stderr(settings)
    async with open_app(settings) as app:
        yield app, Caller("operator", login_name(), app.tenant_id, OPERATOR_SCOPES)


def log_to_stderr(settings: "Settings") -> None:
    logging.basicConfig(
        stream=sys.stderr, level=settings.log_level, format="dramatis: %(levelname)s: %(message)s"
    )
