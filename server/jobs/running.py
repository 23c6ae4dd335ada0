"""What a worker hands to a runner, and what a runner tells it back.

A runner is an async function `run(job, reporting) -> Outcome`. It is cancelled from outside, at any
await, when its job is: then whatever it reported is kept.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from server.errors import DramatisError
from server.jobs.shapes import Phase, Step
from server.work import App, Caller, Place

_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)
_FOLDERS = re.compile(r"(?<![\w/])(?:/[^\s/:'\"]+)+/")


def without_places(text: str) -> str:
    """Take addresses and folders out of what a program or a provider said: they may be private."""
    return _FOLDERS.sub("…/", _ADDRESS.sub("…", text))


class RunFailed(DramatisError):
    """The run cannot go on. Its sentence is the job's error, so it names no key and no path."""

    code = "run_failed"


class RunThrottled(RunFailed):
    """Somebody asks us to come back later: the job is tried again.

    Attributes:
        after_s: how long they asked us to wait, if they said.
    """

    code = "run_throttled"

    def __init__(self, message: str, *, after_s: float | None = None) -> None:
        super().__init__(message)
        self.after_s = after_s


class BudgetSpent(RunFailed):
    code = "budget_spent"


def budget_spent(limit: str, spending: str, *, setting: str) -> BudgetSpent:
    """Say that a run would spend more than it may.

    Args:
        limit: what it may spend, with its unit.
        spending: about how much it would.
        setting: what sets the limit.
    """
    return BudgetSpent(
        f"The run may spend {limit}, and would spend about {spending}.",
        hint=f"Give it a smaller task, or set {setting}.",
    )


class PriceUnknown(RunFailed):
    """Money is limited, and nobody knows what the run costs."""

    code = "price_unknown"


class RunTimedOut(RunFailed):
    code = "run_timed_out"


class RunnerMissing(RunFailed):
    """This worker lacks what the job's runner needs."""

    code = "runner_missing"


@dataclass(frozen=True, slots=True)
class RunJob:
    """A job that a worker has claimed.

    Attributes:
        prompt: the system prompt, compiled when the job was invoked.
        request: the task and its context, as the user's message.
        model: `provider:name`, or a name at `model_url`; empty for a command.
        place: the job's project, if it is on this machine.
        app: with the job's project, also where its files are not here: its index can be searched.
        caller: the running persona, in the job's tenant, who may propose standards and nothing else.
    """

    id: UUID
    attempt: int
    persona: str
    prompt: str
    request: str
    model: str
    model_url: str | None
    tokens_limit: int
    usd_limit: float | None
    place: Place | None
    app: App
    caller: Caller


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to; `usd` is `None` where the price is not known."""

    text: str
    input_tokens: int
    output_tokens: int
    usd: float | None
    estimated: bool = False


class Reporting(Protocol):
    """Takes what a run tells. Everything is kept, also when the run ends badly."""

    async def progress(self, phase: Phase, percent: int, message: str) -> None:
        """Say how far the run is; a lower percentage than before is ignored."""
        ...

    async def text(self, more: str) -> None:
        """Add to the partial result."""
        ...

    async def step(self, step: Step) -> None:
        """Record what was done, and count it where it is a tool call."""
        ...

    async def spent(
        self,
        *,
        input_tokens: int,
        output_tokens: int,
        usd: float | None,
        estimated: bool = False,
        by: Step | None = None,
    ) -> None:
        """Say what the run has spent so far, in all, and by which step, which is recorded."""
        ...


Runner = Callable[[RunJob, Reporting], Awaitable[Outcome]]
