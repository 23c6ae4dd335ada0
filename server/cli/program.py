"""The root of the command, which imports a command when it is wanted."""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from server.cli.failures import INTERRUPTED, report
from server.cli.options import Given, Group

COMMANDS = (
    "mcp",
    "persona",
    "spec",
    "standards",
    "start",
    "invoke",
    "job",
    "usage",
    "worker",
    "role",
    "tenant",
    "migrate",
    "doctor",
    "install",
    "db",
    "version",
    "completions",
)


class Program(Group):
    """The whole command; leaving it is always an exit."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands in the order in which a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command: the one that serves MCP must not wait for the others."""
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(import_module(f"server.cli.{cmd_name}"), cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or suggest those there are."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            raise click.exceptions.NoSuchCommand(
                error.command_name, possibilities=COMMANDS, ctx=ctx
            ) from None

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Run a command line and exit; 130 after Ctrl-C, as shells do."""
        _never_fail_to_print()
        given = Given()
        try:
            code = super().main(
                args, "dramatis", complete_var, standalone_mode=False, obj=given, **extra
            )
        except (click.Abort, KeyboardInterrupt):
            sys.exit(INTERRUPTED)
        except Exception as error:
            # A line that could not be read to its end may yet ask for JSON.
            unread = isinstance(error, click.UsageError)
            asked = unread and "--json" in (sys.argv[1:] if args is None else args)
            code = report(error, as_json=given.as_json or asked)
            if code is None:
                raise
        sys.exit(code)


def _never_fail_to_print() -> None:
    """Escape what the terminal's encoding lacks: names are in any script."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


@click.group(cls=Program)
@click.version_option(package_name="dramatis-mcp", prog_name="dramatis")
def main() -> None:
    """Dramatis, the cast of your AI team: named personas for coding agents."""
