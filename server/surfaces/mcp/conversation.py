"""What a client says and hears over a pair of streams, such that it hears an answer to all it asks."""

from collections.abc import AsyncGenerator
from typing import Self

import anyio
from mcp.shared._context_streams import ContextReceiveStream, ContextSendStream
from mcp.shared.jsonrpc_dispatcher import cancelled_request_id_from_params
from mcp.shared.message import SessionMessage
from mcp.types import (
    INVALID_REQUEST,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
)
from pydantic import ValidationError

from server.surfaces.mcp.unreadable import refused

Incoming = ContextReceiveStream[SessionMessage | Exception]
Outgoing = ContextSendStream[SessionMessage]

# SPEC 3.6 has every answer within 10 seconds, also for whoever closes input after the last request.
LEAVING_S = 10
NO_REQUEST = JSONRPCError(
    jsonrpc="2.0",
    id=None,
    error=ErrorData(
        code=INVALID_REQUEST, message="invalid: The id of a request is a text or a whole number."
    ),
)


class Conversation:
    """The server's side of both streams. What is written goes through it, as a `WriteStream`.

    The SDK drops what it cannot read, and cancels what it works on when input ends: a client would
    wait for ever for the one, and lose the other.

    Attributes:
        over: set when nothing is read any more, nor waited for.
    """

    def __init__(self, read: Incoming, write: Outgoing, *, leaving_s: float = LEAVING_S) -> None:
        self._read = read
        self._write = write
        self._leaving_s = leaving_s
        self.over = anyio.Event()
        self._unanswered: set[RequestId | None] = set()
        self._answered = anyio.Event()

    async def messages(self) -> AsyncGenerator[SessionMessage]:
        """Yield what can be read. It ends when input has, and requests are answered or given up."""
        async for item in self._read:
            if isinstance(item, SessionMessage):
                if _is_no_notice(item.message):
                    await self._write.send(SessionMessage(NO_REQUEST))
                    continue
                self._note(item.message)
                yield item
                continue
            assert isinstance(item, ValidationError)
            refusal = refused(item)
            if refusal is None:
                continue
            if refusal.answers_us:
                yield SessionMessage(refusal.message)
            else:
                await self._write.send(SessionMessage(refusal.message))
        with anyio.move_on_after(self._leaving_s):
            while self._unanswered:
                self._answered = anyio.Event()
                await self._answered.wait()
        self.over.set()

    async def send(self, item: SessionMessage, /) -> None:
        await self._write.send(item)
        if isinstance(item.message, JSONRPCResponse | JSONRPCError):
            self._settle(item.message.id)

    async def aclose(self) -> None:
        await self._write.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, exc_type: object, exc_val: object, exc_tb: object) -> None:
        await self.aclose()

    def _note(self, message: JSONRPCMessage) -> None:
        match message:
            # That one is answered when it ends, and it ends with the connection.
            case JSONRPCRequest(method=method, id=number) if method != "subscriptions/listen":
                self._unanswered.add(number)
            case JSONRPCNotification(method="notifications/cancelled", params=params):
                self._settle(cancelled_request_id_from_params(params))
            case _:
                pass

    def _settle(self, number: RequestId | None) -> None:
        self._unanswered.discard(number)
        self._answered.set()


def _is_no_notice(message: JSONRPCMessage) -> bool:
    """Tell a request from a notification, for which the SDK takes one whose id it cannot use."""
    is_notice = isinstance(message, JSONRPCNotification)
    return is_notice and not message.method.startswith("notifications/")
