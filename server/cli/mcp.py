"""`dramatis mcp`: what clients start."""

import click

from server.cli.options import Command, Given


@click.command(cls=Command)
@click.option("--toolsets", metavar="A,B", help="Tool groups to serve.")
@click.option(
    "--read-only", is_flag=True, default=None, help="Serve no tool that changes anything."
)
@click.pass_obj
def mcp(given: Given, toolsets: str | None, read_only: bool | None) -> None:
    """Serve MCP over standard input and output."""
    # Standard output belongs to the protocol, whatever fails.
    given.as_json = False
    settings = given.settings(toolsets=toolsets, read_only=read_only)
    from server.serving import serve

    serve(settings)
