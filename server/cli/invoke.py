"""`dramatis invoke`: put a persona to work, and wait for what it says."""

import os
import sys
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeAlias

import click

from server.cli import job_views
from server.cli.editing import text_of
from server.cli.failures import exit_code
from server.cli.options import Given, ProjectCommand
from server.cli.output import document, is_terminal, show
from server.cli.quoting import columns_of
from server.cli.sessions import in_app
from server.errors import Conflict, DramatisError, Invalid, Unavailable
from server.jobs.shapes import (
    CONTEXT_BYTES,
    JobCancelled,
    JobComplete,
    JobFailed,
    JobNotFound,
    JobPending,
    JobRunning,
    JobStatus,
)
from server.late import Late
from server.visible import visible

if TYPE_CHECKING:
    from server.jobs import core_personas, following, queries, service
    from server.jobs.shapes import JobStarted, Priority
else:
    core_personas = Late("server.jobs.core_personas")
    following = Late("server.jobs.following")
    queries = Late("server.jobs.queries")
    service = Late("server.jobs.service")

Open: TypeAlias = JobPending | JobRunning


class JobEndedBadly(Unavailable):
    code = "job_failed"


class JobWasCancelled(Conflict):
    code = "job_cancelled"


@click.command(cls=ProjectCommand)
@click.argument(
    "persona", help="Id of a core persona, slug, name, or a text with a mention: '@qa test this'."
)
@click.argument("task", default=None, help="What to do; - or nothing on a pipe reads the input.")
@click.option(
    "--context",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Text that belongs to the task; may be repeated, 100 KB in all.",
)
@click.option(
    "--priority",
    type=click.Choice(["low", "normal", "high"]),
    default="normal",
    show_default=True,
)
@click.option("--wait", is_flag=True, help="Wait for the end, and print the result.")
@click.pass_obj
def invoke(
    given: Given,
    persona: str,
    task: str | None,
    files: tuple[Path, ...],
    priority: "Priority",
    wait: bool,
) -> None:
    """Put a persona to work on TASK in the background.

    The job goes on whatever becomes of this command.
    """
    asked = _asked(persona, task)
    context = _context(files)
    started = in_app(
        given,
        lambda app, caller: service.invoke_persona(
            app, caller, persona, asked, context=context, priority=priority
        ),
    )
    answer(given, started, wait=wait)


def answer(given: Given, started: "JobStarted", *, wait: bool) -> None:
    """Say how to go on with a job that was started, or wait for its result and print that."""
    if not wait:
        by_command = started.model_copy(
            update={"poll_command": f"dramatis job show {started.job_id}"}
        )
        show(given, by_command, job_views.started(started))
        return
    line = ProgressLine()
    job = followed(given, str(started.job_id), line, lambda job: line.draw(job_views.moving(job)))
    if isinstance(job, JobComplete) and not given.as_json:
        print_part(job.result)
        if not job.result.endswith("\n"):
            click.echo()
    conclude(given, job)


def followed(
    given: Given, job_id: str, line: "ProgressLine", tell: Callable[[Open], None]
) -> JobStatus:
    """Watch a job until it has ended, and return how.

    A person who is interrupted, or loses the database, is told that the job goes on.

    Args:
        tell: is told how the job is, again and again.
    """

    async def told(job: Open) -> None:
        tell(job)

    try:
        return in_app(
            given,
            lambda app, caller: following.follow_job(app, caller, job_id, wait_s=inf, told=told),
        )
    except (KeyboardInterrupt, Unavailable):
        line.clear()
        click.echo(job_views.goes_on(job_id), err=True)
        raise
    finally:
        line.clear()


def conclude(given: Given, job: JobStatus) -> None:
    """End the command as the job did.

    Raises:
        JobEndedBadly, JobWasCancelled, NoSuchJob: it has no result.
        click.exceptions.Exit: the same, where the job itself was printed as a document.
    """
    error = _failure(job)
    if given.as_json:
        click.echo(document(job))
        if error is not None:
            raise click.exceptions.Exit(exit_code(error))
    elif error is not None:
        raise error


