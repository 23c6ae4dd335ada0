"""Run a job that was delivered: claim it, let its runner work, and write how it ended."""

import logging
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from time import monotonic
from uuid import UUID

import anyio
from opentelemetry import trace

from server.errors import DramatisError, Unavailable
from server.jobs import leases
from server.jobs.ending import finish_job, spend_late
from server.jobs.leases import Claimed
from server.jobs.prompting import request_of
from server.jobs.reporting import JobReporting, NotOurs
from server.jobs.running import Outcome, RunJob, Runner, RunThrottled, RunTimedOut
from server.jobs.shapes import RunnerKind, State, Step, keepable
from server.work import PERSONA_SCOPES, App, Caller, Place, Work

_log = logging.getLogger(__name__)
_tracer = trace.get_tracer("dramatis")

MOST_THROTTLES = 5
FIRST_WAIT_S = 5
LONGEST_WAIT_S = 15 * 60
PAUSE_S = 1
BROKEN = "Something in the worker broke; its log has it."

Change = Callable[[Work], Awaitable[object]]


@dataclass(slots=True)
class Run:
    """A job that this worker runs now."""

    tenant_id: int
    job: Claimed
    scope: anyio.CancelScope
    reporting: JobReporting
    lost: bool = False

    @property
    def job_id(self) -> UUID:
        return self.job.id

    @property
    def attempt(self) -> int:
        return self.job.attempt

    def stop(self) -> None:
        """End it, because it is not this worker's any more."""
        self.lost = True
        self.scope.cancel()


@dataclass(slots=True)
class Execution:
    """The jobs of one worker process.

    Attributes:
        worker: its name, for the record.
        host: of its machine, as projects name it.
        library: its folder of read-only standards.
        stopping: whether what is fetched now goes straight back into the queue.
        put_off: whether, when it last claimed, jobs waited for room, which the next end makes.
    """

    app: App
    worker: str
    host: str
    library: Path | None
    runners: Mapping[RunnerKind, Runner]
    pace: leases.Pace = field(default_factory=leases.Pace)
    stopping: bool = False
    put_off: bool = False
    running: dict[UUID, Run] = field(default_factory=dict[UUID, Run])
    last_busy: float = field(default_factory=monotonic)

    async def run(self, tenant_id: int, delivery_id: int) -> None:
        """Run the job whose turn it is, of the queue that was delivered from."""
        self.last_busy = monotonic()
        caller = self.caller(tenant_id)
        async with self.app.work(caller) as work:
            job = await leases.claim(work, delivery_id, self.worker, self.pace.lease)
        self.put_off = job is None or job.put_off
        if job is None:
            return
        with anyio.CancelScope() as scope:
            run = self._began(caller, job, scope)
            try:
                with _span(job):
                    await self._run(run)
            finally:
                if self.running.get(run.job_id) is run:
                    del self.running[run.job_id]
                self.last_busy = monotonic()

    def hand_back_all(self) -> None:
        """Put what still runs back into the queue, for another worker, and what comes yet."""
        self.stopping = True
        for run in self.running.values():
            run.scope.cancel()

    def caller(self, tenant_id: int) -> Caller:
        return Caller("operator", self.worker, tenant_id, frozenset())

    def _began(self, caller: Caller, job: Claimed, scope: anyio.CancelScope) -> Run:
        reporting = JobReporting(self.app, caller, job.id, job.attempt, job.spent, self.pace.lease)
        run = Run(caller.tenant_id, job, scope, reporting)
        if self.stopping:
            scope.cancel()
        if (earlier := self.running.get(job.id)) is not None:
            # We were given up, and have not noticed yet.
            earlier.stop()
        self.running[job.id] = run
        return run

    async def _run(self, run: Run) -> None:
        try:
            outcome = await self._outcome(run)
        except NotOurs:
            await self._account_late(run)
        except RunThrottled as error:
            await self._later(run, error)
        except DramatisError as error:
            await self._conclude(run, _end(run, "failed", error=str(error), error_code=error.code))
        except anyio.get_cancelled_exc_class():
            if run.lost:
                await self._account_late(run)
            else:
                await self._back(run, "its worker was stopped; waiting for another")
            raise
        # A job is supervised: whatever its bug, others run on, and its row says that it failed.
        except Exception:  # noqa: BLE001
            _log.exception("job %s failed", run.job_id)
            await self._conclude(
                run, _end(run, "failed", error=BROKEN, error_code="internal_error")
            )
        else:
            await self._conclude(run, _end(run, "complete", result=outcome.text))

    async def _outcome(self, run: Run) -> Outcome:
        claimed = run.job
        place, note = self._place(claimed)
        job = RunJob(
            id=claimed.id,
            attempt=claimed.attempt,
            persona=claimed.persona,
            prompt=claimed.prompt,
            request=request_of(claimed.task, claimed.context),
            model=claimed.model,
            model_url=claimed.model_url,
            tokens_limit=max(
                0, claimed.tokens_limit - claimed.input_tokens - claimed.output_tokens
            ),
            usd_limit=_left(claimed.usd_limit, claimed.usd),
            place=place,
            app=replace(self.app, tenant_id=run.tenant_id, place=place or _elsewhere(claimed)),
            caller=Caller("agent", claimed.persona, run.tenant_id, PERSONA_SCOPES),
        )
        if note is not None:
            await run.reporting.step(_note(run, note))
        outcome = None
        with anyio.move_on_after(claimed.seconds_limit):
            outcome = await self.runners[claimed.runner](job, run.reporting)
        if outcome is None:
            raise RunTimedOut(
                f"It took longer than {claimed.seconds_limit:,.0f} seconds, which is the limit.",
                hint="Ask for less at once, or raise DRAMATIS_JOB_S.",
            )
        # What is done is not given to another worker any more.
        with anyio.CancelScope(shield=True):
            await run.reporting.spent(
                input_tokens=outcome.input_tokens,
                output_tokens=outcome.output_tokens,
                usd=outcome.usd,
                estimated=outcome.estimated,
            )
        return outcome

    def _place(self, job: Claimed) -> tuple[Place | None, str | None]:
        """Find the job's project on this machine, or say why there are no file tools."""
        place = _elsewhere(job)
        if place is None:
            return None, "no_project"
        if place.host != self.host or not place.root.is_dir():
            return None, "project_not_here"
        return replace(place, library=self.library), None

    async def _later(self, run: Run, error: RunThrottled) -> None:
        said = str(error.args[0])
        wait_s = max(error.after_s or 0, FIRST_WAIT_S * 2**run.job.throttles)
        if run.job.throttles + 1 >= MOST_THROTTLES:
            said = f"{said} It was tried {MOST_THROTTLES} times."
        elif wait_s > LONGEST_WAIT_S:
            said = (
                f"{said} It would have to wait {wait_s:,.0f} seconds, and waits {LONGEST_WAIT_S:,}"
                " at most."
            )
        else:
            run_after = datetime.now(UTC) + timedelta(seconds=wait_s)
            await self._back(run, said.rstrip("."), run_after=run_after, throttled=True)
            return
        await self._conclude(run, _end(run, "failed", error=said, error_code=error.code))

    async def _back(
        self, run: Run, message: str, *, run_after: datetime | None = None, throttled: bool = False
    ) -> None:
        _trace_end("pending")
        back = partial(
            leases.hand_back,
            job_id=run.job_id,
            attempt=run.attempt,
            message=keepable(message),
            run_after=run_after,
            throttled=throttled,
        )
        await self._conclude(run, back)

    async def _conclude(self, run: Run, conclusion: Change) -> None:
        """Write what is not written yet, and how the run ended."""

        async def conclude() -> None:
            await run.reporting.write_rest()
            await self._change(run, conclusion)

        try:
            await self._insist(conclude)
        except Unavailable:
            raise
        # Something that was told cannot be written, so the job ends without it: given to another
        # worker, it would only come to the same.
        except Exception:  # noqa: BLE001
            _log.exception("the end of job %s cannot be written", run.job_id)
            run.reporting.forget_steps()
            broken = _end(run, "failed", error=BROKEN, error_code="internal_error")
            await self._insist(partial(self._change, run, broken))
        await self._account_late(run)

    async def _account_late(self, run: Run) -> None:
        """Account for what was spent after the last write that counted."""
        if run.reporting.spending == run.reporting.written:
            return
        late = run.reporting.spending.beyond(run.reporting.written)

        async def spend(work: Work) -> None:
            job = run.job
            if await spend_late(work, job.id, job.attempt, job.persona, job.spent_on, late):
                # They are what it was spent for.
                await run.reporting.write_steps(work)

        # If the database is lost just as it says that this is written, it counts twice: rather too
        # much than too little.
        await self._insist(partial(self._change, run, spend))

    async def _change(self, run: Run, change: Change) -> None:
        async with self.app.work(self.caller(run.tenant_id)) as work:
            await change(work)

    async def _insist(self, act: Callable[[], Awaitable[None]]) -> None:
        """Write what must not be lost to a database that is away, nor to a worker's hurry.

        When the job is not this worker's any more, nothing of it has to be written.
        """
        deadline = monotonic() + self.pace.ending_s
        with anyio.CancelScope(shield=True), suppress(NotOurs):
            while True:
                try:
                    await act()
                    return
                except Unavailable as error:
                    if monotonic() > deadline:
                        raise
                    _log.warning("the end of a run is not written yet: %s", error.args[0])
                await anyio.sleep(PAUSE_S)


