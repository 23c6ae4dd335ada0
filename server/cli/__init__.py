"""The `dramatis` command. Starting it imports click and no more; each command brings the rest."""

from server.cli.program import main

__all__ = ["main"]
