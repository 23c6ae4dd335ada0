"""`dramatis completions`."""

import click
from click.shell_completion import get_completion_class

from server.cli.options import Command, Given
from server.cli.output import show_exactly


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completions(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands in a shell.

    For bash: eval "$(dramatis completions bash)"
    """
    completion = get_completion_class(shell)
    assert completion is not None
    script = completion(ctx.find_root().command, {}, "dramatis", "_DRAMATIS_COMPLETE").source()
    show_exactly(ctx.ensure_object(Given), {"shell": shell, "script": script}, script)
