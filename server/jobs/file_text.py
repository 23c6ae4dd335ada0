"""The lines of a file as they leave for a model: so many at a time, and none with a secret."""

from collections.abc import Sequence, Set

from server.personas.shapes import Shape
from server.standards.secrets import find_secrets
from server.visible import lines_of

ANSWER_BYTES = 64 * 1024
WITHHELD = "[line withheld: it looks like a secret]"


class FileText(Shape):
    """Lines of a file, which count from 1.

    Attributes:
        last_line: of this text; one before `first_line` when there is none.
        truncated: whether less came back than was asked for.
        next_line: where to read on, when lines that were asked for are missing.
        withheld_lines: how many lines of this text are notes in the place of secrets.
    """

    path: str
    text: str
    first_line: int
    last_line: int
    total_lines: int
    size_bytes: int
    truncated: bool
    next_line: int | None
    withheld_lines: int


def lines_between(
    path: str,
    text: str,
    size_bytes: int,
    withheld: Set[int],
    first_line: int,
    last_line: int | None,
) -> FileText:
    """Take lines from a text, as many as fit into an answer; `None` stands for the last one."""
    lines = lines_of(text)
    if not lines[-1]:
        # A line break ends a line, and no other begins with it.
        lines.pop()
    first, last = max(1, first_line), max(0, len(lines) if last_line is None else last_line)
    asked = [
        WITHHELD if number in withheld else line
        for number, line in enumerate(lines[first - 1 : last], first)
    ]
    given, cut = _fitting(asked)
    end = first + len(given) - 1
    missing = len(given) < len(asked)
    return FileText(
        path=path,
        text="\n".join(given),
        first_line=first,
        last_line=end,
        total_lines=len(lines),
        size_bytes=size_bytes,
        truncated=cut or missing,
        next_line=end + 1 if missing else None,
        withheld_lines=sum(first <= number <= end for number in withheld),
    )


def _fitting(asked: Sequence[str]) -> tuple[list[str], bool]:
    """Take the lines that fit into an answer; of one that does not fit by itself, its beginning."""
    given: list[str] = []
    room = ANSWER_BYTES
    for line in asked:
        room -= len(line.encode()) + 1
        if room < 0:
            break
        given.append(line)
    if given or not asked:
        return given, False
    start = asked[0].encode()[:ANSWER_BYTES].decode(errors="ignore")
    return [f"{start} [cut here: the line has {len(asked[0]):,} characters]"], True


def secret_lines(text: str) -> Set[int]:
    """Find the lines that must not leave. For 2 MB that can take seconds."""
    secrets = find_secrets(text)
    found = {secret.line for secret in secrets}
    # Of a private key the search finds the header. Texts mention such headers, too, without an end.
    headers = {secret.line for secret in secrets if secret.kind == "a private key"}
    ends = {number for number, line in enumerate(lines_of(text), 1) if _ends_key(line)}
    last, within = max(ends, default=0), False
    for number in range(1, last + 1):
        within = within or number in headers
        if within:
            found.add(number)
        within = within and number not in ends
    return found


def _ends_key(line: str) -> bool:
    return "END " in line and "PRIVATE KEY" in line
