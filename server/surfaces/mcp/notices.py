"""Change notices, in both protocol eras.

Clients of 2026-07-28 listen on a stream that the SDK serves. Older ones are told on their own
connection: of a resource when they have subscribed to it, of the listing always.
"""

from urllib.parse import quote

from mcp.server import MCPServer
from mcp.types import EmptyResult, SubscribeRequestParams, UnsubscribeRequestParams

from server.surfaces.mcp.attachment import Attachment
from server.surfaces.mcp.toolset import Ctx, Request

FIRST_LISTENING_VERSION = "2026-07-28"


def persona_uris(slug: str) -> tuple[str, ...]:
    persona = f"persona://{slug}"
    return (
        persona,
        f"{persona}/skill.md",
        f"{persona}/experience.md",
        f"skill://personas/{slug}/SKILL.md",
    )


def active_spec_uri(slug: str) -> str:
    return f"persona://{slug}/spec"


def role_uri(name: str) -> str:
    return f"role://{quote(name.strip().lower(), safe='')}"


async def listing_changed(ctx: Ctx, role: str) -> None:
    """Tell that a persona of `role` came, went or has another name."""
    await ctx.notify_resources_changed()
    if _is_older(ctx):
        await ctx.session.send_resource_list_changed()
    await _updated(ctx, role_uri(role))


async def persona_changed(ctx: Ctx, slug: str) -> None:
    for uri in persona_uris(slug):
        await _updated(ctx, uri)


async def spec_stored(ctx: Ctx, slug: str, version: str) -> None:
    """Tell that a version is there, for whoever waits for it: a version there is never changes."""
    await _updated(ctx, f"persona://{slug}/specs/{version}")


async def spec_published(ctx: Ctx, slug: str) -> None:
    await _updated(ctx, active_spec_uri(slug))


async def _updated(ctx: Ctx, uri: str) -> None:
    await ctx.notify_resource_updated(uri)
    if _is_older(ctx) and uri in ctx.request_context.lifespan_context.subscribed:
        await ctx.session.send_resource_updated(uri)


def serve_subscriptions(server: MCPServer[Attachment]) -> None:
    """Serve `resources/subscribe`, which the SDK leaves out for older clients."""

    async def subscribe(ctx: Request, params: SubscribeRequestParams) -> EmptyResult:
        ctx.lifespan_context.subscribed.add(str(params.uri))
        return EmptyResult()

    async def unsubscribe(ctx: Request, params: UnsubscribeRequestParams) -> EmptyResult:
        ctx.lifespan_context.subscribed.discard(str(params.uri))
        return EmptyResult()

    low = server._lowlevel_server  # pyright: ignore[reportPrivateUsage]  # noqa: SLF001  # no public way
    low.add_request_handler("resources/subscribe", SubscribeRequestParams, subscribe)
    low.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, unsubscribe)


def _is_older(ctx: Ctx) -> bool:
    return (ctx.protocol_version or "") < FIRST_LISTENING_VERSION
