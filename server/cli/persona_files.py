"""`dramatis persona skill` and `experience`: a persona's files."""

from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from server.cli import views
from server.cli.editing import edited, text_of
from server.cli.options import PERSONA, Command, Given
from server.cli.output import show, show_exactly
from server.cli.sessions import in_app, in_work
from server.late import Late

if TYPE_CHECKING:
    from server.personas import files
    from server.personas.shapes import AssetFile, SkillWritten
else:
    files = Late("server.personas.files")


@click.command(cls=Command)
@PERSONA
@click.option("--set", "source", type=click.File("rb"), help="Replace it by a file; - is input.")
@click.option("--edit", is_flag=True, help="Change it in your editor.")
@click.option("--versions", is_flag=True, help="List the texts that are kept.")
@click.option("--restore", metavar="HASH", help="Bring a kept text back.")
@click.option(
    "--expect", metavar="HASH", help="Replace or restore only if this is the text's hash now."
)
@click.pass_obj
def skill(
    given: Given,
    persona: str,
    source: IO[bytes] | None,
    edit: bool,
    versions: bool,
    restore: str | None,
    expect: str | None,
) -> None:
    """Print a persona's skill.md, or replace it."""
    if sum((source is not None, edit, versions, restore is not None)) > 1:
        raise click.UsageError("--set, --edit, --versions and --restore exclude each other.")
    if edit:
        _edit(given, persona)
    elif versions:
        read = in_work(given, lambda work: files.read_files(work, persona, "skill"))
        shape = {"slug": read.slug, "skill_versions": read.skill_versions}
        show(given, shape, views.versions(read.skill_versions))
    elif source is not None:
        _show_written(given, _write(given, persona, content=text_of(source), expected=expect))
    elif restore is not None:
        _show_written(given, _write(given, persona, restored=restore, expected=expect))
    else:
        read = in_work(given, lambda work: files.read_files(work, persona, "skill"))
        _show_file(given, read.slug, read.skill)


@click.command(cls=Command)
@PERSONA
@click.option("--add", metavar="TEXT", help="Put an entry on top; - reads it from the input.")
@click.pass_obj
def experience(given: Given, persona: str, add: str | None) -> None:
    """Print a persona's experience.md, or add an entry to it."""
    if add is None:
        read = in_work(given, lambda work: files.read_files(work, persona, "experience"))
        _show_file(given, read.slug, read.experience)
        return
    entry = text_of(click.open_file("-", "rb")) if add == "-" else add
    added = in_work(given, lambda work: files.add_experience(work, persona, entry))
    show(given, added, f"Added to {added.path} under: {added.heading}")


def _edit(given: Given, reference: str) -> None:
    """Let a person change the text, and store it unless somebody else did meanwhile."""
    read = in_work(given, lambda work: files.read_files(work, reference, "skill"))
    before = (read.skill and read.skill.content) or ""
    expected = read.skill.sha256 if read.skill else None
    written = edited(
        read.slug,
        ".md",
        before,
        lambda after: _write(given, read.slug, content=after, expected=expected),
    )
    if written is None:
        show(given, {"slug": read.slug, "changed": False}, "Nothing was changed.")
    else:
        _show_written(given, written)


def _write(
    given: Given,
    reference: str,
    *,
    content: str | None = None,
    restored: str | None = None,
    expected: str | None = None,
) -> "SkillWritten":
    return in_app(
        given,
        lambda app, caller: files.write_skill(
            app,
            caller,
            reference,
            content=content,
            restore_sha256=restored,
            expected_sha256=expected,
        ),
    )


def _show_written(given: Given, written: "SkillWritten") -> None:
    show(given, written, views.written(written))


def _show_file(given: Given, slug: str, file: "AssetFile | None") -> None:
    """Print the text alone; that it is absent is an answer, and goes where errors go."""
    assert file is not None
    if file.content is None and not given.as_json:
        name = Path(file.path).name
        click.echo(f"{slug} has no {name}. `dramatis persona repair {slug}` makes it.", err=True)
        return
    show_exactly(given, {"slug": slug, **dict(file)}, file.content or "")
