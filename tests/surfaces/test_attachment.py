"""How the server gets at its app: in the background, again after a failure, and not for ever."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import pytest
from mcp import Client, MCPError
from mcp.server.subscriptions import InMemorySubscriptionBus

from server.surfaces.mcp.attachment import Attachment, StillStarting
from server.surfaces.mcp.audience import Audience
from server.surfaces.mcp.server import build
from server.work import App, DatabaseUnavailable

pytestmark = pytest.mark.anyio


def nobody() -> Audience:
    return Audience(InMemorySubscriptionBus())


async def test_whoever_waits_too_long_is_told_to_try_again(app: App):
    ready = anyio.Event()

    @asynccontextmanager
    async def open_slowly() -> AsyncGenerator[App]:
        await ready.wait()
        yield app

    attachment = Attachment(open_slowly, nobody(), read_only=False, patience_s=0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(attachment.hold)
        with pytest.raises(StillStarting, match="Try again in a few seconds"):
            await attachment.app()

        ready.set()
        patient = Attachment(open_slowly, nobody(), read_only=False)
        tasks.start_soon(patient.hold)
        assert await patient.app() is app
        tasks.cancel_scope.cancel()


async def test_a_failure_is_for_those_who_waited_and_the_next_one_tries_again(app: App):
    outcomes: list[App | Exception] = [DatabaseUnavailable("Away."), app]

    @asynccontextmanager
    async def open_in_turn() -> AsyncGenerator[App]:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        yield outcome

    attachment = Attachment(open_in_turn, nobody(), read_only=False)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(attachment.hold)
        with pytest.raises(DatabaseUnavailable, match="Away"):
            await attachment.app()
        assert await attachment.app() is app
        attachment.begin()
        assert await attachment.app() is app
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_bug_is_answered_without_its_text_and_does_not_end_the_server(
    mode: str, caplog: pytest.LogCaptureFixture
):
    @asynccontextmanager
    async def broken() -> AsyncGenerator[App]:
        raise RuntimeError("postgresql://me:s3cret@host")
        yield

    async with Client(build(broken), mode=mode, cache=None) as client:
        with pytest.raises(MCPError) as refused:
            await client.list_resources()
        result = await client.call_tool("list_personas", {})

    assert refused.value.error.message == "Internal error; the server's log has it."
    assert result.is_error
    assert "s3cret" not in str(result.content)
    assert "s3cret" in caplog.text
