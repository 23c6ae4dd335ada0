"""The one place where a failure becomes an exit code and a sentence or a JSON document."""

from dataclasses import dataclass

import click

from server.cli.output import document
from server.errors import (
    AssetsFailed,
    Conflict,
    DramatisError,
    Forbidden,
    Invalid,
    NotFound,
    Unavailable,
)

BUG = 1
INTERRUPTED = 130
EXIT_CODES: dict[type[DramatisError], int] = {
    Invalid: 2,
    NotFound: 3,
    Conflict: 4,
    Forbidden: 5,
    Unavailable: 6,
    AssetsFailed: 7,
}
# The rooms speak to agents, who have tools. Who types has commands.
IN_COMMANDS = {
    "by setting its status to active": "with `dramatis persona restore`",
    "register_persona (name, role), or list them all.": (
        "`dramatis persona register`; `dramatis persona list` has those there are."
    ),
    "create_persona_spec or generate_persona_spec, or with": "`dramatis spec generate` or",
    "Read it with read_standard, work the change into its text, and propose that with its sha256 as"
    " base_sha256.": (
        "`dramatis standards show` prints it. Work the change into its text, without its front"
        " matter, and propose that with --change."
    ),
    "Read it again with read_standard and propose the change against it as it is now.": (
        "Look at it with `dramatis standards show`; --change or --rebase takes it as it is now."
    ),
    "Propose it anew without base_sha256 to make it.": (
        "`dramatis standards propose` without --change makes it."
    ),
    "revise_standard_proposal of": "`dramatis standards revise` of",
    "with the new base_sha256": "with --rebase",
    "list_standard_proposals has": "`dramatis standards proposals --status all` has",
    "list_standards has": "`dramatis standards list` has",
    "Give tags as `tags`;": "Take it out, and give tags with --tag;",
    "list_persona_jobs has": "`dramatis job list` has",
    "Follow it with check_persona_job.": "Follow it with `dramatis job tail`.",
    "with cancel_persona_job.": "with `dramatis job cancel`.",
    "Until then play the persona yourself: call become_persona with the same persona and task.": (
        "Until then `dramatis persona become` prints the prompt, for an agent of yours to play the"
        " persona."
    ),
    "and others (list_personas)": "and others (`dramatis persona list`)",
    "with DRAMATIS_PROJECT_ROOT.": "with --project or DRAMATIS_PROJECT_ROOT.",
}


@dataclass(frozen=True, slots=True)
class Failure:
    code: str
    message: str
    hint: str | None
    exit_code: int

    def show(self, *, as_json: bool) -> None:
        if as_json:
            error = {"code": self.code, "message": self.message, "hint": self.hint}
            click.echo(document({"error": error}))
        else:
            hint = f" {self.hint}" if self.hint else ""
            click.echo(f"Error: {self.message}{hint}", err=True)


def report(error: Exception, *, as_json: bool) -> int | None:
    """Tell the person who typed, and return the exit code; `None` says that this is a bug."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError) and not as_json:
        error.show()
        return error.exit_code
    failure = _failure(error)
    if failure is not None:
        failure.show(as_json=as_json)
        return failure.exit_code
    if as_json:
        message = "This is a bug in Dramatis; standard error has the traceback."
        Failure("bug", message, None, BUG).show(as_json=True)
    return None


def _failure(error: Exception) -> Failure | None:
    if isinstance(error, click.UsageError):
        help_of = error.ctx.command_path if error.ctx else "dramatis"
        hint = f"See `{help_of} --help`."
        return Failure("usage", error.format_message(), hint, error.exit_code)
    if isinstance(error, click.ClickException):
        return Failure("failed", error.format_message(), None, error.exit_code)
    if isinstance(error, DramatisError):
        return Failure(error.code, str(error.args[0]), _in_commands(error.hint), exit_code(error))
    return None


def _in_commands(hint: str | None) -> str | None:
    for tools, commands in IN_COMMANDS.items():
        hint = hint and hint.replace(tools, commands)
    return hint


def exit_code(error: DramatisError) -> int:
    """Return the code of the error's family."""
    codes = (code for family, code in EXIT_CODES.items() if isinstance(error, family))
    return next(codes, BUG)
