"""`dramatis version`."""

import platform
from importlib.metadata import version as installed

import click

from server.cli.options import Command, Given
from server.cli.output import show


@click.command(cls=Command)
@click.pass_obj
def version(given: Given) -> None:
    """Print the version of Dramatis."""
    ours, python = installed("dramatis-mcp"), platform.python_version()
    show(given, {"version": ours, "python": python}, f"dramatis {ours} on Python {python}")
