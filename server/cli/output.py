"""What goes to standard output: one JSON document, or text for a person."""

import json
import shutil
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO, TypeAlias

import click
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from server.cli.options import Given

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SCHEMA_VERSION = 1
NARROWEST_COLUMN = 8
BETWEEN_COLUMNS = 2

Document: TypeAlias = "BaseModel | Mapping[str, object] | DataclassInstance"


def show(given: Given, shape: Document, text: str) -> None:
    """Print the shape as JSON if that was asked for, else the text."""
    if given.as_json:
        click.echo(document(shape))
    else:
        click.echo(text)


def show_exactly(given: Given, shape: Document, text: str) -> None:
    """Print a file's text as it is, so that it can be piped into a file.

    On a terminal, where they would act, control characters are replaced: agents write these files.
    """
    if given.as_json:
        click.echo(document(shape))
    elif is_terminal(sys.stdout):
        click.echo(harmless(text), nl=not text.endswith("\n"))
    else:
        click.echo(text.encode(), nl=False)


def document(shape: Document) -> bytes:
    """Write a JSON document in UTF-8, whatever the locale (RFC 8259)."""
    whole = {"schemaVersion": SCHEMA_VERSION, **to_jsonable_python(shape)}
    return json.dumps(whole, ensure_ascii=False, indent=2).encode("utf-8", "replace")


def progress(text: str) -> None:
    """Say what takes its time, to a person who waits."""
    if is_terminal(sys.stderr):
        click.echo(text, err=True)


def table(
    headers: Sequence[str], rows: Sequence[Sequence[object]], *, cuttable: Sequence[str] = ()
) -> str:
    """Lay out rows under headers.

    Args:
        cuttable: headers of the columns that may lose their ends on a narrow terminal. What
            people copy, such as slugs, stays whole.
    """
    from tabulate import tabulate

    # As headers they would get two more blanks each.
    cells = [[_cell(value) for value in row] for row in (headers, *rows)]
    if is_terminal(sys.stdout):
        elastic = [headers.index(header) for header in cuttable]
        cells = _fitted(cells, elastic, shutil.get_terminal_size().columns)
    return tabulate(cells, tablefmt="plain", disable_numparse=True)


def fields(pairs: Mapping[str, object]) -> str:
    """Lay out names and the values there are; a value may have several lines."""
    from tabulate import tabulate

    rows = [(name, harmless(_text(value))) for name, value in pairs.items() if value is not None]
    return tabulate(rows, tablefmt="plain", disable_numparse=True)


def harmless(text: str) -> str:
    """Show control characters instead of letting them act on the terminal."""
    return "".join(
        char
        if char in "\n\t" or unicodedata.category(char) != "Cc"
        else "\N{REPLACEMENT CHARACTER}"
        for char in text
    )


def is_terminal(stream: TextIO | None) -> bool:
    """Tell whether a person reads along; a closed stream is `None`."""
    return stream is not None and stream.isatty()


def moment(value: datetime) -> str:
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%MZ}"


def _cell(value: object) -> str:
    return harmless(" ".join(_text(value).split()))


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return moment(value)
    return str(value)


def _fitted(cells: list[list[str]], elastic: list[int], columns: int) -> list[list[str]]:
    """Cut the widest of the elastic columns until the table fits, or they are all narrow."""
    from wcwidth import clip, wcswidth

    widths = [max(map(wcswidth, column)) for column in zip(*cells, strict=True)]
    room = columns - BETWEEN_COLUMNS * (len(widths) - 1)
    while sum(widths) > room:
        widest = max(elastic, key=lambda column: widths[column], default=None)
        if widest is None or widths[widest] <= NARROWEST_COLUMN:
            break
        widths[widest] -= 1
    return [
        [
            text if wcswidth(text) <= width else clip(text, 0, width - 1).rstrip() + "…"
            for text, width in zip(row, widths, strict=True)
        ]
        for row in cells
    ]
