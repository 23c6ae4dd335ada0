"""Whoever wants to hear of changes, also of those that no request made.

Clients of 2026-07-28 listen on a stream that the SDK serves from the bus. Older ones are told on
their own connection: of a resource when they have subscribed to it, of the listing always.
"""

from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.session import ServerSession
from mcp.server.subscriptions import ResourcesListChanged, ResourceUpdated, SubscriptionBus

FIRST_LISTENING_VERSION = "2026-07-28"


class Audience:
    """One connection's client, and everybody on the bus. Over stdio a process has one client."""

    def __init__(self, bus: SubscriptionBus) -> None:
        self._bus = bus
        self._older: ServerSession | None = None
        # Resources an older client asked to be told of.
        self.subscribed: set[str] = set()

    def join(self, request: ServerRequestContext[Any, Any]) -> None:
        """Remember how to reach an older client. Before it is initialized it is told nothing."""
        if request.method != "initialize" and request.protocol_version < FIRST_LISTENING_VERSION:
            self._older = request.session

    async def updated(self, uri: str) -> None:
        await self._bus.publish(ResourceUpdated(uri=uri))
        if self._older is not None and uri in self.subscribed:
            await self._older.send_resource_updated(uri)

    async def listing_changed(self) -> None:
        await self._bus.publish(ResourcesListChanged())
        if self._older is not None:
            await self._older.send_resource_list_changed()
