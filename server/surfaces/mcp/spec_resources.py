"""Specs as resources, in the notation that people write, and the schema that they follow."""

import json
from typing import TYPE_CHECKING

from mcp.server import MCPServer
from mcp.types import Annotations, Resource

from server.late import Late
from server.surfaces.mcp.attachment import Attachment
from server.surfaces.mcp.toolset import Ctx, resource_refusals, use_case

if TYPE_CHECKING:
    from server.specs import notation, queries, schema
else:
    notation = Late("server.specs.notation")
    queries = Late("server.specs.queries")
    schema = Late("server.specs.schema")

# RFC 9512 registers `application/yaml`; clients show `text/*` and save the rest.
YAML = "text/yaml"
SCHEMA = Resource(
    uri="schema://persona-spec.json",
    name="persona_spec_schema",
    title="JSON Schema of persona specs",
    description="What a persona spec may contain. Point your editor, or whatever writes one, at it.",
    mime_type="application/schema+json",
)


def add_spec_resources(server: MCPServer[Attachment]) -> None:
    """Serve specs whatever toolsets there are: a template costs nothing until it is read."""

    @server.resource(
        SCHEMA.uri,
        name=SCHEMA.name,
        title=SCHEMA.title,
        description=SCHEMA.description,
        mime_type=SCHEMA.mime_type,
    )
    def persona_spec_schema() -> str:
        return json.dumps(schema.json_schema(), indent=2, ensure_ascii=False)

    @server.resource(
        "persona://{slug}/spec",
        name="persona_spec",
        title="Active spec",
        mime_type=YAML,
        annotations=Annotations(audience=["assistant"], priority=0.8),
    )
    async def persona_spec(slug: str, ctx: Ctx) -> str:
        """The version of its spec that a persona runs with."""
        return await _written(ctx, slug)

    @server.resource(
        "persona://{slug}/specs/{version}",
        name="persona_spec_version",
        title="Version of a spec",
        mime_type=YAML,
        annotations=Annotations(audience=["assistant"], priority=0.3),
    )
    async def persona_spec_version(slug: str, version: str, ctx: Ctx) -> str:
        """A version of a persona's spec; it never changes."""
        return await _written(ctx, slug, version)


async def _written(ctx: Ctx, slug: str, version: str | None = None) -> str:
    with resource_refusals():
        async with use_case(ctx) as work:
            return notation.as_yaml(await queries.spec_at(work, slug, version))
