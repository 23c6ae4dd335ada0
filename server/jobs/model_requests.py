"""One request to a model: what came back so far, what it used, and what the record says of it."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter
from typing import Literal

from pydantic import JsonValue
from pydantic_ai.exceptions import ModelConnectionError, ModelHTTPError
from pydantic_ai.messages import (
    AgentStreamEvent,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
    ToolCallPartDelta,
)
from pydantic_ai.usage import RequestUsage

from server.jobs.running import RunFailed, RunJob
from server.jobs.shapes import Step, keepable
from server.markdown import BYTES_PER_TOKEN, size_bytes


@dataclass(slots=True)
class Request:
    """A request under way.

    Attributes:
        sent: about how many tokens it sends.
        written: whether text came.
        error: why it ended badly; until it ends it was interrupted.
    """

    sent: int
    written: bool = False
    error: str | None = "It was interrupted."
    _drafted_bytes: int = 0
    _used: RequestUsage | None = None
    _began: datetime = field(default_factory=lambda: datetime.now(UTC))
    _start: float = field(default_factory=perf_counter)

    @property
    def drafted(self) -> int:
        """About how many tokens came back so far."""
        return -(-self._drafted_bytes // BYTES_PER_TOKEN)

    def add(self, piece: str) -> None:
        self._drafted_bytes += size_bytes(keepable(piece))

    def estimate(self) -> RequestUsage:
        return RequestUsage(input_tokens=self.sent, output_tokens=self.drafted)

    def end(self, response: ModelResponse) -> None:
        self.error = None
        if response.usage.total_tokens:
            self._used = response.usage

    def fail(self, error: RunFailed) -> None:
        self.error = str(error)
        match error.__cause__:
            case ModelHTTPError(in_stream=False) | ModelConnectionError(phase="pool" | "connect"):
                # What was refused, or never arrived, costs nothing.
                self._used = RequestUsage()
            case _:
                pass

    def used(self) -> tuple[RequestUsage, bool]:
        """Tell what it used, and whether that is estimated.

        Usage comes last in a stream, so one that was interrupted has none.
        """
        return (self.estimate(), True) if self._used is None else (self._used, False)

    def step(self, job: RunJob, *, estimated: bool) -> Step:
        used, _ = self.used()
        details: dict[str, JsonValue] = {
            "input_tokens": used.input_tokens,
            "output_tokens": used.output_tokens,
        }
        return Step(
            attempt=job.attempt,
            kind="model",
            name=job.model,
            began_at=self._began,
            duration_ms=1000 * (perf_counter() - self._start),
            error=self.error,
            details=details | ({"estimated": True} if estimated else {}),
        )


def piece_of(event: AgentStreamEvent) -> tuple[str, Literal["text", "thought", "other"]]:
    """Take what an event adds to the answer."""
    match event:
        case PartStartEvent(part=TextPart(content=text)):
            return text, "text"
        case PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
            return text, "text"
        case PartStartEvent(part=ThinkingPart(content=text)):
            return text, "thought"
        case PartDeltaEvent(delta=ThinkingPartDelta(content_delta=text)):
            return text or "", "thought"
        case PartStartEvent(part=ToolCallPart() as call):
            return call.tool_name + call.args_as_json_str(), "other"
        case PartDeltaEvent(delta=ToolCallPartDelta(args_delta=str(text))):
            return text, "other"
        case _:
            return "", "other"
