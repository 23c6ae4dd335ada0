"""Templates: the shipped ones, and a folder of the operator's that may replace any of them."""

from pathlib import Path

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined

from db.shipped import shipped
from server.errors import Conflict


class TemplateBroken(Conflict):
    code = "template_broken"


def render(templates: Environment, template: str, **values: object) -> str:
    """Render a template.

    Raises:
        TemplateBroken: it cannot be read or rendered, which only an operator's own can do.
    """
    try:
        return templates.get_template(template).render(**values)
    # A template is code of the operator's: it may raise anything.
    except Exception as error:
        raise TemplateBroken(
            f"The template {template} is broken: {error}.",
            hint="Mend it in the folder that DRAMATIS_TEMPLATES names.",
        ) from error


def environment(overrides: Path | None) -> Environment:
    """Make the template environment.

    What people and models wrote comes in as variables only and is never template source. The
    output is Markdown, so `A & B <i>` stays as it is.
    """
    folders = [shipped("server", "templates")]
    if overrides is not None:
        folders.insert(0, overrides)
    return Environment(
        loader=ChoiceLoader([FileSystemLoader(folder) for folder in folders]),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701  # Markdown, not HTML
    )
