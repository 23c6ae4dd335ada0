"""Put texts of others into a Markdown document, and say how large they are."""

import math
import re

# A rough average that counts other scripts than ASCII for more. It protects a context window; it
# bills nobody.
BYTES_PER_TOKEN = 4


def tokens(text: str) -> int:
    """Estimate the tokens of a text."""
    return math.ceil(size_bytes(text) / BYTES_PER_TOKEN)


def size_bytes(text: str) -> int:
    return len(text.encode())


def fenced(text: str) -> str:
    """Fence a text so that nothing in it can close the fence; a blank one is left out."""
    return fenced_as_is("\n".join(without_margins(text).splitlines()))


def fenced_as_is(text: str) -> str:
    """Fence a text without a change; an empty one is left out."""
    if not text:
        return ""
    # Nearly every text has none, and that is found much faster than how long they are.
    runs: list[str] = re.findall(r"`{3,}", text) if "```" in text else []
    fence = "`" * (max(map(len, runs), default=2) + 1)
    end = "" if text.endswith("\n") else "\n"
    return f"{fence}text\n{text}{end}{fence}"


def may_stand_bare(name: str) -> bool:
    """Tell whether a name that others gave looks like a path, and so needs no fence."""
    return re.fullmatch(r"[A-Za-z0-9._/-]{1,80}", name) is not None


def without_margins(text: str) -> str:
    """Drop blank lines in front and blanks at the end; an only line is trimmed on both sides."""
    trimmed = text.strip()
    if len(trimmed.splitlines()) < 2:
        return trimmed
    front = text[: text.index(trimmed)]
    # Whatever character may stand behind it, the last line of what is blank in front is an indent.
    return f"{front}|".splitlines()[-1][:-1] + trimmed
