"""`dramatis tenant`: separate casts in one database."""

from typing import TYPE_CHECKING

import click

from server.cli import views
from server.cli.options import Given, Group
from server.cli.output import show
from server.cli.sessions import in_work
from server.late import Late

if TYPE_CHECKING:
    from server import access
else:
    access = Late("server.access")


@click.group(cls=Group)
def tenant() -> None:
    """Make and list tenants: separate casts in one database."""


@tenant.command()
@click.argument("name")
@click.pass_obj
def add(given: Given, name: str) -> None:
    """Make a tenant; commands and clients work in it with --tenant NAME."""
    made = in_work(given, lambda work: access.add_tenant(work, name))
    show(given, made, f"Added the tenant {made.name}.")


@tenant.command("list")
@click.pass_obj
def list_(given: Given) -> None:
    """List the tenants by name."""
    tenants = in_work(given, access.list_tenants)
    show(given, {"tenants": tenants}, views.tenants(tenants))
