"""Texts of agents on a terminal: they hide nothing there, and never look like a line of ours.

Each line of theirs has a margin, and so has what a terminal would wrap to the next one.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO

import click

from server.cli.output import is_terminal
from server.visible import lines_of, visible

MARGIN, CONTINUED = "  │", "  ┊"
COLOURS = {"+": "green", "-": "red"}
TAB = 4
# Where a terminal does not say how wide it is.
COLUMNS = 80
NARROWEST = 8


def quoted(text: str, columns: int | None) -> list[str]:
    """Set a text apart by a margin.

    Args:
        columns: of the terminal; `None` elsewhere, where nothing is wrapped.
    """
    return [
        part
        for line in lines_of(text)
        for part in _wrapped(line, columns, f"{MARGIN} ", f"{CONTINUED} ")
    ]


def quoted_diff(diff: Sequence[str], columns: int | None) -> list[str]:
    """Set the lines of a unified diff apart, without the names of what it compares."""
    shown: list[str] = []
    for line in diff[2:]:
        mark, rest = line[:1], line[1:]
        if mark == "@":
            shown.append(click.style(f"  {line}", dim=True))
            continue
        parts = _wrapped(rest, columns, f"{MARGIN}{mark} ", f"{CONTINUED}{mark} ")
        colour = COLOURS.get(mark)
        shown += [click.style(part, fg=colour) if colour else part for part in parts]
    return shown


def labelled(pairs: Iterable[tuple[str, str]], columns: int | None) -> list[str]:
    """Lay out names and values, and leave out those that are empty."""
    there = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in there), default=0)
    blank = " " * (width + 4)
    shown: list[str] = []
    for name, value in there:
        first = f"  {name:<{width}}  "
        for line in lines_of(value):
            shown += _wrapped(line, columns, first, blank)
            first = blank
    return shown


def columns_of(stream: TextIO) -> int | None:
    """Ask a terminal how wide it is; `None` is no terminal."""
    if not is_terminal(stream):
        return None
    return os.get_terminal_size(stream.fileno()).columns or COLUMNS


def _wrapped(line: str, columns: int | None, first: str, then: str) -> Iterator[str]:
    from wcwidth import wrap

    tame = visible(line).expandtabs(TAB)
    parts = [tame]
    if columns is not None:
        width = max(NARROWEST, columns - len(first))
        # Some terminals draw characters of ambiguous width wide, and would wrap for themselves.
        parts = wrap(
            tame, width, drop_whitespace=False, break_on_hyphens=False, ambiguous_width=2
        ) or [""]
    for number, part in enumerate(parts):
        yield f"{then if number else first}{part}".rstrip()
