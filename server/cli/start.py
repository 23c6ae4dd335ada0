"""`dramatis start`: start a coding agent as a persona."""

import os
import shlex
import shutil
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

import click

from server.cli import spec_views
from server.cli.agents import AGENTS, LARGEST_ARGUMENT, Agent, said
from server.cli.options import Command, Given
from server.cli.output import show_exactly
from server.cli.sessions import in_work
from server.errors import Conflict, Invalid, NotFound
from server.late import Late

if TYPE_CHECKING:
    from server.jobs import playing
    from server.specs.shapes import BecomePrompt
else:
    playing = Late("server.jobs.playing")


class AgentNotInstalled(NotFound):
    code = "agent_not_installed"


class AgentNotStarted(Conflict):
    code = "agent_not_started"


class PromptTooLong(Invalid):
    code = "prompt_too_long"


@click.command(cls=Command)
@click.argument("client", type=click.Choice(list(AGENTS)))
@click.argument("arguments", metavar="[-- ARGS...]", nargs=-1, help="For the client.")
@click.option("--persona", required=True, help="Slug, id, name, or a part of a name.")
@click.option("--task", metavar="TEXT", help="The first thing to say to it.")
@click.option("--print", "only_print", is_flag=True, help="Print the command, and start nothing.")
@click.pass_obj
def start(
    given: Given,
    client: str,
    arguments: tuple[str, ...],
    persona: str,
    task: str | None,
    only_print: bool,
) -> None:
    """Start a coding agent as a persona, in this terminal.

    It gets the prompt of `dramatis persona become` on top of its own, for the whole session.
    """
    agent = AGENTS[client]
    program = agent.program if only_print else _installed(agent)
    # Handed on as it is: on the way we drop the variables that would lead our database astray.
    environment = dict(os.environ)  # noqa: TID251  # not read
    # The task is said once, as a message; in the prompt it would outlast what it asks for.
    prompt = in_work(given, lambda work: playing.become_persona(work, persona))
    command = _command(agent, prompt, arguments, task)
    if only_print:
        shape = {"client": client, "command": command, "trace": prompt.trace, "cuts": prompt.cuts}
        show_exactly(given, shape, f"{shlex.join(command)}\n")
        return
    for remark in spec_views.remarks(prompt):
        click.echo(remark, err=True)
    _become(agent, program, command, environment)


def _installed(agent: Agent) -> str:
    program = shutil.which(agent.program)
    if program is None:
        raise AgentNotInstalled(
            f"{agent.name} is not installed: there is no `{agent.program}` on PATH.",
            hint="Install it, or add its folder to PATH; --print shows the command.",
        )
    return program


def _command(
    agent: Agent, prompt: "BecomePrompt", arguments: tuple[str, ...], task: str | None
) -> list[str]:
    prompted = agent.prompted(prompt.text)
    if any(len(argument.encode()) > LARGEST_ARGUMENT for argument in prompted):
        raise PromptTooLong(
            f"The prompt of {prompt.slug} is too long for a command line.",
            hint="Set DRAMATIS_PROMPT_TOKENS to 15000 or less; guardrails, identity and the fixed"
            " parts of a spec are never cut.",
        )
    return [agent.program, *prompted, *arguments, *said(arguments, task)]


def _become(
    agent: Agent, program: str, command: list[str], environment: dict[str, str]
) -> NoReturn:
    """Replace this process, so that the agent has the terminal and its signals to itself."""
    sys.stdout.flush()
    sys.stderr.flush()
    # Python ignores these, and what it becomes would pass that on to every shell it starts.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        # In UTF-8, whatever the locale: agents expect that.
        arguments = [one.encode(errors="surrogateescape") for one in command]
        os.execve(program, arguments, environment)  # noqa: S606  # no shell is wanted
    except OSError as error:
        raise AgentNotStarted(f"{agent.name} could not be started: {error.strerror}.") from None
