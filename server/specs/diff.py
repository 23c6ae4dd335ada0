"""What differs between two specs: in meaning, field by field, and in the text they compile to."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import takewhile
from typing import Any, TypeGuard

from server.specs.compiler import compile_spec
from server.specs.document import PersonaSpec
from server.specs.shapes import Change, TextRow

CONTEXT = 3
LARGEST_COMPARISON = 25_000_000
# What kind of difference, and where in the one text and in the other.
Opcode = tuple[str, int, int, int, int]
IDENTIFIED = ("procedural_modules", "canonical_examples", "anti_examples")


def changes(before: PersonaSpec, after: PersonaSpec) -> list[Change]:
    """List the differences in meaning: mappings by key, modules and examples by id.

    The version is left out, and so is the order of modules and examples, which means nothing.
    Other lists are compared as a whole when their order differs, else item by item.
    """
    old, new = (spec.model_dump(mode="json", exclude={"version"}) for spec in (before, after))
    for content in (old, new):
        for field in IDENTIFIED:
            content[field] = {one.pop("id"): one for one in content[field]}
    return list(_mappings("", old, new))


def compiled(before: PersonaSpec, after: PersonaSpec) -> list[TextRow]:
    """Put the compiled texts side by side, without the long stretches that are the same."""
    old, new = (compile_spec(spec).text.splitlines() for spec in (before, after))
    rows: list[TextRow] = []
    end = 0
    for group in _groups(old, new):
        rows += _skipped(group[0][1] - end)
        for kind, i1, i2, j1, j2 in group:
            rows += _rows(kind, old[i1:i2], new[j1:j2])
        end = group[-1][2]
    return [*rows, *_skipped(len(old) - end if rows else 0)]


def _groups(old: Sequence[str], new: Sequence[str]) -> Iterable[Sequence[Opcode]]:
    """Find what differs, in groups with their context.

    Of very long texts only the beginnings and the ends are compared: the time for a comparison
    grows with the product of their lengths, to a minute for thirty thousand lines.
    """
    if len(old) * len(new) <= LARGEST_COMPARISON:
        # The heuristic is needed: without it, two thousand lines that are much alike take minutes.
        return SequenceMatcher(None, old, new, autojunk=True).get_grouped_opcodes(CONTEXT)
    first = _alike(old, new)
    last = _alike(reversed(old[first:]), reversed(new[first:]))
    i, j = len(old) - last, len(new) - last
    if (first, first) == (i, j):
        return []
    before, behind = max(0, first - CONTEXT), min(last, CONTEXT)
    return [
        [
            ("equal", before, first, before, first),
            ("replace", first, i, first, j),
            ("equal", i, i + behind, j, j + behind),
        ]
    ]


def _alike(old: Iterable[str], new: Iterable[str]) -> int:
    """Count the lines from the start that are the same."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))


def _mappings(at: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for key in sorted(old.keys() | new.keys()):
        path = f"{at}.{key}" if at else key
        if key not in new:
            yield Change(kind="removed", path=path, before=old[key])
        elif key not in old:
            yield Change(kind="added", path=path, after=new[key])
        else:
            yield from _values(path, old[key], new[key])


def _values(path: str, old: Any, new: Any) -> Iterator[Change]:
    if _is_mapping(old) and _is_mapping(new):
        yield from _mappings(path, old, new)
    elif _is_list(old) and _is_list(new):
        yield from _lists(path, old, new)
    elif _written(old) != _written(new):
        yield Change(kind="changed", path=path, before=old, after=new)


def _is_mapping(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _lists(path: str, old: Sequence[Any], new: Sequence[Any]) -> Iterator[Change]:
    old_texts, new_texts = [*map(_written, old)], [*map(_written, new)]
    if old_texts == new_texts:
        return
    known, wanted = set(old_texts), set(new_texts)
    removed = [at for at, text in enumerate(old_texts) if text not in wanted]
    added = [at for at, text in enumerate(new_texts) if text not in known]
    kept = [text for text in old_texts if text in wanted]
    if kept != [text for text in new_texts if text in known] or not (removed or added):
        yield Change(kind="changed", path=path, before=list(old), after=list(new))
    elif removed == added and len(removed) == 1:
        yield Change(kind="changed", path=path, before=old[removed[0]], after=new[added[0]])
    else:
        yield from (Change(kind="removed", path=path, before=old[at]) for at in removed)
        yield from (Change(kind="added", path=path, after=new[at]) for at in added)


def _written(value: Any) -> str:
    """Write a value for comparison: in Python 1 equals true and 1.0, and 0.0 equals -0.0."""
    return json.dumps(value, sort_keys=True)


def _rows(kind: str, old: Sequence[str], new: Sequence[str]) -> Iterator[TextRow]:
    if kind == "equal":
        yield from (TextRow(kind="same", before=line, after=line) for line in old)
        return
    paired = min(len(old), len(new))
    for before, after in zip(old[:paired], new[:paired], strict=True):
        # By that heuristic a frequent line, such as a blank one, can stand beside itself here.
        same = before == after
        yield TextRow(kind="same" if same else "changed", before=before, after=after)
    yield from (TextRow(kind="removed", before=line, after=None) for line in old[paired:])
    yield from (TextRow(kind="added", before=None, after=line) for line in new[paired:])


def _skipped(lines: int) -> list[TextRow]:
    said = f"{lines} lines that are the same" if lines != 1 else "1 line that is the same"
    return [TextRow(kind="skipped", before=said, after=said)] if lines > 0 else []
