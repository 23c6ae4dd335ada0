"""Tools that a running persona may call, in words that know of no model library."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from server.jobs.running import RunJob


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """What a tool tells the model.

    Attributes:
        details: what the run record says about the call, beside its arguments.
    """

    text: str
    details: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])


@dataclass(frozen=True, slots=True)
class RunTool:
    """Something a model may call.

    Attributes:
        description: read by the model, which must choose.
        function: takes keyword arguments; their annotations are the schema that the model fills in.
            A `DramatisError` is told to the model, anything else ends the run.
    """

    name: str
    description: str
    function: Callable[..., Awaitable[str | ToolAnswer]]


Toolbox = Callable[[RunJob], Sequence[RunTool]]