@contextmanager
def _span(job: Claimed) -> Generator[None]:
    """Trace a run; without a collector that is nothing. What people and models wrote stays out."""
    about = {
        "dramatis.job.id": str(job.id),
        "dramatis.job.attempt": job.attempt,
        "dramatis.persona": job.persona,
        "dramatis.runner": job.runner,
    }
    with _tracer.start_as_current_span(f"run {job.persona}", attributes=about):
        yield


def _trace_end(status: State, error_code: str | None = None) -> None:
    """Note what becomes of the job, in the span of its run."""
    span = trace.get_current_span()
    span.set_attribute("dramatis.job.status", status)
    if error_code is not None:
        # As the semantic conventions of OpenTelemetry name it.
        span.set_attribute("error.type", error_code)
        span.set_status(trace.StatusCode.ERROR)


def _end(
    run: Run,
    status: State,
    *,
    result: str | None = None,
    error: str | None = None,
    error_code: str | None = None,
) -> Change:
    _trace_end(status, error_code)
    return partial(
        finish_job,
        job_id=run.job_id,
        attempt=run.attempt,
        status=status,
        result=result,
        error=error,
        error_code=error_code,
    )


def _elsewhere(job: Claimed) -> Place | None:
    """Name a project whose files are not here to the index of its standards."""
    if job.root is None or job.host is None:
        return None
    root = Path(job.root)
    return Place(job.host, root, root / job.standards_root, None)


def _left(limit: Decimal | None, spent: Decimal | None) -> float | None:
    return None if limit is None else float(limit - (spent or 0))


def _note(run: Run, name: str) -> Step:
    return Step(
        attempt=run.attempt, kind="note", name=name, began_at=datetime.now(UTC), duration_ms=0
    )
