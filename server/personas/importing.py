"""Register many personas from a file; each of its lines stands or falls alone."""

from collections.abc import AsyncGenerator, Sequence

from pydantic import ValidationError

from server.errors import DramatisError, Unavailable, refused
from server.personas.lines import Line, read_lines
from server.personas.service import register_persona
from server.personas.shapes import Outcome, Registration
from server.work import App, Caller

KNOWN = list(Registration.model_fields)


def read_import(raw: bytes) -> list[Line]:
    """Read a YAML or JSON list of name, role and description, or a mapping `personas` of it.

    Raises:
        UnreadableFile: it is something else, or too large.
    """
    return read_lines(raw, "personas")


def check_import(lines: Sequence[Line]) -> list[Outcome]:
    """Say of each line what registering it would refuse, and register none."""
    return [_checked(line)[1] for line in lines]


async def import_personas(
    app: App, caller: Caller, lines: Sequence[Line]
) -> AsyncGenerator[Outcome]:
    """Register the persona of each line, in a transaction of its own, and say what became of it.

    A line that is refused does not stop the others. A database that went away does: what is
    left is reported as not tried.
    """
    away = False
    for line in lines:
        wanted, outcome = _checked(line)
        if wanted is not None and away:
            outcome = outcome.model_copy(update={"error": "Not tried: the database went away."})
        elif wanted is not None:
            try:
                made = await register_persona(app, caller, **dict(wanted))
                outcome = outcome.model_copy(update={"slug": made.slug})
            except DramatisError as error:
                away = isinstance(error, Unavailable)
                outcome = outcome.model_copy(update={"error": str(error)})
        yield outcome


def _checked(line: Line) -> tuple[Registration | None, Outcome]:
    """Validate a line: there is a registration, or the outcome says why not."""
    outcome = Outcome(line=line.number, name=None, slug=None, error=None)
    if line.pairs is None:
        what = "Not a mapping of name, role and description."
        return None, outcome.model_copy(update={"error": what})
    values = dict(line.pairs)
    if isinstance(values.get("name"), str):
        outcome = outcome.model_copy(update={"name": values["name"]})
    if len(values) < len(line.pairs):
        return None, outcome.model_copy(update={"error": "A key is there twice."})
    try:
        wanted = Registration.model_validate(values)
    except ValidationError as error:
        return None, outcome.model_copy(update={"error": str(refused(error, KNOWN))})
    return wanted, outcome.model_copy(update={"name": wanted.name})
