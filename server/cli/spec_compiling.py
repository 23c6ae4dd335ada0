"""`dramatis spec compile`: the exact prompt, and what it was made from."""

from typing import IO, TYPE_CHECKING, TypedDict, get_args

import click

from server.cli import spec_views
from server.cli.editing import text_of
from server.cli.options import Command, Given
from server.cli.output import show_exactly
from server.cli.sessions import in_work
from server.late import Late
from server.specs.shapes import Variant

if TYPE_CHECKING:
    from server.specs import compiler, notation, runtime, selection
else:
    compiler = Late("server.specs.compiler")
    notation = Late("server.specs.notation")
    runtime = Late("server.specs.runtime")
    selection = Late("server.specs.selection")


class _Asked(TypedDict):
    intent: str | None
    query: str | None
    variant: str
    budget: int | None


@click.command("compile", cls=Command)
@click.argument("persona", default=None, help="Slug, id, name, or a part of a name.")
@click.argument("version", default=None, help="What runs now if left out.")
@click.option("--file", type=click.File("rb"), help="Compile this file instead; - is input.")
@click.option("--intent", help="Leave out the modules of other intents.")
@click.option("--query", help="Pick the examples that share words with it.")
@click.option(
    "--variant", type=click.Choice(get_args(Variant)), default="baseline", show_default=True
)
@click.option("--budget", type=int, metavar="TOKENS", help="Drop what has no room in it.")
@click.pass_obj
def compile_(
    given: Given,
    persona: str | None,
    version: str | None,
    file: IO[bytes] | None,
    intent: str | None,
    query: str | None,
    variant: str,
    budget: int | None,
) -> None:
    """Print the prompt that a spec compiles to.

    Without VERSION it is what the persona runs with now; with --file, nothing is stored. Standard
    output is the prompt alone, so that its SHA-256 is the digest; what it was made from and what
    was left out go to standard error. A file needs no database.
    """
    if (persona is None) == (file is None):
        raise click.UsageError("Give either a PERSONA or --file.")
    asked = _Asked(intent=intent, query=query, variant=variant, budget=budget)
    if persona is None or file is not None:
        assert file is not None
        _compile_file(given, text_of(file), asked)
        return
    compiled = in_work(given, lambda work: runtime.compiled_prompt(work, persona, version, **asked))
    if not given.as_json:
        unknown = selection.unknown_intent(intent, compiled.known_intents)
        _remark(spec_views.trace(compiled.slug, compiled.trace), *compiled.cuts, unknown)
    show_exactly(given, compiled, compiled.text)


def _compile_file(given: Given, text: str, asked: _Asked) -> None:
    spec = notation.read_spec(text)
    plan = compiler.compile_spec(spec, **asked)
    intents = selection.known_intents(spec)
    if not given.as_json:
        _remark(
            compiler.left_out(plan),
            compiler.over_budget(plan.total_tokens, plan.budget),
            selection.unknown_intent(asked["intent"], intents),
        )
    show_exactly(given, {"text": plan.text, "plan": plan, "known_intents": intents}, plan.text)


def _remark(*sentences: str | None) -> None:
    for sentence in sentences:
        if sentence is not None:
            click.echo(sentence, err=True)
