"""How long a server that nobody speaks to any more goes on."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import pytest
from mcp.shared._context_streams import create_context_streams
from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from server.surfaces.mcp.conversation import Conversation

pytestmark = pytest.mark.anyio

FIRST = SessionMessage(JSONRPCRequest(jsonrpc="2.0", id=1, method="tools/call"))
SECOND = SessionMessage(JSONRPCRequest(jsonrpc="2.0", id="two", method="tools/call"))
CANCELLED = SessionMessage(
    JSONRPCNotification(
        jsonrpc="2.0", method="notifications/cancelled", params={"requestId": "two"}
    )
)
ANSWER = SessionMessage(JSONRPCResponse(jsonrpc="2.0", id=1, result={}))


@asynccontextmanager
async def said(*messages: SessionMessage, leaving_s: float = 60) -> AsyncGenerator[Conversation]:
    """Say this, and no more."""
    to_server, read = create_context_streams[SessionMessage | Exception](len(messages))
    write, to_client = create_context_streams[SessionMessage](1)
    async with to_server:
        for message in messages:
            await to_server.send(message)
    async with read, write, to_client:
        yield Conversation(read, write, leaving_s=leaving_s)


async def test_it_goes_on_until_all_that_is_not_cancelled_is_answered():
    heard: list[SessionMessage] = []
    over = anyio.Event()

    async def listen(conversation: Conversation) -> None:
        heard.extend([message async for message in conversation.messages()])
        over.set()

    with anyio.fail_after(5):
        async with (
            said(FIRST, SECOND, CANCELLED) as conversation,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(listen, conversation)
            await anyio.wait_all_tasks_blocked()
            assert not over.is_set()
            await conversation.send(ANSWER)

    assert heard == [FIRST, SECOND, CANCELLED]


async def test_what_is_never_answered_does_not_keep_it_for_ever():
    with anyio.fail_after(5):
        async with said(FIRST, leaving_s=0.01) as conversation:
            heard = [message async for message in conversation.messages()]

    assert heard == [FIRST]
