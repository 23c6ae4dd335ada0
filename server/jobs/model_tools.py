"""Hands our tools to the model library, and records each call."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import wraps
from time import perf_counter
from typing import Any

import anyio
from pydantic import JsonValue
from pydantic_ai import Tool, ToolFailed
from pydantic_ai.messages import (
    AgentStreamEvent,
    FunctionToolCallEvent,
    FunctionToolResultEvent,
)
from pydantic_core import to_json, to_jsonable_python

from server.errors import DramatisError
from server.jobs.model_failures import readable
from server.jobs.model_progress import ModelProgress
from server.jobs.shapes import Step
from server.jobs.tooling import RunTool, ToolAnswer
from server.markdown import tokens
from server.standards.secrets import find_secrets

ARGUMENT_SHOWN = 200
UNFIT = "No tool could take the call: its name or its arguments do not fit."
WITHHELD = "[withheld: it looks like a secret]"
# Of a run. A model may ask for hundreds at once, and every one takes a connection that the other
# runs of the worker need, too.
CALLS_AT_ONCE = 2


@dataclass(slots=True)
class ToolCalls:
    """The calls of a run."""

    attempt: int
    progress: ModelProgress
    _tokens: int = 0
    _turns: anyio.Semaphore = field(default_factory=lambda: anyio.Semaphore(CALLS_AT_ONCE))

    def take_tokens(self) -> int:
        """About how many tokens more the next request sends, since this was last asked.

        They are those of the tools that are offered, and of what calls were answered.
        """
        taken, self._tokens = self._tokens, 0
        return taken

    def offer(self, tool: RunTool) -> Tool:
        # The library reads the arguments' schema off the function that is wrapped.
        @wraps(tool.function)
        async def call(**arguments: Any) -> str:
            async with self._turns:
                await self.progress.calling(tool.name, arguments)
                return await self._record(tool, arguments)

        offered = Tool(call, takes_ctx=False, name=tool.name, description=tool.description)
        schema = offered.tool_def.parameters_json_schema
        self._tokens += tokens(tool.name + tool.description + to_json(schema).decode())
        return offered

    async def overhear(self, event: AgentStreamEvent) -> None:
        """Record a call that comes to no tool, since there is none or its arguments do not fit.

        Raises:
            RunFailed: what the model is told of it cannot be said.
        """
        match event:
            case FunctionToolCallEvent(part=call, args_valid=False):
                step = Step(
                    attempt=self.attempt,
                    kind="tool",
                    name=call.tool_name,
                    began_at=datetime.now(UTC),
                    duration_ms=0,
                    error=UNFIT,
                    details={"arguments": shortened(call.args_as_dict())},
                )
                await self.progress.reporting.step(step)
            case FunctionToolResultEvent(part=part) if part.outcome == "retried":
                with readable():
                    self._tokens += tokens(part.model_response_str())
            case _:
                pass

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
    """Keep of long texts how they begin, and of those with secrets nothing."""
    return {
        name: _shortened(name, to_jsonable_python(value, inf_nan_mode="null"))
        for name, value in arguments.items()
    }


def _shortened(name: str, value: JsonValue) -> JsonValue:
    match value:
        case str() if _reads_like_secret(name, value):
            return WITHHELD
        case str() if len(value) > ARGUMENT_SHOWN:
            return f"{value[: ARGUMENT_SHOWN - 1]}…"
        case list():
            return [_shortened(name, one) for one in value]
        case dict():
            return {name: _shortened(name, one) for name, one in value.items()}
        case _:
            return value


def _reads_like_secret(name: str, text: str) -> bool:
    # A word needs its name: it tells a digest from a key. Ends of lines may be written as in JSON.
    said = text if len(text.split()) > 1 else f"{name}: {text}"
    return bool(find_secrets(said.replace("\\n", "\n")))
