"""How the difference of two specs looks to a person: by meaning, and as compiled text."""

import json
import shutil
from collections.abc import Iterator, Sequence
from itertools import zip_longest

import click
from pydantic import JsonValue

from server.cli.output import harmless
from server.specs.shapes import Change, SpecDiff, TextRow

MARKS = {"added": "+", "removed": "-", "changed": "~"}
COLOURS = {"+": "green", "-": "red", "~": "yellow"}
BETWEEN = {"same": "   ", "changed": " | ", "removed": " < ", "added": " > ", "skipped": "   "}
NARROWEST = 20
TAB = 4


def diff(found: SpecDiff, *, side_by_side: bool) -> str:
    title = f"{found.slug}: {found.before} → {found.after}"
    if found.before == found.after:
        others = f"`dramatis spec list {found.slug}` has others to name."
        return f"{title}\n\nThat is one version. {others}"
    if not found.changes:
        return f"{title}\n\nThey mean the same."
    parts = [click.style(title, bold=True), meaning(found.changes)]
    if found.compiled:
        columns = _columns if side_by_side else _unified
        parts += [click.style("Compiled", bold=True), "\n".join(columns(found.compiled))]
    else:
        parts.append("They compile to the same prompt.")
    return "\n\n".join(parts)


def as_yaml(value: JsonValue) -> str:
    """Write a part of a document as specs are written."""
    import yaml

    from server.specs.yaml_dialect import Dumper

    return yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=96)


def meaning(changes: Sequence[Change]) -> str:
    return "\n".join(line for change in changes for line in _change(change))


def _change(change: Change) -> Iterator[str]:
    mark = MARKS[change.kind]
    yield _coloured(mark, f"{mark} {_tame(change.path)}")
    if change.kind != "added":
        yield from (_coloured("-", f"    - {line}") for line in _lines(change.before))
    if change.kind != "removed":
        yield from (_coloured("+", f"    + {line}") for line in _lines(change.after))


def _lines(value: JsonValue) -> list[str]:
    if isinstance(value, str):
        return [_tame(line) for line in value.splitlines()] or ['""']
    if isinstance(value, dict):
        # Fields of a module that it does not use would bury those that it does.
        value = {key: one for key, one in value.items() if one != []} or value
    if isinstance(value, dict | list) and value:
        return [_tame(line) for line in as_yaml(value).splitlines()]
    return [json.dumps(value)]


def _unified(rows: Sequence[TextRow]) -> Iterator[str]:
    """List what went and what came of a stretch of changes, as diffs do."""
    came: list[str] = []
    for row in rows:
        if row.kind in ("same", "skipped"):
            yield from came
            came = []
            yield f"  {_tame(row.before)}".rstrip() if row.kind == "same" else _skipped(row)
            continue
        if row.before is not None:
            yield _coloured("-", f"- {_tame(row.before)}")
        if row.after is not None:
            came.append(_coloured("+", f"+ {_tame(row.after)}"))
    yield from came


def _columns(rows: Sequence[TextRow]) -> Iterator[str]:
    """Set the texts in two columns that together are as wide as the terminal."""
    from wcwidth import ljust, wrap

    width = max(NARROWEST, (shutil.get_terminal_size().columns - len(BETWEEN["same"])) // 2)
    for row in rows:
        if row.kind == "skipped":
            yield _skipped(row)
            continue
        left, right = (wrap(_tame(text), width) or [""] for text in (row.before, row.after))
        for old, new in zip_longest(left, right, fillvalue=""):
            first, second = ljust(old, width), new
            if row.kind != "same":
                first, second = _coloured("-", first), _coloured("+", second)
            yield f"{first}{BETWEEN[row.kind]}{second}".rstrip()


def _skipped(row: TextRow) -> str:
    return click.style(f"  … {row.before}", dim=True)


def _coloured(mark: str, text: str) -> str:
    return click.style(text, fg=COLOURS[mark]) if text.strip() else text


def _tame(text: str | None) -> str:
    return harmless(text or "").expandtabs(TAB)
