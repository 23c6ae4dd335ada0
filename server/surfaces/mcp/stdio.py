"""Serve one client over standard input and output, until it leaves or a signal ends us."""

import os
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial

import anyio
from mcp.server import MCPServer, NotificationOptions
from mcp.server.runner import serve_dual_era_loop
from mcp.server.stdio import stdio_server
from mcp.shared._context_streams import create_context_streams
from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCRequest

from server.surfaces.mcp.attachment import Attachment
from server.surfaces.mcp.conversation import Conversation, Incoming

SHUTDOWN_S = 4

Messages = AsyncGenerator[SessionMessage]


def run(server: MCPServer[Attachment]) -> None:
    """Serve until standard input closes, or until SIGTERM or SIGINT.

    The SDK's own runner leaves cleanup out on SIGTERM and hangs on SIGINT: the thread that reads
    standard input cannot be interrupted. Hence the hard exit once everything is closed.
    """
    anyio.run(_until_signalled, server)


async def _until_signalled(server: MCPServer[Attachment]) -> None:
    received: list[signal.Signals] = []
    finished = anyio.Event()

    async def watch(serving: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                received.append(number)
                serving.cancel()
                with anyio.move_on_after(SHUTDOWN_S):
                    await finished.wait()
                os._exit(128 + number)

    async def leave(over: anyio.Event) -> None:
        # Nobody may read what is still to be written.
        await over.wait()
        await anyio.sleep(SHUTDOWN_S)
        os._exit(0)

    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as serving:
            tasks.start_soon(watch, serving)
            await _serve(server, finished, partial(tasks.start_soon, leave))
        if not received:
            tasks.cancel_scope.cancel()


async def _serve(
    server: MCPServer[Attachment],
    finished: anyio.Event,
    began: Callable[[anyio.Event], object],
) -> None:
    low = server._lowlevel_server  # pyright: ignore[reportPrivateUsage]  # noqa: SLF001  # no public way
    options = low.create_initialization_options(NotificationOptions(resources_changed=True))
    # The streams are outside: leaving them waits for a line of input, cleaning up must not.
    async with stdio_server() as (read, write):
        try:
            async with low.lifespan(low) as attachment:
                conversation = Conversation(read, write)
                began(conversation.over)
                messages = conversation.messages()
                opening = await _answer_discovery(server, attachment, messages, conversation)
                if opening is not None:
                    async with _resumed(opening, messages) as incoming:
                        await serve_dual_era_loop(
                            low,
                            incoming,
                            conversation,
                            lifespan_state=attachment,
                            init_options=options,
                        )
        finally:
            # The transport ends when nobody can write any more.
            await write.aclose()
            finished.set()


async def _answer_discovery(
    server: MCPServer[Attachment],
    attachment: Attachment,
    messages: Messages,
    conversation: Conversation,
) -> SessionMessage | None:
    """Answer leading `server/discover` requests without letting them choose the protocol era.

    The SDK binds a connection to the era of its first request; clients exist that probe with
    `server/discover` and then send `initialize` (anthropics/claude-code#96183).

    Returns:
        The first other request; None when the client left.
    """
    async for item in messages:
        if not isinstance(item.message, JSONRPCRequest):
            continue
        if item.message.method != "server/discover":
            return item
        await _answer_alone(server, attachment, item, conversation)
    return None


async def _answer_alone(
    server: MCPServer[Attachment],
    attachment: Attachment,
    item: SessionMessage,
    conversation: Conversation,
) -> None:
    low = server._lowlevel_server  # pyright: ignore[reportPrivateUsage]  # noqa: SLF001  # no public way
    send, receive = create_context_streams[SessionMessage | Exception](1)
    answer_send, answer_receive = create_context_streams[SessionMessage](1)

    async def serve() -> None:
        await serve_dual_era_loop(low, receive, answer_send, lifespan_state=attachment)

    async with anyio.create_task_group() as tasks, send, answer_receive:
        tasks.start_soon(serve)
        await send.send(item)
        await conversation.send(await answer_receive.receive())
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def _resumed(opening: SessionMessage, messages: Messages) -> AsyncGenerator[Incoming]:
    """Give the opening request back to the stream it was read from."""
    send, receive = create_context_streams[SessionMessage | Exception](0)

    async def relay() -> None:
        async with send:
            await send.send(opening)
            async for item in messages:
                await send.send(item)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(relay)
        yield receive
        tasks.cancel_scope.cancel()
