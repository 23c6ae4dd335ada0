"""`dramatis standards`: find and read what the team always does, propose it, decide on it."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import click

from server.cli import (
    standards_indexing,
    standards_proposals,
    standards_proposing,
    standards_review,
    standards_views,
)
from server.cli.options import Given, ProjectGroup
from server.cli.output import progress, show, show_exactly
from server.cli.sessions import in_app, in_work
from server.errors import Unavailable
from server.late import Late

if TYPE_CHECKING:
    from server.standards import catalogue, indexer, search
    from server.standards.shapes import Layer
    from server.work import App, Caller, Work
else:
    catalogue = Late("server.standards.catalogue")
    indexer = Late("server.standards.indexer")
    search = Late("server.standards.search")

F = TypeVar("F", bound=Callable[..., object])
T = TypeVar("T")


@click.group(cls=ProjectGroup)
def standards() -> None:
    """Find, read, propose and approve what a team always does.

    A standard is a Markdown file in your project. Personas propose it, a person decides, and every
    agent finds it.
    """


def _filtered(command: F) -> F:
    for option in (
        click.option(
            "--layer",
            type=click.Choice(["project", "language", "universal"]),
            help="Only this one.",
        ),
        click.option("--tag", "tags", multiple=True, help="Only with this; may be repeated."),
        click.option("--domain", help="Only this one."),
    ):
        command = option(command)
    return command


@standards.command("search")
@click.argument("query", nargs=-1, required=True)
@click.option("--also", multiple=True, metavar="TEXT", help="The same in other words; repeatable.")
@_filtered
@click.option("--limit", type=int, default=5, show_default=True, help="Passages at most.")
@click.pass_obj
def search_(
    given: Given,
    query: tuple[str, ...],
    also: tuple[str, ...],
    domain: str | None,
    tags: tuple[str, ...],
    layer: "Layer | None",
    limit: int,
) -> None:
    """Find the passages that answer best.

    All words are one question, and what looks like an option stands after --.
    """
    result = in_app(
        given,
        lambda app, caller: search.search_now(
            app,
            caller,
            [" ".join(query), *also],
            limit=limit,
            domain=domain,
            tags=tags,
            layer=layer,
        ),
    )
    show(given, result, standards_views.found(result))


@standards.command("list")
@_filtered
@click.option("--limit", type=int, default=50, show_default=True, help="Lines on a page.")
@click.option("--cursor", help="Where the page before ended.")
@click.pass_obj
def list_(
    given: Given,
    domain: str | None,
    tags: tuple[str, ...],
    layer: "Layer | None",
    limit: int,
    cursor: str | None,
) -> None:
    """List the standards there are, and who approved them."""
    listing = _up_to_date(
        given,
        lambda work: catalogue.list_standards(
            work, domain=domain, tags=tags, layer=layer, limit=limit, cursor=cursor
        ),
    )
    show(given, listing, standards_views.listed(listing))


@standards.command("show")
@click.argument("domain", help="Or DOMAIN/TOPIC in one.")
@click.argument("topic", default=None)
@click.pass_obj
def show_(given: Given, domain: str, topic: str | None) -> None:
    """Print a standard's file."""
    if topic is None:
        domain, _, topic = domain.partition("/")
        if not topic:
            raise click.UsageError("Missing argument 'TOPIC'.")
    standard = in_work(given, lambda work: catalogue.read_standard(work, domain, topic))
    if not given.as_json:
        progress(f"{standards_views.standing(standard)}\n")
    show_exactly(given, standard, standard.text)


@standards.command()
@click.pass_obj
def stats(given: Given) -> None:
    """Count what there is: most found, never found, changed last."""
    counts = _up_to_date(given, catalogue.statistics)
    show(given, counts, standards_views.counted(counts))


def _up_to_date(given: Given, read: "Callable[[Work], Awaitable[T]]") -> T:
    """Read what is on the disk at this moment: nobody may be watching it."""

    async def act(app: "App", caller: "Caller") -> T:
        # Whatever keeps it from indexing, what was indexed before is an answer still.
        with suppress(Unavailable):
            await indexer.index_standards(app, caller)
        async with app.work(caller) as work:
            return await read(work)

    return in_app(given, act)


for _command in (
    standards_proposing.propose,
    standards_proposing.revise,
    standards_proposals.proposals,
    standards_review.review,
    standards_review.approve,
    standards_review.reject,
    standards_proposals.repair,
    standards_indexing.index,
    standards_indexing.watch,
):
    standards.add_command(_command)
