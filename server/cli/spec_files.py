"""`dramatis spec new`, `edit`, `validate` and `schema`: specs as files that people write."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from server.cli import spec_views
from server.cli.editing import edited, text_of
from server.cli.options import PERSONA, Command, Given
from server.cli.output import is_terminal, show, show_exactly
from server.cli.sessions import in_work
from server.errors import DramatisError, Invalid
from server.late import Late

if TYPE_CHECKING:
    from server.specs import compiler, examples, notation, runtime, service
    from server.specs import schema as schemas
    from server.specs.shapes import SpecDraft, SpecText
    from server.work import Work
else:
    compiler = Late("server.specs.compiler")
    examples = Late("server.specs.examples")
    notation = Late("server.specs.notation")
    runtime = Late("server.specs.runtime")
    schemas = Late("server.specs.schema")
    service = Late("server.specs.service")

NOTHING = "Nothing was changed, and nothing stored."
STARTER = """\
# How this persona thinks and speaks. Every field is optional: uncomment those you want.
# A whole one to look at: dramatis spec example developer
# One made from its skill.md: dramatis spec generate PERSONA

# Principles, the most important first.
# constitution:
#   - Say what you checked, and what you did not.

# How it decides: what it weighs, when it asks.
# decision_policy:
#   ask_before: [deleting data, spending money]

# What it stands for, and how strongly.
# stance_values:
#   correctness: high

# Who speaks, and in which voice.
# identity_voice:
#   tone: calm and brief

# How it deals with people.
# interaction_style:
#   feedback: first what to keep, then what to change

# How to go about one kind of situation.
# procedural_modules:
#   - id: review
#     intent_labels: [review]
#     when: Somebody asks for a review.
#     do:
#       - Read the whole change.
#       - Run its tests.
#     few_shot_ids: [not-yet]

# Answers as they should be; anti_examples has those that are wrong.
# canonical_examples:
#   - id: not-yet
#     intent_label: review
#     prompt: Is this ready to merge?
#     response: Not yet. The second call is never awaited.

# deterministic_rules:
#   banned_phrases: [As an AI]
#   anti_style_rules: [Long introductions.]
"""


@dataclass(frozen=True, slots=True)
class _Made:
    """A draft, and whether its author chose the version."""

    draft: "SpecDraft"
    numbered: bool


def _names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in examples.example_names() if name.startswith(incomplete)]


@click.command(cls=Command)
@click.argument("name", default=None, shell_complete=_names)
@click.pass_obj
def example(given: Given, name: str | None) -> None:
    """Print a shipped spec with its comments, or list those there are."""
    if name is None:
        names = examples.example_names()
        show(given, {"examples": names}, "\n".join(names))
    else:
        text = examples.example_text(name)
        show_exactly(given, {"name": name, "text": text}, text)


@click.command(cls=Command)
@PERSONA
@click.argument("file", type=click.File("rb"), default=None)
@click.option("--example", metavar="NAME", shell_complete=_names, help="Store a shipped one.")
@click.pass_obj
def new(given: Given, persona: str, file: IO[bytes] | None, example: str | None) -> None:
    """Store a draft of a spec.

    FILE is YAML or JSON; - is input. Without FILE and --example, your editor opens on an outline.
    Nothing runs with a draft.
    """
    if file is not None and example is not None:
        raise click.UsageError("Give either a FILE or --example.")
    if example is not None:
        draft = _create(given, persona, examples.example_text(example))
    elif file is not None:
        draft = _create(given, persona, text_of(file))
    elif is_terminal(sys.stdin):
        slug = in_work(given, lambda work: _slug(work, persona))
        made = _edited(given, slug, STARTER)
        draft = made and made.draft
    else:
        raise click.UsageError("Give a FILE, - for the input, or --example.")
    if draft is None:
        show(given, {"changed": False}, NOTHING)
    else:
        show(given, draft, spec_views.stored(draft))


@click.command(cls=Command)
@PERSONA
@click.argument("version", default=None, help="The highest if left out.")
@click.pass_obj
def edit(given: Given, persona: str, version: str | None) -> None:
    """Make the next version in your editor.

    What you write is checked before it is stored, and never lost.
    """
    begun = in_work(given, lambda work: _opened(work, persona, version))
    made = _edited(given, begun.slug, begun.text)
    if made is None:
        show(given, {"slug": begun.slug, "changed": False}, NOTHING)
        return
    overtaken = not made.numbered and made.draft.version != begun.next_version
    show(given, made.draft, spec_views.made_from(begun, made.draft, overtaken=overtaken))


@click.command(cls=Command)
@click.argument(
    "files",
    type=click.Path(exists=True, dir_okay=False, readable=True, allow_dash=True),
    nargs=-1,
    required=True,
)
@click.pass_context
def validate(ctx: click.Context, files: tuple[str, ...]) -> None:
    """Check specs in FILES, without a database.

    - is input.
    """
    outcomes = [_validated(file) for file in files]
    invalid = sum(outcome.problem is not None for outcome in outcomes)
    given = ctx.ensure_object(Given)
    show(given, {"files": outcomes, "invalid": invalid}, spec_views.validated(outcomes))
    if invalid:
        ctx.exit(2)


@click.command(cls=Command)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write it there, for your editor.",
)
@click.pass_obj
def schema(given: Given, output: Path | None) -> None:
    """Print the JSON Schema of specs. Needs no database."""
    content = schemas.json_schema()
    text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
    if output is None:
        show_exactly(given, {"schema": content}, text)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.FileError(str(output), error.strerror) from None
    file = output.absolute()
    said = (
        f"Wrote {file}. An editor with a YAML language server checks specs that begin with:\n"
        f"# yaml-language-server: $schema={file}"
    )
    show(given, {"file": str(file)}, said)


async def _slug(work: "Work", persona: str) -> str:
    """Find the persona, and refuse an archived one, before a person has written anything."""
    return (await runtime.usable_persona(work, persona)).slug


async def _opened(work: "Work", persona: str, version: str | None) -> "SpecText":
    return await service.open_spec(work, await _slug(work, persona), version)


def _create(given: Given, persona: str, text: str) -> "SpecDraft":
    return in_work(given, lambda work: service.create_spec(work, persona, text))


def _edited(given: Given, slug: str, text: str) -> _Made | None:
    """Store what a person makes of a text, unless they changed only blanks and notes."""
    before = notation.parse_text(text)

    def act(after: str) -> _Made | None:
        parsed = notation.parse_text(after)
        # Compared as they look: in Python 1 and true are equal.
        if repr(parsed) == repr(before):
            return None
        draft = _create(given, slug, after)
        return _Made(draft, numbered="version" in parsed)

    again = Invalid, service.SpecVersionExists, service.VersionsExhausted
    return edited(slug, ".yaml", text, act, *again)


def _validated(file: str) -> spec_views.FileOutcome:
    name = "input" if file == "-" else file
    try:
        with click.open_file(file, "rb") as source:
            plan = compiler.compile_spec(notation.read_spec(text_of(source)))
    except DramatisError as error:
        return spec_views.FileOutcome(name, None, None, str(error))
    return spec_views.FileOutcome(name, plan.total_tokens, dict(plan.tokens), None)
