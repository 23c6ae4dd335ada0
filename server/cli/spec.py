"""`dramatis spec`: write versions of how a persona thinks and speaks, compare and publish them."""

from typing import TYPE_CHECKING

import click

from server.cli import spec_checks, spec_compiling, spec_files, spec_publishing, spec_views
from server.cli.options import NO_COLOR, PERSONA, Given, Group
from server.cli.output import progress, show, show_exactly
from server.cli.sessions import in_work
from server.late import Late

if TYPE_CHECKING:
    from server.specs import notation, queries, service
else:
    notation = Late("server.specs.notation")
    queries = Late("server.specs.queries")
    service = Late("server.specs.service")


@click.group(cls=Group)
def spec() -> None:
    """Write, compare and publish persona specs.

    A spec says how a persona thinks and speaks. It has versions, and one of them is active.
    """


@spec.command("list")
@click.argument("persona", default=None, help="List this persona's versions.")
@click.option("--limit", type=int, default=20, show_default=True, help="Lines on a page.")
@click.option("--cursor", help="Where the page before ended.")
@click.pass_obj
def list_(given: Given, persona: str | None, limit: int, cursor: str | None) -> None:
    """List specs, or the versions of one."""
    if persona is None:
        listing = in_work(given, lambda work: queries.overview(work, after=cursor, limit=limit))
        show(given, listing, spec_views.overview(listing))
        return
    listing = in_work(
        given, lambda work: queries.list_specs(work, persona, before=cursor, limit=limit)
    )
    show(given, listing, spec_views.versions(persona, listing))


@spec.command("show")
@PERSONA
@click.argument("version", default=None, help="The active one if left out.")
@click.pass_obj
def show_(given: Given, persona: str, version: str | None) -> None:
    """Print a version as YAML."""
    detail = in_work(given, lambda work: queries.get_spec(work, persona, version))
    if not given.as_json:
        progress(f"{spec_views.standing(detail)}\n")
    show_exactly(given, detail, notation.as_yaml(notation.read_spec(detail.document)))


@spec.command()
@PERSONA
@click.argument("before", default=None, help="The active version if left out.")
@click.argument("after", default=None, help="The highest version if left out.")
@click.option("--side-by-side", is_flag=True, help="Show the compiled texts in two columns.")
@NO_COLOR
@click.pass_obj
def diff(
    given: Given, persona: str, before: str | None, after: str | None, side_by_side: bool
) -> None:
    """Compare two versions.

    What they mean comes first, then the prompts they compile to.
    """
    found = in_work(given, lambda work: service.diff_specs(work, persona, before, after))
    show(given, found, spec_views.diff(found, side_by_side=side_by_side))


@spec.command()
@PERSONA
@click.pass_obj
def generate(given: Given, persona: str) -> None:
    """Store a draft made from what is known.

    That is skill.md, name, role, description and the examples of an earlier version. Nothing is
    published.
    """
    draft = in_work(given, lambda work: service.generate_spec(work, persona))
    show(given, draft, spec_views.stored(draft))


for _command in (
    spec_files.new,
    spec_files.example,
    spec_files.edit,
    spec_files.validate,
    spec_files.schema,
    spec_compiling.compile_,
    spec_checks.check,
    spec_publishing.publish,
    spec_publishing.rollback,
):
    spec.add_command(_command)
