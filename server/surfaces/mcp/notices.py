"""Which resources a change is a change of, for whoever wants to hear of it."""

from collections.abc import Iterable
from urllib.parse import quote

from mcp.server import MCPServer
from mcp.types import EmptyResult, SubscribeRequestParams, UnsubscribeRequestParams

from server.surfaces.mcp.attachment import Attachment
from server.surfaces.mcp.audience import Audience
from server.surfaces.mcp.toolset import Ctx, Request


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


def standard_uri(domain: str, topic: str) -> str:
    return f"standard://{quote(domain, safe='')}/{quote(topic, safe='')}"


async def listing_changed(ctx: Ctx, role: str) -> None:
    """Tell that a persona of `role` came, went or has another name."""
    await _audience(ctx).listing_changed()
    await _audience(ctx).updated(role_uri(role))


async def persona_changed(ctx: Ctx, slug: str) -> None:
    for uri in persona_uris(slug):
        await _audience(ctx).updated(uri)


async def spec_stored(ctx: Ctx, slug: str, version: str) -> None:
    """Tell that a version is there, for whoever waits for it: a version there is never changes."""
    await _audience(ctx).updated(f"persona://{slug}/specs/{version}")


async def spec_published(ctx: Ctx, slug: str) -> None:
    await _audience(ctx).updated(active_spec_uri(slug))


async def standard_written(ctx: Ctx, domain: str, topic: str) -> None:
    await standards_changed(_audience(ctx), [standard_uri(domain, topic)])


async def standards_changed(audience: Audience, uris: Iterable[str]) -> None:
    """Tell of each, and of the listing, which has the titles that stand in the files."""
    await audience.listing_changed()
    for uri in uris:
        await audience.updated(uri)


def serve_subscriptions(server: MCPServer[Attachment]) -> None:
    """Serve `resources/subscribe`, which the SDK leaves out for older clients."""

    async def subscribe(ctx: Request, params: SubscribeRequestParams) -> EmptyResult:
        ctx.lifespan_context.audience.subscribed.add(str(params.uri))
        return EmptyResult()

    async def unsubscribe(ctx: Request, params: UnsubscribeRequestParams) -> EmptyResult:
        ctx.lifespan_context.audience.subscribed.discard(str(params.uri))
        return EmptyResult()

    low = server._lowlevel_server  # pyright: ignore[reportPrivateUsage]  # noqa: SLF001  # no public way
    low.add_request_handler("resources/subscribe", SubscribeRequestParams, subscribe)
    low.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, unsubscribe)


def _audience(ctx: Ctx) -> Audience:
    return ctx.request_context.lifespan_context.audience
