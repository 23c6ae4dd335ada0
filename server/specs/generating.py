"""A first spec from what is known of a persona. Made by rules, not by a model: it invents nothing."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from server.specs.document import TEXT_LENGTH, PersonaSpec
from server.specs.notation import read_spec

# Which part of a spec says what a section of the shipped skill templates says.
CONSTITUTION = ("decision boundaries", "boundaries", "principles", "rules", "values")
IDENTITY = ("core identity", "identity", "about", "who", "role")
PREFERENCES = ("skills & preferences", "skills and preferences", "skills", "preferences")
QUALITY = ("quality bar", "quality", "definition of done")
STYLE = ("communication style", "communication", "style", "tone", "voice")
METHOD = ("working method", "method", "workflow", "process", "how i work")
ANTI = ("anti-patterns", "anti patterns", "antipatterns", "avoid", "never")


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a persona.

    Attributes:
        skill: the text of skill.md; `None` when there is none.
        earlier: the spec whose examples are carried over, and its version.
    """

    name: str
    role: str
    description: str | None
    skill: str | None
    earlier: PersonaSpec | None


def generate(known: Known) -> tuple[PersonaSpec, list[str]]:
    """Sort what is known into the fields of a spec.

    Returns:
        The spec, and what it was made from.

    Raises:
        Invalid: there is more than a spec holds.
    """
    sections = dict(_sections(known.skill or ""))
    used_skill = any(sections.values())
    voice: dict[str, JsonValue] = {"name": known.name, "role": known.role}
    if known.description:
        voice["purpose"] = known.description.strip()
    voice |= _listed("identity", _taken(sections, IDENTITY))
    policy = _listed("preferences", _taken(sections, PREFERENCES))
    policy |= _listed("done_when", _taken(sections, QUALITY))
    style = _listed("how", _taken(sections, STYLE))
    method = _taken(sections, METHOD)
    constitution = _taken(sections, CONSTITUTION)
    anti = _taken(sections, ANTI)
    others: list[dict[str, Any]] = [
        {"id": _id(title, number), "when": [title], "do": texts}
        for number, (title, texts) in enumerate(sections.items(), start=1)
        if texts
    ]
    working_method: dict[str, Any] = {"id": "working-method", "do": method, "priority": 50}
    modules = [working_method] if method else []
    earlier = known.earlier.model_dump(mode="json") if known.earlier else {}
    spec = read_spec(
        {
            "constitution": constitution,
            "decision_policy": policy,
            "identity_voice": voice,
            "interaction_style": style,
            "procedural_modules": [*modules, *others],
            "canonical_examples": earlier.get("canonical_examples", []),
            "anti_examples": earlier.get("anti_examples", []),
            "deterministic_rules": {"anti_style_rules": anti},
        }
    )
    return spec, _sources(known, used_skill=used_skill)


def _sources(known: Known, *, used_skill: bool) -> list[str]:
    sources = ["name and role"]
    if known.description:
        sources.append("description")
    if used_skill:
        sources.append("skill.md")
    if known.earlier and (known.earlier.canonical_examples or known.earlier.anti_examples):
        sources.append(f"examples of {known.earlier.version}")
    return sources


def _sections(skill: str) -> Iterator[tuple[str, list[str]]]:
    """Split a skill by its second-level headings into what each one says.

    What stands before the first of them is the identity.
    """
    merged: dict[str, list[str]] = {}
    title, lines, fence = IDENTITY[0], list[str](), ""
    for line in [*skill.splitlines(), "## "]:
        if mark := re.match(r"\s*(```+|~~~+)", line):
            fence = "" if fence and mark[1].startswith(fence) else fence or mark[1]
        heading = None if fence and line != "## " else re.match(r"##(?:\s+(.*?))?\s*#*$", line)
        if heading is None:
            lines.append(line)
            continue
        merged.setdefault(title, []).extend(_said("\n".join(lines)))
        title, lines = _storable((heading[1] or "").strip()), []
    yield from merged.items()


def _said(text: str) -> list[str]:
    """List the bullets and paragraphs of a text, without its title and unfilled placeholders."""
    text = re.sub(r"(?s)<!--.*?-->", "", text)
    parts = re.split(r"\n\s*\n|\n(?=[-*+] |\d+[.)] )", f"\n{text}")
    said: list[str] = []
    for part in parts:
        plain = re.sub(r"^\s*([-*+]|\d+[.)])\s+", "", part).strip()
        placeholder = re.fullmatch(r"\[[^\]]*\]", plain)
        if plain and not placeholder and not re.match(r"#\s", plain):
            said.append(_storable(plain))
    return [text for text in said if text]


def _storable(text: str) -> str:
    """Leave out what a spec refuses: control characters, and more than its texts may hold."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", text)[:TEXT_LENGTH].strip()


def _taken(sections: dict[str, list[str]], titles: Sequence[str]) -> list[str]:
    """Take the sections of these titles out and return what they say."""
    wanted = [title for title in sections if title.strip().lower() in titles]
    return [text for title in wanted for text in sections.pop(title)]


def _listed(key: str, texts: Sequence[str]) -> dict[str, JsonValue]:
    return {key: list(texts)} if texts else {}


def _id(title: str, number: int) -> str:
    stem = re.sub(r"[^A-Za-z0-9._:-]+", "-", title).strip("-").lower()[:100]
    return f"{stem or 'section'}-{number}"
