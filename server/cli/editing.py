"""A person's editor on a draft. What they wrote outlives whatever goes wrong afterwards."""

import os
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

import click

from server.cli.failures import report
from server.cli.output import is_terminal
from server.errors import DramatisError, Invalid

T = TypeVar("T")

# A file of the largest size that any service takes, and enough to see that there is more.
LARGEST_READ = 1_000_001


def edited(
    stem: str, suffix: str, text: str, act: Callable[[str], T], *again: type[DramatisError]
) -> T | None:
    """Let a person change a text, and act on what they made of it.

    Args:
        stem: the draft's file name begins with it.
        act: what to do with the changed text.
        again: failures of `act` that more editing can mend. A person on a terminal is asked
            whether to; the editor then opens on what they wrote.

    Returns:
        What `act` returned; `None` when the text was left as it is.
    """
    with _draft(stem, suffix, text) as file:
        while True:
            click.edit(filename=file)
            try:
                after = _left(file)
                return act(after) if after != text else None
            except again as error:
                if not is_terminal(sys.stdin):
                    raise
                report(error, as_json=False)
                if not click.confirm("Edit it again?", default=True, err=True):
                    raise click.exceptions.Exit(1) from None


def _left(file: Path) -> str:
    try:
        with file.open("rb") as source:
            return text_of(source)
    except OSError as error:
        reason = (error.strerror or "the disk refused").lower()
        raise Invalid(f"What the editor left cannot be read: {reason}.") from error


def text_of(source: IO[bytes], largest: int = LARGEST_READ) -> str:
    """Read a text.

    Raises:
        Invalid: it is not UTF-8, or no service would take so much.
    """
    raw = source.read(largest)
    if len(raw) == largest:
        raise Invalid(f"The text is too long: at most {largest - 1:,} bytes are read.")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Invalid("The text is not UTF-8.") from None


@contextmanager
def _draft(stem: str, suffix: str, text: str) -> Generator[Path, None, None]:
    """Make a file that is removed in the end, unless it was changed and then something failed."""
    descriptor, name = tempfile.mkstemp(prefix=f"{stem}-", suffix=suffix)
    file = Path(name)
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as opened:
        opened.write(text)
    try:
        yield file
    except BaseException:
        if file.is_file() and file.read_bytes() != text.encode():
            click.echo(f"What you wrote is kept in {file}", err=True)
            raise
        if not file.is_dir():
            file.unlink(missing_ok=True)
        raise
    file.unlink(missing_ok=True)
