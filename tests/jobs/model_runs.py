"""Runs jobs on the model server of the tests, and collects what they tell."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast
from uuid import UUID

import anyio
from pydantic import SecretStr

from server.jobs.model_choice import ModelConfig
from server.jobs.models import model_runner
from server.jobs.running import Outcome, RunJob
from server.jobs.shapes import Phase, Step
from server.jobs.tooling import RunTool, ToolAnswer
from server.work import PERSONA_SCOPES, App, Caller
from tests.jobs.model_server import ModelServer

KEY = SecretStr("sk-worker-0123456789")


@dataclass
class Told:
    """Collects what a run reports.

    Attributes:
        wrote: set at the first text.
    """

    progressed: list[tuple[Phase, int, str]] = field(default_factory=list[tuple[Phase, int, str]])
    texts: list[str] = field(default_factory=list[str])
    steps: list[Step] = field(default_factory=list[Step])
    spends: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    wrote: anyio.Event = field(default_factory=anyio.Event)

    async def progress(self, phase: Phase, percent: int, message: str) -> None:
        self.progressed.append((phase, percent, message))

    async def text(self, more: str) -> None:
        self.texts.append(more)
        self.wrote.set()

    async def step(self, step: Step) -> None:
        self.steps.append(step)

    async def spent(
        self,
        *,
        input_tokens: int,
        output_tokens: int,
        usd: float | None,
        estimated: bool = False,
        by: Step | None = None,
    ) -> None:
        self.spends.append(
            {"in": input_tokens, "out": output_tokens, "usd": usd, "estimated": estimated}
        )
        if by is not None:
            self.steps.append(by)


JOB = RunJob(
    id=UUID(int=7),
    attempt=1,
    persona="architect",
    prompt="You are the architect.",
    request="Review the queue.",
    model="played",
    model_url=None,
    tokens_limit=10_000,
    usd_limit=None,
    place=None,
    # No model needs a database; tools that do are tested with one.
    app=cast("App", None),
    caller=Caller("agent", "architect", 1, PERSONA_SCOPES),
)


async def search_standards(queries: list[str], limit: int = 5) -> ToolAnswer:
    return ToolAnswer(f"{limit} hits for {', '.join(queries)}", {"standards": ["api.md"]})


SEARCH = RunTool("search_standards", "Find passages.", search_standards)


async def run(
    server: ModelServer,
    told: Told | None = None,
    tools: Sequence[RunTool] = (),
    config: ModelConfig | None = None,
    **job: Any,
) -> Outcome:
    mine = config or ModelConfig(silence_s=5)
    runner = model_runner(mine, lambda _: tools)
    with anyio.fail_after(10):
        return await runner(replace(JOB, model_url=server.url, **job), told or Told())
