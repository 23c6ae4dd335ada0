"""Texts to begin with: the outline of a standard, and what agents are asked to do with standards."""

from typing import Annotated

from pydantic import AfterValidator, StringConstraints

from server.errors import parse
from server.markdown import fenced
from server.personas.shapes import Shape, prose
from server.rendering import render
from server.standards.search import search_standards
from server.standards.shapes import DomainName, Hit, Query, TopicName
from server.work import App, Caller

PASSAGES = 8
NAME_SHOWN = 100


class Subject(Shape):
    """What a standard is to be about, as far as that is known."""

    domain: DomainName | None
    topic: TopicName | None
    about: Annotated[str, StringConstraints(strip_whitespace=True), AfterValidator(prose)]


class Matter(Shape):
    """What is to be reviewed."""

    what: Query


def outline(app: App, topic: str) -> str:
    """Make the text that a new standard begins with: its sections, and what belongs in each."""
    words = topic.replace("-", " ")
    return render(app.templates, "standards/standard.md", title=words[:1].upper() + words[1:])


def propose_prompt(app: App, domain: str = "", topic: str = "", about: str = "") -> str:
    """Ask an agent to write and propose a standard.

    Raises:
        Invalid: domain or topic cannot be names.
    """
    asked = parse(Subject, domain=domain or None, topic=topic or None, about=about)
    return render(
        app.templates,
        "prompts/propose_standard.md",
        domain=asked.domain,
        topic=asked.topic,
        about=fenced(asked.about),
        outline=fenced(outline(app, asked.topic or "")),
    )


async def review_prompt(app: App, caller: Caller, what: str) -> str:
    """Ask an agent to review something, with the passages that fit it best.

    Raises:
        Invalid: `what` is blank or too long.
        NoProject, StandardsOutside: see `the_place`.
    """
    asked = parse(Matter, what=what).what
    found = await search_standards(app, caller, asked, limit=PASSAGES)
    return render(
        app.templates,
        "prompts/review_against_standards.md",
        what=fenced(asked),
        found_by=found.found_by,
        note=found.note,
        hits=[
            {
                "file": hit.file,
                "line": hit.line,
                "review": _review(hit),
                "text": fenced(f"{hit.section}\n\n{hit.text}"),
            }
            for hit in found.hits
        ],
    )


def _review(hit: Hit) -> str:
    """Say who stands behind a passage. What a file claims may be any text."""
    name = " ".join((hit.approved_by or "").split())[:NAME_SHOWN]
    match hit.review:
        case "approved":
            return f"approved by {name}"
        case "claimed":
            return f"approved by {name}, as the file itself says"
        case "unreviewed":
            return "unreviewed"
