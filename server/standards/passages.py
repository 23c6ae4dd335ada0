"""Cut a standard into passages for search: at headings, then between blocks, never within code.

Headings, fences and comments are told apart by the rules of CommonMark, line by line. What stands
in a list or a quotation is not followed further than to where its code begins and ends.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal, NamedTuple

LONGEST = 1200
# A longer one is a paragraph that somebody marked as a heading, and its words are to be shown.
HEADING_LENGTH = 200

_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))??(?:[ \t]+#+)?[ \t]*")
_UNDERLINE = re.compile(r" {0,3}(?:(=+)|-+)[ \t]*")
# Above a line of dashes there can also stand what is indented, quotations, tables, HTML, items.
_TITLE = re.compile(r"(?![\s>|<]|(?:[-+*]|\d{1,9}[.)])(?:\s|$)).+")
_RULE = re.compile(r" {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*")
_FENCE = re.compile(
    r" {0,3}(?P<items>(?:(?:[-+*]|\d{1,9}[.)]) {1,4})*)(?P<fence>`{3,}(?=[^`]*$)|~{3,})"
)
_COMMENT = re.compile(r" {0,3}<!--")
_LINK = re.compile(r"!?\[([^\[\]]*)\]\([^()]*\)")
_MARKED = re.compile(
    r"`++([^`]+)`++|(?<!\w)\*{1,3}(?!\s)([^*]+)(?<!\s)\*{1,3}(?!\w)"
    r"|(?<!\w)_{1,3}(?!\s)([^_]+)(?<!\s)_{1,3}(?!\w)"
)
# As many characters as fit that end with a word, or else as many as fit.
_PIECE = re.compile(rf"\S(?:.{{0,{LONGEST - 2}}}\S)?(?!\S)|\S.{{0,{LONGEST - 1}}}")


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a standard that can be found and shown by itself.

    Attributes:
        title: the heading of level 1 above it, else the title of the standard.
        section: the headings from level 2 down above it; empty above the first of them.
        text: without the heading; empty for a heading with nothing below it.
        line: of the body, from 1, at which the text begins.
    """

    title: str
    section: str
    text: str
    line: int


class _Part(NamedTuple):
    """A line, or the lines of a heading or of closed code; the last is not one of them."""

    kind: Literal["heading", "blank", "code", "line"]
    first: int
    last: int
    level: int = 0
    words: str = ""


@dataclass(slots=True)
class _Section:
    title: str
    path: str
    level: int
    words: str
    line: int
    blocks: list[list[_Part]] = field(default_factory=list[list[_Part]])


def passages(body: str, title: str) -> list[Passage]:
    """Cut a body. A line that is no heading is in one passage; a very long line is in several."""
    lines = _lines(body)
    starts = [0, *accumulate(len(line) + 1 for line in lines)]

    def size(first: int, last: int) -> int:
        return starts[last] - starts[first] - 1

    found: list[Passage] = []
    sections = [*_sections(lines, title)]
    next_levels = [*(section.level for section in sections[1:]), 0]
    for section, next_level in zip(sections, next_levels, strict=True):
        for first, last in _pieces(section.blocks, size):
            text = "\n".join(lines[first:last])
            # Code that has a second line, and be it the one that closes it, is never cut.
            cut = last == first + 1 and len(text) > LONGEST
            texts: list[str] = _PIECE.findall(text) if cut else [text]
            found += [Passage(section.title, section.path, one, first + 1) for one in texts]
        if not section.blocks and section.words and next_level <= section.level:
            found.append(Passage(section.title, section.path, "", section.line))
    return found


def title_of(body: str) -> str | None:
    """Return the first heading of level 1 that has words, without its markup."""
    parts = _parts(_lines(body))
    return next((part.words for part in parts if part.level == 1 and part.words), None)


