"""Hands our tools to the model library, and records each call."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import wraps
from time import perf_counter
from typing import Any

from pydantic import JsonValue
from pydantic_ai import Tool, ToolFailed
from pydantic_core import to_jsonable_python

from server.errors import DramatisError
from server.jobs.model_progress import ModelProgress
from server.jobs.shapes import Step
from server.jobs.tooling import RunTool, ToolAnswer
from server.markdown import tokens

ARGUMENT_SHOWN = 200


@dataclass(slots=True)
class ToolCalls:
    """The calls of a run."""

    attempt: int
    progress: ModelProgress
    _tokens: int = 0

    def take_tokens(self) -> int:
        """About how many tokens their answers add to the next request, since this was last asked."""
        taken, self._tokens = self._tokens, 0
        return taken

    def offer(self, tool: RunTool) -> Tool:
        # The library reads the arguments' schema off the function that is wrapped.
        @wraps(tool.function)
        async def call(**arguments: Any) -> str:
            await self.progress.calling(tool.name, arguments)
            return await self._record(tool, arguments)

        return Tool(call, takes_ctx=False, name=tool.name, description=tool.description)

    async def _record(self, tool: RunTool, arguments: Mapping[str, Any]) -> str:
        began, start = datetime.now(UTC), perf_counter()
        error, answer = "It did not finish.", ToolAnswer("")
        try:
            given = await tool.function(**arguments)
            answer = ToolAnswer(given) if isinstance(given, str) else given
            error = None
        except DramatisError as refusal:
            # Told as a failure that is final, it is not taken for a reason to try the same again.
            error = str(refusal)
            raise ToolFailed(error) from refusal
        finally:
            self._tokens += tokens(error or answer.text)
            step = Step(
                attempt=self.attempt,
                kind="tool",
                name=tool.name,
                began_at=began,
                duration_ms=1000 * (perf_counter() - start),
                error=error,
                details={"arguments": shortened(arguments), **answer.details},
            )
            await self.progress.reporting.step(step)
        return answer.text


def shortened(arguments: Mapping[str, Any]) -> dict[str, JsonValue]:
    """Keep of long texts how they begin."""
    return {name: _shortened(to_jsonable_python(value)) for name, value in arguments.items()}


def _shortened(value: JsonValue) -> JsonValue:
    match value:
        case str() if len(value) > ARGUMENT_SHOWN:
            return f"{value[: ARGUMENT_SHOWN - 1]}…"
        case list():
            return [_shortened(one) for one in value]
        case dict():
            return {name: _shortened(one) for name, one in value.items()}
        case _:
            return value
