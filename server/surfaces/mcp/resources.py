"""Personas and roles as resources, and the listing and completion of every kind of resource."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from mcp import MCPError
from mcp.server import MCPServer
from mcp.server.mcpserver import ResourceSecurity
from mcp.server.mcpserver.exceptions import ResourceNotFoundError
from mcp.types import (
    INVALID_PARAMS,
    Annotations,
    CompleteRequestParams,
    CompleteResult,
    Completion,
    ListResourcesResult,
    PaginatedRequestParams,
    PromptReference,
    Resource,
)

from server.late import Late
from server.surfaces.mcp import standard_resources as standards
from server.surfaces.mcp.attachment import Attachment
from server.surfaces.mcp.notices import persona_uris, role_uri
from server.surfaces.mcp.spec_resources import SCHEMA
from server.surfaces.mcp.toolset import (
    Ctx,
    Request,
    protocol_refusals,
    resource_refusals,
    use_case,
)

if TYPE_CHECKING:
    from server.personas import files, listing, queries
    from server.personas.shapes import PersonaSummary, Role
    from server.specs import queries as specs
    from server.work import Work
else:
    files = Late("server.personas.files")
    listing = Late("server.personas.listing")
    queries = Late("server.personas.queries")
    specs = Late("server.specs.queries")

PAGE = 50
COMPLETIONS = 100
MARKDOWN = "text/markdown"
# A role's name is looked up in the database and is never a path.
ROLE_NAME = ResourceSecurity(exempt_params=frozenset({"name"}))


def add_resources(server: MCPServer[Attachment]) -> None:
    @server.resource(
        "persona://{slug}", name="persona", title="Persona", mime_type="application/json"
    )
    async def persona(slug: str, ctx: Ctx) -> str:
        """A persona: role, description, status, and the state of its files."""
        with resource_refusals():
            async with use_case(ctx) as work:
                return (await queries.persona_at(work, slug)).model_dump_json(indent=2)

    @server.resource(
        "persona://{slug}/skill.md",
        name="persona_skill",
        title="Skill",
        mime_type=MARKDOWN,
        annotations=Annotations(audience=["assistant"], priority=0.8),
    )
    async def skill(slug: str, ctx: Ctx) -> str:
        """Who a persona is and how it works."""
        with resource_refusals():
            async with use_case(ctx) as work:
                return await files.read_at(work, slug, "skill.md")

    @server.resource(
        "persona://{slug}/experience.md",
        name="persona_experience",
        title="Experience",
        mime_type=MARKDOWN,
        annotations=Annotations(audience=["assistant"], priority=0.5),
    )
    async def experience(slug: str, ctx: Ctx) -> str:
        """What a persona has learned, newest first."""
        with resource_refusals():
            async with use_case(ctx) as work:
                return await files.read_at(work, slug, "experience.md")

    @server.resource(
        "role://{name}",
        name="role",
        title="Role",
        mime_type="application/json",
        security=ROLE_NAME,
    )
    async def role(name: str, ctx: Ctx) -> str:
        """A role and its personas."""
        with resource_refusals():
            async with use_case(ctx) as work:
                looked_up = await listing.lookup_role(work, name)
        if not looked_up.found:
            nearest = f" Did you mean {', '.join(looked_up.nearest)}?" if looked_up.nearest else ""
            raise ResourceNotFoundError(f"No role is called {name!r}.{nearest}")
        return looked_up.model_dump_json(indent=2)

    _serve_listing(server)
    _serve_completions(server)


def _serve_listing(server: MCPServer[Attachment]) -> None:
    async def list_resources(
        ctx: Request, params: PaginatedRequestParams | None
    ) -> ListResourcesResult:
        """List one kind after the other, a page at a time. The cursor says which, and how far."""
        kind, _, cursor = ((params and params.cursor) or "personas:").partition(":")
        if kind not in _PAGES:
            raise MCPError(code=INVALID_PARAMS, message="invalid: cursor: is not one of ours.")
        with protocol_refusals():
            async with use_case(ctx) as work:
                return await _PAGES[kind](work, cursor)

    low = server._lowlevel_server  # pyright: ignore[reportPrivateUsage]  # noqa: SLF001  # no public way
    low.add_request_handler("resources/list", PaginatedRequestParams, list_resources)


async def _personas(work: "Work", cursor: str) -> ListResourcesResult:
    page = await listing.list_personas(work, limit=PAGE, cursor=cursor or None)
    return ListResourcesResult(
        resources=[resource for persona in page.personas for resource in _listed(persona)],
        next_cursor=f"personas:{page.next_cursor}" if page.next_cursor else "roles:",
    )


async def _roles(work: "Work", cursor: str) -> ListResourcesResult:
    roles = await listing.list_roles(work, after=cursor, limit=PAGE)
    more = len(roles) == PAGE
    return ListResourcesResult(
        resources=[*map(_listed_role, roles)],
        next_cursor=f"roles:{roles[-1].name}" if more else "standards:",
    )


async def _standards(work: "Work", cursor: str) -> ListResourcesResult:
    found, following = await standards.list_standards(work, cursor=cursor or None, limit=PAGE)
    return ListResourcesResult(
        resources=found if following else [*found, SCHEMA],
        next_cursor=f"standards:{following}" if following else None,
    )


_PAGES: dict[str, Callable[["Work", str], Awaitable[ListResourcesResult]]] = {
    "personas": _personas,
    "roles": _roles,
    "standards": _standards,
}


def _serve_completions(server: MCPServer[Attachment]) -> None:
    async def complete(ctx: Request, params: CompleteRequestParams) -> CompleteResult:
        with protocol_refusals():
            async with use_case(ctx) as work:
                hits = await _completed(work, params)
        return CompleteResult(
            completion=Completion(values=hits[:COMPLETIONS], has_more=len(hits) > COMPLETIONS)
        )

    low = server._lowlevel_server  # pyright: ignore[reportPrivateUsage]  # noqa: SLF001  # needs the request
    low.add_request_handler("completion/complete", CompleteRequestParams, complete)


async def _completed(work: "Work", params: CompleteRequestParams) -> list[str]:
    argument = params.argument
    prompt = params.ref.name if isinstance(params.ref, PromptReference) else ""
    uri = "" if isinstance(params.ref, PromptReference) else params.ref.uri
    chosen = (params.context and params.context.arguments) or {}
    if (argument.name == "persona" and prompt == "become_persona") or (
        argument.name == "slug" and uri.startswith(("persona://", "skill://"))
    ):
        return await listing.slugs_starting_with(work, argument.value, COMPLETIONS + 1)
    if argument.name == "name" and uri.startswith("role://"):
        return await listing.roles_starting_with(work, argument.value, COMPLETIONS + 1)
    if argument.name == "version" and uri.startswith("persona://"):
        slug = chosen.get("slug", "")
        return await specs.versions_starting_with(work, slug, argument.value, COMPLETIONS + 1)
    if argument.name in ("domain", "topic") and (
        prompt == "propose_standard" or uri.startswith("standard://")
    ):
        domain = None if argument.name == "domain" else chosen.get("domain", "")
        return await standards.complete(work, argument.value, COMPLETIONS + 1, domain=domain)
    return []


def _listed(persona: "PersonaSummary") -> list[Resource]:
    who = f"{persona.name}, {persona.role}"
    about, skill, experience, _ = persona_uris(persona.slug)
    return [
        Resource(uri=about, name=persona.slug, title=who, mime_type="application/json"),
        Resource(
            uri=skill, name=f"{persona.slug} skill", title=f"Skill of {who}", mime_type=MARKDOWN
        ),
        Resource(
            uri=experience,
            name=f"{persona.slug} experience",
            title=f"Experience of {who}",
            mime_type=MARKDOWN,
        ),
    ]


def _listed_role(role: "Role") -> Resource:
    return Resource(
        uri=role_uri(role.name),
        name=f"role {role.name}",
        title=f"{role.label} ({role.persona_count})",
        mime_type="application/json",
    )
