"""`dramatis role`: the shared words for who does what."""

from typing import TYPE_CHECKING

import click

from server.cli import views
from server.cli.options import Given, Group
from server.cli.output import show
from server.cli.sessions import in_work
from server.late import Late

if TYPE_CHECKING:
    from server.personas import listing
else:
    listing = Late("server.personas.listing")


@click.group(cls=Group)
def role() -> None:
    """List roles, and see who has one."""


@role.command("list")
@click.pass_obj
def list_(given: Given) -> None:
    """List the roles by name."""
    roles = in_work(given, listing.list_roles)
    show(given, {"roles": roles}, views.roles(roles))


@role.command()
@click.argument("name")
@click.pass_obj
def lookup(given: Given, name: str) -> None:
    """Show a role and its personas. Never makes one."""
    found = in_work(given, lambda work: listing.lookup_role(work, name))
    show(given, found, views.role(name, found))
