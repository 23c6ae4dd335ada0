"""Compare two texts line by line, in a time that no text can stretch."""

import difflib
import re
from collections.abc import Sequence
from itertools import takewhile

# The comparison takes time that grows with the product of the lines, to seconds beyond this.
LARGEST_COMPARISON = 1_000_000
BEFORE, AFTER = "as it is", "as proposed"


def diff(before: str, after: str) -> list[str]:
    """Compare two texts as files of standards: how their lines end makes no difference.

    Lines end where files have them end. What only Unicode takes for a break stays within its line,
    so that a person sees that it came or went. Where very long texts differ, all the lines between
    the first and the last that differ are replaced, and only counted.
    """
    old, new = (
        re.split(r"\r\n?|\n", text.strip()) if text.strip() else [] for text in (before, after)
    )
    first = _alike(old, new)
    last = _alike(old[first:][::-1], new[first:][::-1])
    gone, come = old[first : len(old) - last], new[first : len(new) - last]
    if len(gone) * len(come) > LARGEST_COMPARISON:
        return [
            f"--- {BEFORE}",
            f"+++ {AFTER}",
            f"@@ -{first + 1},{len(gone)} +{first + 1},{len(come)} @@",
            f"-({len(gone):,} lines, too many to compare)",
            *(f"+{line}" for line in come),
        ]
    # With the heuristic, or lines that stand many times would cost as much again.
    return [*difflib.unified_diff(old, new, BEFORE, AFTER, lineterm="")]


def _alike(old: Sequence[str], new: Sequence[str]) -> int:
    """Count the lines from the start that are the same."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))
