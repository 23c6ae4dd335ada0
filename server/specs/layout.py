"""Lay out texts in Markdown so that none of them can pass for a part of ours.

What comes from a spec never begins at the left margin: lists indent it, and examples are fenced.
By CommonMark a heading, a rule or an open fence within a list item ends with the item.
"""

from collections.abc import Mapping, Sequence

from pydantic import JsonValue


def item(text: str, marker: str = "- ") -> str:
    """Make a text one item of a list, however many lines it has."""
    lines = text.splitlines() or ["(empty)"]
    # Dashes alone would make a rule of marker and text, and the item would end with its first line.
    if not (marker + lines[0]).strip("- \t"):
        lines[0] = f"\\{lines[0]}"
    if len(lines) > 1:
        indent = " " * len(marker)
        lines[1:] = [indent + line if line else "" for line in lines[1:]]
    return marker + "\n".join(lines)


def bullets(texts: Sequence[str]) -> str:
    return "\n".join(item(text) for text in texts)


def numbered(texts: Sequence[str]) -> str:
    return "\n".join(item(text, f"{number}. ") for number, text in enumerate(texts, start=1))


def outline(mapping: Mapping[str, JsonValue]) -> str:
    """Make a mapping a nested list, with its keys sorted at every depth."""
    return "\n".join(_entry(f"{key}:", mapping[key]) for key in sorted(mapping))


def labelled(label: str, texts: Sequence[str], *, ordered: bool = False) -> str:
    """Make an item of one text, or of a list below the label."""
    if not texts:
        return ""
    if len(texts) == 1:
        return item(f"{label}: {texts[0]}")
    listed = numbered(texts) if ordered else bullets(texts)
    return item(f"{label}:\n{listed}")


def _entry(label: str, value: JsonValue) -> str:
    """Lay out one value of a mapping, or of a list without a label, as an item."""
    match value:
        case dict() if value:
            inner = outline(value)
        case list() if value:
            inner = "\n".join(_entry("", one) for one in value)
        case _:
            return item(f"{label} {_scalar(value)}".strip())
    return item(f"{label}\n{inner}" if label else inner)


def _scalar(value: JsonValue) -> str:
    match value:
        case True:
            return "yes"
        case False:
            return "no"
        case None:
            return "(none)"
        case str():
            return value or "(empty)"
        case int() | float():
            return repr(value)
        case _:
            return "(none)"
