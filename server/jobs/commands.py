"""Run a persona on a command-line agent: it reads the prompt from its input and prints the answer.

Such a program obeys rules of its own and may do whatever the worker's account may do. So its runs
are recorded as `unsandboxed`. Nothing that stays in its group of processes outlives them.
"""

import codecs
import math
import re
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath
from shutil import rmtree

import anyio
import anyio.to_thread

from server.jobs.command_process import CommandProcess, Output, started
from server.jobs.running import (
    Outcome,
    PriceUnknown,
    Reporting,
    RunFailed,
    RunJob,
    Runner,
    RunTimedOut,
    budget_spent,
    without_places,
)
from server.jobs.shapes import Step
from server.markdown import BYTES_PER_TOKEN, tokens
from server.standards.secrets import find_secrets
from server.work import Place

OUTPUT_BYTES = 1_000_000
ERRORS_BYTES = 64_000
ERRORS_SHOWN = 300
# What a command printed is there when it has ended; only what hides from us may be silent longer.
GRACE_S = 3
# A worker has these to serve its operator: they say where the database is, who may enter it, and who
# is told about it. The last one makes an agent believe that it was started by another one of its
# kind, and refuse.
KEPT_BACK = ("DRAMATIS_", "PG", "OTEL_", "CLAUDECODE")
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class OutputTooLong(RunFailed):
    code = "output_too_long"


def command_runner(
    command: Sequence[str],
    *,
    seconds: float,
    environment: Mapping[str, str],
    grace_s: float = GRACE_S,
) -> Runner:
    """Make a runner of a command.

    It runs in the job's project, or in an empty folder that is removed afterwards. When it ends,
    takes too long, prints too much or is cancelled, or the worker is killed, its whole group of
    processes is ended.

    Args:
        command: the program and its arguments; no shell reads them.
        environment: the worker's. The command inherits it without what is the worker's own.
        grace_s: how long its output may be silent, without an end, after the command has ended.

    Returns:
        A runner that raises `RunnerMissing` where the program cannot be started, `PriceUnknown`
        where money is limited, `BudgetSpent`, `RunTimedOut`, `OutputTooLong`, or `RunFailed` where
        it ends with an error, prints nothing, or leaves behind what keeps its output open.
    """
    program = PurePath(command[0]).name
    inherited = {
        name: value for name, value in environment.items() if not name.startswith(KEPT_BACK)
    }

    async def run(job: RunJob, reporting: Reporting) -> Outcome:
        asked = f"# Who you are\n\n{job.prompt}\n\n# Your task\n\n{job.request}\n"
        spending = _Spending(tokens(asked), job.tokens_limit)
        _refuse_money(job, program)
        spending.check()
        await reporting.progress("initializing", 5, f"Starting {program}.")
        await reporting.step(_unsandboxed(job, program))
        async with (
            _folder(job.place) as folder,
            started(command, asked, folder, inherited) as process,
        ):
            talk = _Talk(process, reporting, spending)
            with anyio.move_on_after(seconds) as limit:
                await talk.hold(grace_s)
        if limit.cancelled_caught:
            raise RunTimedOut(f"{program} was stopped after {seconds:,g} seconds.")
        return talk.outcome()

    return run


def _refuse_money(job: RunJob, program: str) -> None:
    if job.usd_limit is not None:
        raise PriceUnknown(
            f"What {program} costs is not known, so a limit in USD cannot be kept.",
            hint="Unset DRAMATIS_RUN_USD, or set DRAMATIS_MODEL to a model whose price is known.",
        )


@dataclass(slots=True)
class _Spending:
    """About how many tokens a run has spent, and how many it may."""

    input_tokens: int
    tokens_limit: int
    output_bytes: int = 0

    @property
    def output_tokens(self) -> int:
        return math.ceil(self.output_bytes / BYTES_PER_TOKEN)

    @property
    def is_over(self) -> bool:
        return self.input_tokens + self.output_tokens > self.tokens_limit

    def check(self) -> None:
        """Refuse what is more than the run may spend.

        Raises:
            BudgetSpent: it is.
        """
        if self.is_over:
            raise budget_spent(
                f"{self.tokens_limit:,} tokens",
                f"{self.input_tokens + self.output_tokens:,}",
                setting="DRAMATIS_RUN_TOKENS",
            )


