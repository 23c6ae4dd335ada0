"""`dramatis job`: see what invoked personas do and did, stop it, repeat it, forget it."""

import re
import sys
from typing import TYPE_CHECKING

import click

from server.cli import job_views
from server.cli.invoke import Open, ProgressLine, answer, conclude, followed, print_part
from server.cli.options import Given, ProjectGroup
from server.cli.output import is_terminal, show, show_exactly
from server.cli.sessions import in_app, in_work
from server.errors import Invalid
from server.jobs.shapes import JobRunning, JobStatus, RunRecord
from server.late import Late

if TYPE_CHECKING:
    from server.jobs import following, queries, record, retention, service, statistics
    from server.jobs.shapes import Cancellation, JobStarted, State
    from server.work import App, Caller, Work
else:
    following = Late("server.jobs.following")
    queries = Late("server.jobs.queries")
    record = Late("server.jobs.record")
    retention = Late("server.jobs.retention")
    service = Late("server.jobs.service")
    statistics = Late("server.jobs.statistics")

ID = click.argument("job_id", metavar="ID", help="Or its first characters, at least 4.")


@click.group(cls=ProjectGroup)
def job() -> None:
    """See what invoked personas do and did, stop it, repeat it, forget it."""


@job.command("list")
@click.option(
    "--status",
    type=click.Choice(["pending", "running", "complete", "failed", "cancelled"]),
    help="Only these.",
)
@click.option("--persona", help="Only those of this one: its id or slug, or its name.")
@click.option("--limit", type=int, default=10, show_default=True, help="Jobs at most.")
@click.pass_obj
def list_(given: Given, status: "State | None", persona: str | None, limit: int) -> None:
    """List the jobs of this project, newest first."""
    listing = in_work(
        given, lambda work: queries.list_jobs(work, status=status, persona=persona, limit=limit)
    )
    show(given, listing, job_views.listed(listing))


@job.command("show")
@ID
@click.option("--prompt", is_flag=True, help="Print the prompt it ran with, and nothing else.")
@click.pass_obj
def show_(given: Given, job_id: str, prompt: bool) -> None:
    """Show how a job is; of one that has ended, the whole record of its run and its result."""
    if prompt:
        ran = in_work(given, lambda work: _record(work, job_id))
        show_exactly(given, {"job_id": ran.job_id, "prompt": ran.prompt}, ran.prompt)
        return
    state, run = in_app(given, lambda app, caller: _state(app, caller, job_id))
    # The prompt has thousands of tokens, and an option of its own.
    shape = {**dict(state), "record": run.model_dump(mode="json", exclude={"prompt"})}
    show(given, shape, job_views.shown(state, run))


@job.command()
@ID
@click.pass_obj
def tail(given: Given, job_id: str) -> None:
    """Print what a job says while it says it, and end as the job does."""
    whole = in_work(given, lambda work: _whole_id(work, job_id))
    line, said = ProgressLine(), Said()

    def tell(job: Open) -> None:
        if isinstance(job, JobRunning) and not given.as_json:
            said.up_to(job.partial_result, line)
        # On a terminal, the line must not overwrite what was said on it.
        if said.ends_a_line or not is_terminal(sys.stdout):
            line.draw(job_views.moving(job))

    job = followed(given, whole, line, tell)
    if not given.as_json:
        said.finish(job_views.text_of(job), line)
    conclude(given, job)


@job.command()
@ID
@click.pass_obj
def cancel(given: Given, job_id: str) -> None:
    """Stop a job. What it said until then is kept."""

    async def act(work: "Work") -> "Cancellation":
        return await service.cancel_job(work, await _whole_id(work, job_id))

    cancellation = in_work(given, act)
    show(given, cancellation, job_views.cancelled(cancellation))


@job.command()
@ID
@click.option("--wait", is_flag=True, help="Wait for the end, and print the result.")
@click.pass_obj
def retry(given: Given, job_id: str, wait: bool) -> None:
    """Run a job that failed or was cancelled again, as a new one."""

    async def act(app: "App", caller: "Caller") -> "JobStarted":
        async with app.work(caller) as work:
            whole = await _whole_id(work, job_id)
        return await service.retry_job(app, caller, whole)

    answer(given, in_app(given, act), wait=wait)


@job.command()
@click.pass_obj
def stats(given: Given) -> None:
    """Count the jobs of all projects, and say whether a clean-up presses."""
    counted = in_work(given, statistics.job_statistics)
    show(given, counted, job_views.counted(counted))


@job.command()
@click.pass_obj
def clean(given: Given) -> None:
    """Remove old jobs now: complete and cancelled ones after 7 days, failed ones after 30."""
    cleaned = in_work(given, retention.clean_jobs)
    show(given, cleaned, job_views.cleaned(cleaned))


@job.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def reset(given: Given, yes: bool) -> None:
    """Cancel and forget all jobs of this project, with their records."""
    if not yes:
        _confirm(given)
    done = in_work(given, lambda work: service.reset_jobs(work, confirm=True))
    show(given, done, done.message)


def _confirm(given: Given) -> None:
    """Ask whether all jobs are to go.

    Raises:
        Invalid: nobody is there to ask.
        click.exceptions.Exit: the answer was no.
    """
    if not is_terminal(sys.stdin):
        raise Invalid("Forgetting all jobs needs --yes where nobody can be asked.")
    number = in_work(given, lambda work: queries.list_jobs(work, limit=1)).total_count
    question = f"Cancel and forget all jobs of this project ({number:,}) for good?"
    if not click.confirm(question, err=True):
        click.echo("Nothing was done.", err=True)
        raise click.exceptions.Exit(1)


async def _whole_id(work: "Work", start: str) -> str:
    return str(await queries.find_job(work, start))


async def _record(work: "Work", start: str) -> RunRecord:
    return await record.run_record(work, await _whole_id(work, start))


async def _state(app: "App", caller: "Caller", start: str) -> tuple[JobStatus, RunRecord]:
    """Read how a job is, and its record as far as there is one."""
    async with app.work(caller) as work:
        whole = await _whole_id(work, start)
    state = await following.follow_job(app, caller, whole)
    async with app.work(caller) as work:
        return state, await record.run_record(work, whole)


class Said:
    """What was printed of a text that grows."""

    def __init__(self) -> None:
        self._text = ""

    @property
    def ends_a_line(self) -> bool:
        return self._text[-1:] in ("", "\n")

    def up_to(self, text: str, line: ProgressLine) -> None:
        """Print what is new. Another attempt has said nothing yet, and then begins anew."""
        if not text:
            return
        goes_on = text.startswith(self._text)
        self._print(text[len(self._text) :] if goes_on else f"\n\n{text}", line)
        self._text = text

    def finish(self, text: str, line: ProgressLine) -> None:
        """Print what is left of the text that the job ended with, and end the line."""
        rest = rest_of(text, self._text)
        self._print(rest, line)
        self._text += rest
        if not self.ends_a_line:
            click.echo()

    def _print(self, more: str, line: ProgressLine) -> None:
        if more:
            line.clear()
            print_part(more)


def rest_of(text: str, said: str) -> str:
    """Find what is left to say of a text, of which the beginning may stand at the end of `said`.

    What was said before that stands on lines of its own, and blanks around the text do not count.
    """
    if said.rstrip().endswith(text.strip()):
        return ""
    for start in (0, *(at.end() for at in re.finditer("\n", said))):
        if text.startswith(said[start:]):
            return text[len(said) - start :]
    return f"\n\n{text}"
