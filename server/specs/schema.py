"""The JSON Schema of a spec, for editors and for whoever writes specs by program."""

from typing import Any

from server.specs.document import PersonaSpec

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """Describe what `read_spec` accepts, except for references between ids and lengths in bytes."""
    return {"$schema": DIALECT, **PersonaSpec.model_json_schema(mode="validation")}