def print_part(text: str) -> None:
    """Print a part of what a persona says: as it is, or visibly where it would act on a terminal."""
    click.echo(visible(text) if is_terminal(sys.stdout) else text.encode(), nl=False)


class ProgressLine:
    """A line that is drawn over and over on a person's terminal, and nothing anywhere else.

    In the background neither: there several commands would share the line with what is typed.
    """

    def __init__(self) -> None:
        self._columns = columns_of(sys.stderr)
        self._width = 0

    def draw(self, text: str) -> None:
        if self._columns is None or not _in_foreground(sys.stderr):
            return
        from wcwidth import clip, wcswidth

        # A character in the last column would begin the next line.
        shown = clip(text, 0, self._columns - 1)
        width = wcswidth(shown)
        click.echo(f"\r{shown}{' ' * (self._width - width)}", nl=False, err=True)
        self._width = width

    def clear(self) -> None:
        if self._width and _in_foreground(sys.stderr):
            click.echo(f"\r{' ' * self._width}\r", nl=False, err=True)
        self._width = 0


def _in_foreground(terminal: TextIO) -> bool:
    """Tell whether a shell lets us have its terminal; that may change at any moment."""
    try:
        return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


def _asked(persona: str, task: str | None) -> str:
    """Return what is to be done, as far as it does not stand around a mention."""
    _, words = core_personas.addressed(persona, "")
    if task == "-" or (task is None and not words):
        task = _from_input()
    return task or ""


def _from_input() -> str:
    if is_terminal(sys.stdin):
        raise click.UsageError("Missing argument 'TASK'.")
    return text_of(click.open_file("-", "rb"))


def _context(files: Sequence[Path]) -> str | None:
    """Read what comes along; several texts have their files' names above them.

    Raises:
        Invalid: one is no text, or they are too large together.
    """
    read = [_read(file) for file in files]
    if sum(size for _, _, size in read) > CONTEXT_BYTES:
        sizes = ", ".join(f"{name} has {_said(size)}" for name, _, size in read)
        raise Invalid(
            f"The context may have {CONTEXT_BYTES:,} bytes (100 KB): {sizes}.",
            hint="Name files of the project in the task instead: a persona reads them itself.",
        )
    texts = [(name, _decoded(name, raw)) for name, raw, _ in read]
    if len(texts) < 2:
        return texts[0][1] if texts else None
    return "\n\n".join(f"## {name}\n\n{text}" for name, text in texts)


def _read(file: Path) -> tuple[str, bytes, int]:
    """Return a file's name, no more of it than a context may have and a byte, and its size."""
    name = " ".join(visible(str(file)).split())
    try:
        with file.open("rb") as opened:
            raw = opened.read(CONTEXT_BYTES + 1)
            return name, raw, max(len(raw), os.fstat(opened.fileno()).st_size)
    except OSError as error:
        why = (error.strerror or "the disk refused").lower()
        raise Invalid(f"{name} cannot be read: {why}.") from error


def _said(size: int) -> str:
    # Of what has no size of its own, such as a pipe, only so much was read.
    return f"{size:,} bytes" if size != CONTEXT_BYTES + 1 else f"more than {CONTEXT_BYTES:,}"


def _decoded(name: str, raw: bytes) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise Invalid(
            f"{name} is no UTF-8 text; a context is text of up to {CONTEXT_BYTES:,} bytes (100 KB)."
        )
    return text


def _failure(job: JobStatus) -> DramatisError | None:
    short = job_views.short(job.job_id)
    match job:
        case JobFailed():
            return JobEndedBadly(
                visible(job.error),
                hint=f"`dramatis job show {short}` has its record, `dramatis job retry {short}`"
                " runs it again.",
            )
        case JobCancelled():
            return JobWasCancelled(
                "The job was cancelled.",
                hint=f"`dramatis job show {short}` has what it said until then.",
            )
        case JobNotFound():
            return queries.NoSuchJob("The job was removed meanwhile.")
        case _:
            return None
