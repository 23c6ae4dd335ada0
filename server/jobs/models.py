"""Runs a job on a model: streams its answer, lets it call tools, and keeps to what it may spend."""

import math
from dataclasses import dataclass, field

import anyio
from opentelemetry.trace import TracerProvider
from pydantic_ai import (
    Agent,
    AgentRun,
    CallToolsNode,
    ModelRequestNode,
    RunContext,
    UsageLimits,
)
from pydantic_ai.capabilities import Instrumentation
from pydantic_ai.messages import AgentStreamEvent
from pydantic_ai.models import Model
from pydantic_ai.models.instrumented import InstrumentationSettings
from pydantic_ai.settings import ModelSettings

from server.jobs.model_choice import ModelConfig, key_of, model_of, price_of
from server.jobs.model_failures import in_our_words, readable
from server.jobs.model_progress import ModelProgress
from server.jobs.model_requests import Request, piece_of
from server.jobs.model_spending import Allowance
from server.jobs.model_tools import ToolCalls
from server.jobs.running import Outcome, Reporting, RunFailed, RunJob, Runner, RunTimedOut
from server.jobs.tooling import Toolbox
from server.markdown import tokens
from server.settings import quiet_libraries

# A model that still asks after so many answers is going round in circles.
MOST_REQUESTS = 40
# How often a model may call a tool with arguments that do not fit, or say nothing at all.
RETRIES = 2
# What a cancelled run has spent is still written down, but who cancels does not wait for long.
ACCOUNTING_S = 2
CUT_OFF = "\n\n[The answer ends here: the limit of output tokens, of the model or of the run, is reached.]"


def model_runner(config: ModelConfig, toolbox: Toolbox) -> Runner:
    """Make the runner of jobs on models, with this worker's key and price."""
    quiet_libraries()

    async def run(job: RunJob, reporting: Reporting) -> Outcome:
        key = key_of(job, config)
        model = model_of(job.model, job.model_url, key, own_url=config.url)
        allowance = Allowance.of(job, price_of(job, config, model))
        progress = ModelProgress(reporting)
        calls = ToolCalls(job.attempt, progress)
        running = _Run(job, reporting, allowance, calls, progress, key, config.silence_s)
        agent = Agent(
            model,
            name=job.persona,
            instructions=job.prompt,
            tools=[calls.offer(tool) for tool in toolbox(job)],
            retries=RETRIES,
            model_settings=running.settings,
            capabilities=[_spans(config.tracers)] if config.tracers else [],
        )
        with in_our_words(key):
            return await running.watched(model, agent)

    return run


def _spans(tracers: TracerProvider) -> Instrumentation:
    return Instrumentation(
        settings=InstrumentationSettings(tracer_provider=tracers, include_content=False)
    )


@dataclass(slots=True)
class _Run:
    """A run under way.

    Attributes:
        watch: ends the run when the model is silent for too long.
        context: about how many tokens the next request sends.
        written: whether there is text already.
    """

    job: RunJob
    reporting: Reporting
    allowance: Allowance
    calls: ToolCalls
    progress: ModelProgress
    key: str | None
    silence_s: float
    watch: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    context: int = 0
    written: bool = False

    async def watched(self, model: Model, agent: Agent[None, str]) -> Outcome:
        """Run, until the model is silent for too long.

        Raises:
            AgentRunError: what the library makes of a failure.
        """
        asked = tokens(self.job.prompt) + tokens(self.job.request)
        self.context = asked + self.calls.take_tokens()
        with self.watch:
            # Entered, the model closes its connections in the end.
            async with model:
                return await self._converse(agent)
        raise self._silent()

    def settings(self, _: RunContext[object]) -> ModelSettings:
        """Say how the next request is made."""
        # Our queue tries again, and counts it.
        settings = ModelSettings(max_retries=0)
        most = self.allowance.most_output(self.context)
        if most is not None:
            settings["max_tokens"] = most
        return settings

    async def _converse(self, agent: Agent[None, str]) -> Outcome:
        await self.progress.asking(self.job.model)
        limits = UsageLimits(request_limit=MOST_REQUESTS)
        async with agent.iter(self.job.request, usage_limits=limits) as run:
            async for node in run:
                if Agent.is_model_request_node(node):
                    await self._ask(node, run)
                elif Agent.is_call_tools_node(node):
                    await self._call_tools(node, run)
        assert run.result is not None
        text = run.result.output
        if not text.strip():
            raise RunFailed("The model answered with nothing but blanks.")
        if run.result.response.finish_reason == "length":
            text += CUT_OFF
            await self.reporting.text(CUT_OFF)
        spent = self.allowance
        return Outcome(
            text, spent.input_tokens, spent.output_tokens, spent.usd, estimated=spent.estimated
        )

    async def _ask(self, node: ModelRequestNode[None, str], run: AgentRun[None, str]) -> None:
        """Send one request, and account for it however it ends."""
        request = Request(self.context)
        self.allowance.check(request.estimate())
        try:
            with in_our_words(self.key), readable():
                await self._listen(node, run, request)
        except RunFailed as error:
            request.fail(error)
            raise
        finally:
            self.watch.deadline = math.inf
            with anyio.move_on_after(ACCOUNTING_S, shield=True):
                await self._account(request)

    async def _listen(
        self, node: ModelRequestNode[None, str], run: AgentRun[None, str], request: Request
    ) -> None:
        self._heard()
        async with node.stream(run.ctx) as stream:
            async for event in stream:
                self._heard()
                await self._take(event, request)
        request.end(stream.response)

    def _heard(self) -> None:
        self.watch.deadline = anyio.current_time() + self.silence_s

    def _silent(self) -> RunTimedOut:
        return RunTimedOut(f"The model said nothing for {self.silence_s:g} seconds.")

    async def _take(self, event: AgentStreamEvent, request: Request) -> None:
        piece, kind = piece_of(event)
        request.add(piece)
        if kind == "text" and piece:
            # What it said before it called a tool stands apart.
            gap = "\n\n" if self.written and not request.written else ""
            self.written = request.written = True
            await self.reporting.text(gap + piece)
            await self.progress.writing(request.drafted)
        elif kind == "thought":
            await self.progress.thinking()
        self.allowance.check(request.estimate())

    async def _call_tools(self, node: CallToolsNode[None, str], run: AgentRun[None, str]) -> None:
        """Do what the model asked for; tools may take their time."""
        before = self.progress.calls
        async with node.stream(run.ctx) as events:
            async for event in events:
                await self.calls.overhear(event)
        self.context += self.calls.take_tokens()
        if self.progress.calls > before:
            await self.progress.thinking()

    async def _account(self, request: Request) -> None:
        if self.watch.cancel_called:
            request.fail(self._silent())
        used, estimated = request.used()
        # What it thought unseen is not sent again.
        self.context = used.total_tokens - used.output_reasoning_tokens or self.context
        spent = self.allowance
        spent.add(used, estimated=estimated)
        await self.reporting.spent(
            input_tokens=spent.input_tokens,
            output_tokens=spent.output_tokens,
            usd=spent.usd,
            estimated=spent.estimated,
            by=request.step(self.job, estimated=estimated),
        )