class _Talk:
    """A command at work, and what it has said so far."""

    def __init__(self, process: CommandProcess, reporting: Reporting, spending: _Spending) -> None:
        self._program = process.program
        self._process = process
        self._stdout = Output(process.watcher.stdout)
        self._stderr = Output(process.watcher.stderr)
        self._reporting = reporting
        self._spending = spending
        self._text: list[str] = []
        self._characters = 0
        self._errors = b""
        self._code = 0

    async def hold(self, grace_s: float) -> None:
        """Listen until the command has ended or said too much.

        Raises:
            RunnerMissing: there is no such command.
        """
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._overhear)
                tasks.start_soon(self._listen, tasks.cancel_scope)
                self._code = await self._process.wait()
                for output in (self._stdout, self._stderr):
                    output.end_when_silent(grace_s)
        except ExceptionGroup as group:
            # Either there is no command, or a report failed, and the worker knows what that means.
            raise group.exceptions[0] from None

    def outcome(self) -> Outcome:
        """Return what the command said.

        Raises:
            BudgetSpent, OutputTooLong, RunFailed: it is no answer.
        """
        text = "".join(self._text).strip()
        self._spending.check()
        if self._spending.output_bytes > OUTPUT_BYTES:
            raise OutputTooLong(
                f"{self._program} was stopped: it printed more than {OUTPUT_BYTES:,} bytes."
            )
        if code := self._code:
            how = f"ended with code {code}" if code > 0 else f"was ended by signal {-code}"
            raise RunFailed(f"{self._program} {how}.{self._last_words()}")
        if self._stdout.is_cut:
            raise RunFailed(
                f"{self._program} ended, but what it started keeps its output open, so the end of"
                " the answer may be missing."
            )
        if not text:
            raise RunFailed(f"{self._program} printed nothing.{self._last_words()}")
        spent = self._spending
        return Outcome(text, spent.input_tokens, spent.output_tokens, None, estimated=True)

    async def _listen(self, scope: anyio.CancelScope) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        await self._heard("")
        while piece := await self._stdout.read():
            room = OUTPUT_BYTES - self._spending.output_bytes
            self._spending.output_bytes += len(piece)
            await self._heard(decoder.decode(piece[:room]))
            if len(piece) > room or self._spending.is_over:
                scope.cancel()
                return
        await self._heard(decoder.decode(b"", final=True))

    async def _heard(self, more: str) -> None:
        self._text.append(more)
        self._characters += len(more)
        if more:
            await self._reporting.text(more)
        await self._reporting.progress(
            "generating",
            min(90, 10 + self._characters // 200),
            f"{self._program} is working, {self._characters:,} characters so far",
        )
        await self._reporting.spent(
            input_tokens=self._spending.input_tokens,
            output_tokens=self._spending.output_tokens,
            usd=None,
            estimated=True,
        )

    async def _overhear(self) -> None:
        while piece := await self._stderr.read():
            self._errors = (self._errors + piece)[-ERRORS_BYTES:]

    def _last_words(self) -> str:
        end = end_of_errors(self._errors)
        return f" It said: {end}" if end else ""


def end_of_errors(errors: bytes) -> str:
    """Return the end of what a program complained about, as a line of plain text.

    Lines with secrets are left out, and so are the folders of absolute paths.
    """
    lines = re.split(r"\r\n?|\n", _COLOURS.sub("", errors.decode(errors="replace")))
    secret = {found.line for found in find_secrets("\n".join(lines))}
    said = " ".join(line for at, line in enumerate(lines, start=1) if at not in secret)
    plain = "".join(char if char.isprintable() else " " for char in without_places(said))
    return " ".join(plain.split())[-ERRORS_SHOWN:]


def _unsandboxed(job: RunJob, program: str) -> Step:
    return Step(
        attempt=job.attempt,
        kind="note",
        name="unsandboxed",
        began_at=datetime.now(UTC),
        duration_ms=0,
        details={"program": program},
    )


@asynccontextmanager
async def _folder(place: Place | None) -> AsyncGenerator[Path]:
    if place is not None:
        yield place.root
        return
    folder = await anyio.to_thread.run_sync(tempfile.mkdtemp, None, "dramatis-")
    try:
        yield Path(folder)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(rmtree, folder, True)
