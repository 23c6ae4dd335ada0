"""What tools accept, said strictly and shortly.

The SDK ignores unknown arguments, turns text that looks like JSON into data where an argument
may be null, and publishes a title for every field, for which every model pays.
"""

from typing import Any, TypeGuard

from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.server.mcpserver.utilities.func_metadata import FuncMetadata
from pydantic import ValidationError

from server.errors import refused
from server.surfaces.mcp.toolset import said


class Arguments(FuncMetadata):
    """Takes text as text: a description of `null` or `[x]` stays what it is."""

    def pre_parse_json(self, data: dict[str, Any]) -> dict[str, Any]:
        return data


def make_strict(tool: Tool) -> None:
    """Forbid unknown arguments and drop the titles from the published schemas."""
    model = tool.fn_metadata.arg_model
    model.model_config["extra"] = "forbid"
    model.model_rebuild(force=True)
    tool.parameters = _without_titles(model.model_json_schema(by_alias=True))
    output_schema = tool.fn_metadata.output_schema
    tool.fn_metadata = Arguments(
        arg_model=model,
        output_model=tool.fn_metadata.output_model,
        output_schema=_without_titles(output_schema) if output_schema is not None else None,
        wrap_output=tool.fn_metadata.wrap_output,
    )


def readable(tool: Tool, error: ToolError) -> ToolError:
    """Put a refusal of arguments into our words; leave every other error as it is."""
    if not isinstance(error.__cause__, ValidationError):
        return error
    invalid = refused(error.__cause__, known=list(tool.fn_metadata.arg_model.model_fields))
    return ToolError(f"Error executing tool {tool.name}: {said(invalid)}")


def _without_titles(schema: Any, *, names: bool = False) -> Any:
    """Drop `title`s; inside `properties` the keys are names, and one of them may be `title`."""
    if _is_object(schema):
        return {
            key: _without_titles(value, names=not names and key in ("properties", "$defs"))
            for key, value in schema.items()
            if names or key != "title"
        }
    if isinstance(schema, list):
        return [_without_titles(item) for item in schema]  # pyright: ignore[reportUnknownVariableType]
    return schema


def _is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)
