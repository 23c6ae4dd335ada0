"""What tools accept, said strictly and shortly.

The SDK ignores unknown arguments, turns text that looks like JSON into data where an argument
may be null, and publishes a title for every field, for which every model pays.
"""

from functools import cache
from typing import Annotated, Any, TypeGuard

from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.server.mcpserver.utilities.func_metadata import FuncMetadata
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from server.errors import refused
from server.personas.shapes import Reference
from server.surfaces.mcp.toolset import said

# Models send the number they read as `id`, and null for what they leave out.
Who = Annotated[
    Reference,
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
    Field(description="Slug, id, name or unambiguous part of a name."),
]
OrNothing = BeforeValidator(lambda value: "" if value is None else value)


class Arguments(FuncMetadata):
    """Takes text as text, so that a description of `null` stays what it is; knows what is known."""

    def validate_arguments(self, arguments_to_validate: dict[str, Any]) -> dict[str, Any]:
        _forbid_unknown(self.arg_model)
        return super().validate_arguments(arguments_to_validate)

    def pre_parse_json(self, data: dict[str, Any]) -> dict[str, Any]:
        return data


def make_strict(tool: Tool) -> None:
    """Forbid unknown arguments and drop the titles from the published schemas."""
    tool.parameters = _without_titles(tool.parameters) | {"additionalProperties": False}
    output_schema = tool.fn_metadata.output_schema
    tool.fn_metadata = Arguments(
        arg_model=tool.fn_metadata.arg_model,
        output_model=tool.fn_metadata.output_model,
        output_schema=_without_titles(output_schema) if output_schema is not None else None,
        wrap_output=tool.fn_metadata.wrap_output,
    )


@cache
def _forbid_unknown(model: type[BaseModel]) -> None:
    """Rebuild a validator at its first use: all of them at start take as long as the database."""
    model.model_config["extra"] = "forbid"
    model.model_rebuild(force=True)


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
