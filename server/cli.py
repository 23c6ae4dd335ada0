"""The `dramatis` command."""

from pathlib import Path

import click


@click.group()
def main() -> None:
    """Dramatis, the cast of your AI team."""


@main.command()
@click.option("--data-root", type=click.Path(path_type=Path))
def mcp(data_root: Path | None) -> None:
    """Serve MCP over standard input and output."""
    from server.serving import serve
    from server.settings import Settings

    serve(Settings(data_root=data_root) if data_root else Settings())
