"""`dramatis standards proposals` and `repair`: what is proposed, and what came of it."""

import sys
from typing import TYPE_CHECKING

import click

from server.cli import standards_proposal_views
from server.cli.options import NO_COLOR, Given, ProjectCommand
from server.cli.output import harmless, show
from server.cli.quoting import columns_of
from server.cli.sessions import in_app, in_work
from server.late import Late

if TYPE_CHECKING:
    from server.standards import queries, writing
else:
    queries = Late("server.standards.queries")
    writing = Late("server.standards.writing")


@click.command(cls=ProjectCommand)
@click.argument("proposal", type=int, default=None, help="Show this one whole.")
@click.option(
    "--status",
    type=click.Choice(["draft", "approved", "rejected", "all"]),
    default="draft",
    show_default=True,
    help="List those.",
)
@click.option("--limit", type=int, default=20, show_default=True, help="Lines on a page.")
@click.option("--before", type=int, metavar="ID", help="Where the page before ended.")
@NO_COLOR
@click.pass_obj
def proposals(
    given: Given, proposal: int | None, status: str, limit: int, before: int | None
) -> None:
    """List proposals, the newest first, or show one."""
    if proposal is None:
        page = in_work(
            given,
            lambda work: queries.list_proposals(work, status=status, limit=limit, before=before),
        )
        show(given, page, standards_proposal_views.page(page))
        return
    detail = in_work(given, lambda work: queries.get_proposal(work, proposal))
    said = standards_proposal_views.proposal(detail, columns_of(sys.stdout))
    show(given, detail, said.strip("\n"))


@click.command(cls=ProjectCommand)
@click.argument("proposal", type=int)
@click.pass_obj
def repair(given: Given, proposal: int) -> None:
    """Write the file of an approved proposal, if it is missing."""
    written = in_app(given, lambda app, caller: writing.write_approved(app, caller, proposal))
    show(given, written, harmless(written.message))
