"""`dramatis standards index` and `watch`: keep the index like the files."""

import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import click

from server.cli import standards_views
from server.cli.failures import exit_code
from server.cli.options import Given, ProjectCommand
from server.cli.output import is_terminal, progress, show
from server.cli.sessions import in_app
from server.errors import Unavailable
from server.late import Late

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

    from server.standards import indexer, projects, semantic, watcher
    from server.standards.indexer import Progress
    from server.standards.shapes import IndexReport
    from server.work import App, Caller
else:
    indexer = Late("server.standards.indexer")
    projects = Late("server.standards.projects")
    semantic = Late("server.standards.semantic")
    watcher = Late("server.standards.watcher")


@click.command(cls=ProjectCommand)
@click.pass_obj
def index(given: Given) -> None:
    """Bring the index to what the files are.

    Nothing that is the same is done again, but what somebody took out of the index is put back.
    """
    report, made, failure = in_app(given, _index)
    problem = failure and str(failure)
    shape = {"report": report, "vectors_made": made, "vectors_problem": problem}
    show(given, shape, standards_views.indexed(report, made, problem))
    if failure is not None:
        raise click.exceptions.Exit(exit_code(failure))


@click.command(cls=ProjectCommand)
@click.pass_obj
def watch(given: Given) -> None:
    """Index every change moments after it is saved, until Ctrl-C.

    `dramatis mcp` does that too while a client uses it.
    """

    async def told(report: "IndexReport") -> None:
        show(given, report, standards_views.noticed(report))

    async def keep(app: "App", caller: "Caller") -> None:
        progress(f"Watching {projects.the_place(app).standards}; Ctrl-C ends it.")
        await watcher.keep_indexed(app, caller, told)

    in_app(given, keep)


async def _index(app: "App", caller: "Caller") -> "tuple[IndexReport, int, Unavailable | None]":
    with _bar("Indexing") as shown:
        report = await indexer.index_standards(app, caller, progress=shown)
    made, failure = 0, None
    try:
        with _bar("Embedding") as shown:
            made = await semantic.embed_missing(app, caller, progress=shown)
    except Unavailable as error:
        # The words are indexed all the same, and what is found by them is worth telling.
        failure = error
    return report, made, failure


@contextmanager
def _bar(label: str) -> "Generator[Progress]":
    """Show a bar to a person who waits, as soon as there is something to wait for."""
    with ExitStack() as opened:
        bars: list[ProgressBar[int]] = []

        def shown(done: int, total: int) -> None:
            if not bars:
                hidden = not is_terminal(sys.stderr)
                bar = click.progressbar(length=total, label=label, file=sys.stderr, hidden=hidden)
                bars.append(opened.enter_context(bar))
            bars[0].update(done - bars[0].pos)

        yield shown
