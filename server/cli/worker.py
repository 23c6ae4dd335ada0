"""`dramatis worker`: runs the jobs of personas that were invoked."""

import click

from server.cli.options import Command, Given
from server.cli.output import show

TOLD = "The worker takes no more jobs, and goes when those that it runs have ended."
SEVERAL = "The workers take no more jobs, and go when those that they run have ended."
NOT_HERE = "No worker that was started for your jobs is here."


@click.command(cls=Command)
@click.option(
    "--jobs", "worker_jobs", type=int, metavar="N", help="Run so many at once (default 6)."
)
@click.option(
    "--drain",
    "drain_s",
    type=click.FloatRange(min=0),
    default=300,
    show_default=True,
    metavar="SECONDS",
    help="How long running jobs may go on after SIGTERM, before another worker gets them.",
)
@click.option(
    "--stop",
    is_flag=True,
    help="Tell the workers that were started for your jobs to go when what they run has ended.",
)
@click.option("--on-demand", type=int, hidden=True, help="Lock of a worker started for a job.")
@click.pass_obj
def worker(
    given: Given, worker_jobs: int | None, drain_s: float, stop: bool, on_demand: int | None
) -> None:
    """Run jobs until stopped. Any number of workers, on any machine, share one queue."""
    settings = given.settings(worker_jobs=worker_jobs)
    if stop:
        from server.jobs.starting import Station, stop_workers

        told = stop_workers(Station.of(settings))
        said = (NOT_HERE, TOLD)[told] if told < 2 else SEVERAL
        show(given, {"status": "told" if told else "not_here", "workers": told}, said)
        return
    from server.working import work

    work(settings, on_demand=on_demand, drain_s=drain_s)
