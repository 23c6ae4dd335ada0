"""A first spec from what is known of a persona, by rules and not by a model: it invents nothing."""

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

_FENCE = re.compile(r"`{3,}|~{3,}")
_HEADING = re.compile(r"#{1,2}(?:\s|$)")
_BEGINNING = re.compile(r"#{1,2}(?:\s|$)|[-*+]\s|\d+[.)]\s")


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
    sections = _sections(known.skill or "")
    used_skill = bool(sections)
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
        {"id": _id(title, number), "when": [title] if title else [], "do": texts}
        for number, (title, texts) in enumerate(sections.items(), start=1)
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


def _sections(skill: str) -> dict[str, list[str]]:
    """Sort what a skill says under its second-level headings.

    What stands before the first of them is the identity.
    """
    said: dict[str, list[str]] = {}
    title = IDENTITY[0]
    for block in _blocks(_without_comments(skill)):
        heading, text = _title(block), _plain(block)
        if heading is not None:
            title = heading
        elif text:
            said.setdefault(title, []).append(text)
    return said


def _blocks(text: str) -> Iterator[str]:
    """Split a text into headings, bullets and paragraphs. What is fenced is never split."""
    block: list[str] = []
    fence = ""
    for line in text.splitlines():
        bare = line.strip()
        begins = not fence and (not bare or _BEGINNING.match(line) is not None)
        after_heading = not fence and bool(block) and _HEADING.match(block[-1]) is not None
        if begins or after_heading:
            yield "\n".join(block)
            block = []
        block.append(line)
        if not fence:
            mark = _FENCE.match(bare)
            fence = mark[0] if mark else ""
        elif bare.startswith(fence) and not bare.strip(fence[0]):
            fence = ""
    yield "\n".join(block)


def _title(block: str) -> str | None:
    """Return the title of a second-level heading; `None` for anything else."""
    if _HEADING.match(block) is None or not block.startswith("##"):
        return None
    # Hashes may close a heading, but belong to it in "C#".
    return _storable(re.sub(r"(^|\s)#+$", "", block[2:].strip()))


def _plain(block: str) -> str:
    """Return what a block says: no bullet; nothing for a title, a rule and a placeholder."""
    plain = re.sub(r"^\s*([-*+]|\d+[.)])\s+", "", block).strip()
    empty = set(plain) <= set("-*_ ") or re.fullmatch(r"\[[^\]]*\]", plain) is not None
    return "" if empty or _HEADING.match(block) else _storable(plain)


def _without_comments(text: str) -> str:
    """Leave out HTML comments. A regular expression would need hours for a thousand openings."""
    kept: list[str] = []
    at = 0
    while (start := text.find("<!--", at)) >= 0 and (end := text.find("-->", start)) >= 0:
        kept.append(text[at:start])
        at = end + len("-->")
    return "".join([*kept, text[at:]])


def _storable(text: str) -> str:
    """Leave out what a spec refuses: control characters, and more than its texts may hold."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", text).strip()[:TEXT_LENGTH].strip()


def _taken(sections: dict[str, list[str]], titles: Sequence[str]) -> list[str]:
    """Take the sections of these titles out and return what they say."""
    wanted = [title for title in sections if title.strip().lower() in titles]
    return [text for title in wanted for text in sections.pop(title)]


def _listed(key: str, texts: Sequence[str]) -> dict[str, JsonValue]:
    return {key: list(texts)} if texts else {}


def _id(title: str, number: int) -> str:
    stem = re.sub(r"[^A-Za-z0-9._:-]+", "-", title).strip("-").lower()[:100]
    return f"{stem or 'section'}-{number}"
