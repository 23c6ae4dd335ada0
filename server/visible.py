"""Show what others wrote as it is: whoever says yes to it says yes to what has no shape, too."""

import unicodedata
from itertools import pairwise

_ACTING = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
# Letters and marks without a shape.
_SHAPELESS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")
_STYLES = "\ufe0e\ufe0f"
_SELECTORS = frozenset(map(chr, (*range(0xFE00, 0xFE0E), *range(0xE0100, 0xE01F0))))


def visible(text: str) -> str:
    """Write as escapes what has no shape or acts on its surroundings; lines and tabs stay."""
    return "".join(
        char if char in "\n\t" or _has_shape(char, before) else _escape(char)
        for before, char in pairwise(f"\n{text}")
    )


def lines_of(text: str) -> list[str]:
    # Files of standards end their lines in these ways, and a break of Unicode is none of them.
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _has_shape(char: str, before: str) -> bool:
    if char in _STYLES:
        # They choose how a symbol is drawn, and anywhere else they draw nothing.
        return unicodedata.category(before) in ("So", "Sm", "Po", "Nd")
    return (
        unicodedata.category(char) not in _ACTING
        and char not in _SHAPELESS
        and char not in _SELECTORS
    )


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()