def _lines(body: str) -> list[str]:
    return body.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _sections(lines: Sequence[str], title: str) -> Iterator[_Section]:
    section = _Section(title, "", 0, "", 1)
    above: list[_Part] = []
    block: list[_Part] = []
    for part in _parts(lines):
        if part.kind == "heading":
            yield section
            above = [*(one for one in above if one.level < part.level), part]
            title = part.words or title if part.level == 1 else title
            path = " > ".join(one.words for one in above if one.level > 1 and one.words)
            section = _Section(title, path, part.level, part.words, part.first + 1)
            block = []
        elif part.kind == "blank":
            block = []
        else:
            if not block:
                section.blocks.append(block)
            block.append(part)
    yield section


def _pieces(
    blocks: Sequence[Sequence[_Part]], size: Callable[[int, int], int]
) -> list[tuple[int, int]]:
    """Fill pieces up with whole blocks; one that is too long is taken apart."""
    pieces: list[tuple[int, int]] = []
    for block in blocks:
        whole = (block[0].first, block[-1].last)
        fits = size(*whole) <= LONGEST
        for first, last in [whole] if fits else [(part.first, part.last) for part in block]:
            if pieces and size(pieces[-1][0], last) <= LONGEST:
                pieces[-1] = (pieces[-1][0], last)
            else:
                pieces.append((first, last))
    return pieces


def _parts(lines: Sequence[str]) -> Iterator[_Part]:
    at = 0
    in_paragraph = False
    while at < len(lines):
        if parts := _verbatim(lines, at):
            in_paragraph = False
        else:
            part = _heading(lines, at, in_paragraph=in_paragraph) or _line(lines, at)
            in_paragraph = part.kind == "line" and not _RULE.fullmatch(lines[at])
            parts = [part]
        yield from parts
        at = parts[-1].last


def _verbatim(lines: Sequence[str], at: int) -> list[_Part]:
    """Take the code or comment that begins here. Both can hold what only looks like a heading.

    A fence that nobody closed holds the rest of the text, which then is not kept whole.
    """
    last = at
    if fence := _FENCE.match(lines[at]):
        if closed := _end_of_code(lines, at, fence):
            return [_Part("code", at, closed)]
        last = len(lines)
    elif _COMMENT.match(lines[at]):
        ends = (one + 1 for one in range(at, len(lines)) if "-->" in lines[one])
        last = next(ends, len(lines))
    return [_line(lines, one) for one in range(at, last)]


def _end_of_code(lines: Sequence[str], at: int, fence: re.Match[str]) -> int | None:
    # Code that begins beside the marker of an item ends with the item, closed or not.
    column = fence.start("fence") if fence["items"] else 0
    for number in range(at + 1, len(lines)):
        line = lines[number].strip(" \t")
        indent = _indent(lines[number])
        if line and indent < column:
            return _end_of_text(lines, number)
        closes = len(line) >= len(fence["fence"]) and not line.strip(fence["fence"][0])
        if closes and indent < column + 4:
            return number + 1
    return None


def _end_of_text(lines: Sequence[str], last: int) -> int:
    while not lines[last - 1].strip():
        last -= 1
    return last


def _indent(line: str) -> int:
    return len(line[: len(line) - len(line.lstrip(" \t"))].expandtabs(4))


def _line(lines: Sequence[str], at: int) -> _Part:
    return _Part("line" if lines[at].strip() else "blank", at, at + 1)


def _heading(lines: Sequence[str], at: int, *, in_paragraph: bool) -> _Part | None:
    line = lines[at]
    if len(line) > HEADING_LENGTH:
        return None
    if found := _HEADING.fullmatch(line):
        return _Part("heading", at, at + 1, len(found[1]), _words(found[2] or ""))
    # CommonMark takes the whole paragraph above the underline. One of several lines is rather
    # text with a rule below it, and as a heading it would not be shown.
    below = lines[at + 1] if at + 1 < len(lines) else ""
    underline = _UNDERLINE.fullmatch(below)
    if underline and not in_paragraph and _TITLE.fullmatch(line) and not _RULE.fullmatch(line):
        return _Part("heading", at, at + 2, 1 if underline[1] else 2, _words(line))
    return None


def _words(heading: str) -> str:
    """Take the markup out of a heading, as far as it is in the way of reading and comparing it."""
    text = _MARKED.sub(r"\1\2\3", _LINK.sub(r"\1", heading))
    return text.replace("`", "").strip()
