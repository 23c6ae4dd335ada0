"""From a command to a use case: settings, app, caller, transaction."""

import logging
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import anyio

from server.cli.options import Given

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
