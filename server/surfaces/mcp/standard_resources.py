"""Standards as resources, found by their names in the files there are."""

from typing import TYPE_CHECKING

from mcp.server import MCPServer
from mcp.server.mcpserver import ResourceSecurity
from mcp.types import Annotations, Resource

from server.late import Late
from server.surfaces.mcp.attachment import Attachment
from server.surfaces.mcp.audience import Audience
from server.surfaces.mcp.notices import standard_uri, standards_changed
from server.surfaces.mcp.toolset import Ctx, resource_refusals, use_case

if TYPE_CHECKING:
    from server.standards import catalogue, folder, projects
    from server.standards.shapes import IndexReport, StandardSummary
    from server.work import Place, Work
else:
    catalogue = Late("server.standards.catalogue")
    folder = Late("server.standards.folder")
    projects = Late("server.standards.projects")

MARKDOWN = "text/markdown"
# They are compared with the names of the files there are, and are never a path.
NAMES = ResourceSecurity(exempt_params=frozenset({"domain", "topic"}))
FOR_AGENTS = Annotations(audience=["assistant"], priority=0.6)


def add_standard_resources(server: MCPServer[Attachment]) -> None:
    @server.resource(
        "standard://{domain}/{topic}",
        name="standard",
        title="Standard",
        mime_type=MARKDOWN,
        annotations=FOR_AGENTS,
        security=NAMES,
    )
    async def standard(domain: str, topic: str, ctx: Ctx) -> str:
        """What this team does in one matter, as the file is now."""
        with resource_refusals():
            async with use_case(ctx) as work:
                return (await catalogue.read_standard(work, domain, topic)).text


async def list_standards(
    work: "Work", *, cursor: str | None, limit: int
) -> tuple[list[Resource], str | None]:
    """List a page of standards, and where the next one begins. Without a project there are none."""
    try:
        listing = await catalogue.list_standards(work, limit=limit, cursor=cursor)
    except (projects.NoProject, projects.StandardsOutside):
        return [], None
    # A topic of two layers is one resource.
    listed = {resource.uri: resource for resource in map(_listed, listing.standards)}
    return [*listed.values()], listing.next_cursor


async def complete(work: "Work", typed: str, limit: int, *, domain: str | None) -> list[str]:
    """Complete a domain, or with `domain` the topic in it."""
    try:
        return await catalogue.standards_starting_with(work, typed, limit, domain=domain)
    except (projects.NoProject, projects.StandardsOutside):
        return []


async def tell_indexed(audience: Audience, place: "Place", report: "IndexReport") -> None:
    """Tell clients of the files that an index run found changed or gone."""
    if shown := [*report.changed, *report.removed]:
        await standards_changed(audience, [_uri_of(place, file) for file in shown])


def _uri_of(place: "Place", shown: str) -> str:
    """Find the resource of a file by the path that people are shown."""
    roots = (place.standards.relative_to(place.root).as_posix(), "languages", "universal")
    above = next(root for root in roots if shown.startswith(f"{root}/"))
    file = folder.file_at(place, "project", shown.removeprefix(f"{above}/"))
    return standard_uri(file.domain, file.topic)


def _listed(standard: "StandardSummary") -> Resource:
    return Resource(
        uri=standard_uri(standard.domain, standard.topic),
        name=f"standard {standard.domain}/{standard.topic}",
        title=standard.title,
        mime_type=MARKDOWN,
        annotations=FOR_AGENTS,
    )
