"""Write down what a run tells, as it goes, for whoever follows it and for the record."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from time import monotonic
from uuid import UUID

import anyio
from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from server.errors import Unavailable
from server.jobs.ending import Spending
from server.jobs.leases import LEASE
from server.jobs.shapes import Phase, Step, keepable
from server.work import App, Caller, Work

_log = logging.getLogger(__name__)

# Text that streams is written together for this long. What is not yet written when a worker is
# killed is lost, and a person who watches sees the text move.
TOGETHER_S = 0.25


class NotOurs(Exception):
    """The job was cancelled, or another worker has it: what this run says counts no more."""


@dataclass
class JobReporting:
    """Takes what a run tells, and writes it with the attempt it belongs to.

    While the database is away nothing is lost: it is written with what comes next. Every method
    may raise `NotOurs`, which ends the run.

    Attributes:
        before: what earlier attempts spent.
        spending: what all attempts spent.
        written: what of that is in the job's row.
    """

    app: App
    caller: Caller
    job_id: UUID
    attempt: int
    before: Spending
    lease: timedelta = LEASE
    together_s: float = TOGETHER_S
    spending: Spending = field(init=False)
    written: Spending = field(init=False)
    _phase: Phase = "initializing"
    _percent: int = 0
    _message: str = "starting"
    _more: str = ""
    _half: str = ""
    _length: int = 0
    _steps: list[Step] = field(default_factory=list[Step])
    _steps_written: int = 0
    _tool_calls: int = 0
    _unsandboxed: bool = False
    _written_at: float = 0.0
    _told: int = 0
    _kept: int = 0
    _one_at_a_time: anyio.Lock = field(default_factory=anyio.Lock)

    def __post_init__(self) -> None:
        """Begin with what was spent before."""
        self.spending = self.written = self.before

    async def progress(self, phase: Phase, percent: int, message: str) -> None:
        """Say how far the run is; a lower percentage than before is ignored."""
        self._phase, self._message = phase, keepable(message)
        self._percent = max(self._percent, min(percent, 99))
        await self._tell()

    async def text(self, more: str) -> None:
        """Add to the partial result."""
        self._told += 1
        more = self._half + more
        # The other half may come with the next piece.
        whole = more[:-1] if "\ud800" <= more[-1:] <= "\udbff" else more
        self._half = more[len(whole) :]
        self._more += keepable(whole)
        if monotonic() - self._written_at >= self.together_s:
            await self._tell()

    async def step(self, step: Step) -> None:
        """Record what was done, and count it where it is a tool call."""
        self._tool_calls += step.kind == "tool"
        self._unsandboxed |= step.name == "unsandboxed"
        self._steps.append(step)
        await self._tell()

    async def spent(
        self,
        *,
        input_tokens: int,
        output_tokens: int,
        usd: float | None,
        estimated: bool = False,
        by: Step | None = None,
    ) -> None:
        """Say what this run has spent so far, in all; that is known also when it is refused here.

        So is the step by which it was spent.
        """
        before = self.before
        cost = None if usd is None else Decimal(str(usd))
        if before.usd is not None:
            cost = before.usd + (cost or 0)
        spending = Spending(
            before.input_tokens + input_tokens,
            before.output_tokens + output_tokens,
            cost,
            before.estimated or estimated,
        )
        # A run ends with what its runner said last, as a rule.
        if spending == self.spending and by is None:
            return
        self.spending = spending
        if by is not None:
            self._steps.append(by)
        await self._tell()

    async def flush(self) -> None:
        """Write text that nothing came after for a while."""
        if self._more:
            await self._tell()

    async def write(self) -> None:
        """Write what was told and is not written yet; the lease is renewed with it.

        Raises:
            NotOurs: the job is not this run's any more.
            Unavailable: the database is away; it can be written later.
        """
        async with self._one_at_a_time:
            told, spending, more, steps = self._told, self.spending, self._more, len(self._steps)
            self._written_at = monotonic()
            async with self.app.work(self.caller) as work:
                written = await work.session.execute(_WRITE, self._values(spending, more))
                if written.first() is None:
                    raise NotOurs
                await self.write_steps(work)
            self._kept, self.written = told, spending
            self._length += len(more)
            self._more = self._more[len(more) :]
            self._steps_written += steps
            del self._steps[:steps]

    async def write_steps(self, work: Work) -> None:
        """Write the steps that are not written yet."""
        if self._steps:
            await work.session.execute(_STEP, self._rows(self._steps))

    def forget_steps(self) -> None:
        """Leave out those that cannot be written."""
        self._steps.clear()

    async def write_rest(self) -> None:
        """Write if anything is not written yet; if all is, nobody looks whose job it is."""
        if self._told > self._kept:
            await self.write()

    async def _tell(self) -> None:
        self._told += 1
        try:
            await self.write()
        except Unavailable as error:
            _log.warning("progress of job %s is not written now: %s", self.job_id, error.args[0])

    def _values(self, spending: Spending, more: str) -> dict[str, object]:
        return {
            "id": self.job_id,
            "attempt": self.attempt,
            "lease": self.lease,
            "phase": self._phase,
            "percent": self._percent,
            "message": self._message,
            "length": self._length,
            "more": more,
            "tool_calls": self._tool_calls,
            "input_tokens": spending.input_tokens,
            "output_tokens": spending.output_tokens,
            "usd": spending.usd,
            "estimated": spending.estimated,
            "unsandboxed": self._unsandboxed,
        }

    def _rows(self, steps: Sequence[Step]) -> list[dict[str, object]]:
        own = {"job_id": self.job_id, "attempt": self.attempt}
        return [
            {**step.model_dump(), **own, "number": number, "details": dict(step.details)}
            for number, step in enumerate(steps, self._steps_written + 1)
        ]


# A text by its length and steps by their numbers, so that writing again what may have been written
# before changes nothing; what an earlier attempt said stays until this one says something.
_WRITE = text("""
UPDATE dramatis.persona_jobs SET
  phase = :phase, percent = greatest(percent, :percent), message = :message,
  partial = CASE WHEN CAST(:more AS text) = '' THEN partial
    ELSE left(partial, :length) || CAST(:more AS text) END,
  tool_calls = greatest(tool_calls, :tool_calls),
  input_tokens = :input_tokens, output_tokens = :output_tokens, usd = :usd,
  spend_estimated = :estimated, unsandboxed = :unsandboxed,
  lease_until = clock_timestamp() + :lease
WHERE id = :id AND attempt = :attempt AND status = 'running' RETURNING id
""")
_STEP = text("""
INSERT INTO dramatis.job_steps
  (job_id, attempt, number, kind, name, began_at, duration_ms, error, details)
VALUES (:job_id, :attempt, :number, :kind, :name, :began_at, :duration_ms, :error, :details)
ON CONFLICT (tenant_id, job_id, attempt, number) DO NOTHING
""").bindparams(bindparam("details", type_=JSONB))
