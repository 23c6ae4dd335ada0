"""`dramatis persona`: register personas, find them, change what is recorded of them."""

import sys
from typing import TYPE_CHECKING, Literal

import click

from server.cli import persona_bulk, persona_files, views
from server.cli.options import PERSONA, Given, Group
from server.cli.output import is_terminal, show, show_exactly
from server.cli.sessions import in_app, in_work
from server.errors import Invalid
from server.late import Late

if TYPE_CHECKING:
    from server.jobs import playing
    from server.personas import listing, queries, service
    from server.personas.shapes import Persona
else:
    playing = Late("server.jobs.playing")
    listing = Late("server.personas.listing")
    queries = Late("server.personas.queries")
    service = Late("server.personas.service")


@click.group(cls=Group)
def persona() -> None:
    """Register personas, find them, keep their files."""


@persona.command()
@click.argument("name")
@click.option("--role", required=True, help="Specialisation, e.g. developer.")
@click.option("--description", help="What they are for.")
@click.option(
    "--skill-template",
    type=click.Choice(["standard", "detailed"]),
    help="Sections that skill.md starts with.",
)
@click.pass_obj
def register(
    given: Given, name: str, role: str, description: str | None, skill_template: str | None
) -> None:
    """Register a persona and seed its files.

    The same name and role again makes a second persona.
    """
    registered = in_app(
        given,
        lambda app, caller: service.register_persona(
            app, caller, name=name, role=role, description=description
        ),
        skill_template=skill_template,
    )
    show(given, registered, views.registered(registered))


@persona.command("list")
@click.option("--role", help="Only this role.")
@click.option(
    "--status",
    type=click.Choice(["active", "archived", "all"]),
    default="active",
    show_default=True,
)
@click.option("--text", help="Part of a name, slug or description.")
@click.option("--sort", type=click.Choice(["newest", "role"]), default="newest", show_default=True)
@click.option("--limit", type=int, default=20, show_default=True, help="Personas on a page.")
@click.option("--cursor", help="Where the page before ended.")
@click.pass_obj
def list_(
    given: Given,
    role: str | None,
    status: Literal["active", "archived", "all"],
    text: str | None,
    sort: Literal["newest", "role"],
    limit: int,
    cursor: str | None,
) -> None:
    """List personas, a page at a time."""
    page = in_work(
        given,
        lambda work: listing.list_personas(
            work, role=role, status=status, text=text, sort=sort, limit=limit, cursor=cursor
        ),
    )
    show(given, page, views.page(page))


@persona.command("show")
@PERSONA
@click.pass_obj
def show_(given: Given, persona: str) -> None:
    """Show a persona; when several fit, list them and fail."""
    found = _the_one(given, persona)
    show(given, found, views.persona(found))


@persona.command()
@PERSONA
@click.option("--name", help="New display name. The slug stays.")
@click.option("--description", help="New description; an empty one removes it.")
@click.option("--role", hidden=True)
@click.pass_obj
def edit(
    given: Given, persona: str, name: str | None, description: str | None, role: str | None
) -> None:
    """Rename or describe a persona."""
    _update(given, persona, name=name, description=description, role=role)


@persona.command()
@PERSONA
@click.pass_obj
def archive(given: Given, persona: str) -> None:
    """Retire a persona. It can be restored."""
    _update(given, persona, status="archived")


@persona.command()
@PERSONA
@click.pass_obj
def restore(given: Given, persona: str) -> None:
    """Bring an archived persona back; name it by its slug or id."""
    _update(given, persona, status="active")


@persona.command()
@PERSONA
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete(given: Given, persona: str, yes: bool) -> None:
    """Remove the record of a persona for good. Its files stay on disk."""
    if not yes:
        persona = _confirmed(given, persona)
    deleted = in_work(given, lambda work: service.delete_persona(work, persona))
    show(given, deleted, views.deleted(deleted))


@persona.command()
@PERSONA
@click.argument("task", default="")
@click.pass_obj
def become(given: Given, persona: str, task: str) -> None:
    """Print the prompt that makes an agent the persona, for TASK if one is given."""
    prompt = in_work(given, lambda work: playing.become_persona(work, persona, task))
    show_exactly(given, prompt, prompt.text)


persona.add_command(persona_files.skill)
persona.add_command(persona_files.experience)
persona.add_command(persona_bulk.repair)
persona.add_command(persona_bulk.import_)


def _update(given: Given, reference: str, **changes: str | None) -> None:
    changed = in_work(given, lambda work: service.update_persona(work, reference, **changes))
    show(given, changed, views.persona(changed))


def _the_one(given: Given, reference: str) -> "Persona":
    match = in_work(given, lambda work: queries.get_persona(work, reference))
    if match.persona is None:
        if not given.as_json:
            click.echo(views.candidates(match))
        slugs = ", ".join(candidate.slug for candidate in match.candidates)
        raise queries.AmbiguousPersona(
            f"Several personas fit {reference!r}.", hint=f"Say which by slug: {slugs}."
        )
    return match.persona


def _confirmed(given: Given, reference: str) -> str:
    """Ask about the persona that is meant, and return its slug.

    Raises:
        Invalid: nobody is there to ask.
        click.exceptions.Exit: the answer was no.
    """
    if not is_terminal(sys.stdin):
        raise Invalid("Deleting needs --yes where nobody can be asked.")
    slug = _the_one(given, reference).slug
    if not click.confirm(f"Delete {slug} for good? Its files stay on disk.", err=True):
        click.echo("Nothing was deleted.", err=True)
        raise click.exceptions.Exit(1)
    return slug
