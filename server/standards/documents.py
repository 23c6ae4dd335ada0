"""Standards as files: Markdown that may begin with front matter.

Who made and who approved a text are claims here. Whether they hold is known from the database.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from typing import Annotated

import yaml
from pydantic import AfterValidator, BeforeValidator, JsonValue, ValidationError

from server.personas.shapes import Shape, storable
from server.standards.passages import title_of
from server.standards.shapes import Tag

# The front matter of the longest standard has a few hundred characters. PyYAML is slow.
FRONT_MATTER_LENGTH = 20_000
DEPTH = 20

_FRONT_MATTER = re.compile(r"---[ \t]*\n(?P<yaml>(?s:.*?)\n)??---[ \t]*\n")
# Editors for Windows put a mark of the byte order in front, and joining files puts it elsewhere.
_BLANK_IN_FRONT = re.compile(r"(?:[ \t\ufeff]*\n)*\ufeff*")
# What is neither of these is text. They are narrower than those of YAML 1.1, for which `010` is
# eight and `1:30` ninety, and so every text that the dumper leaves unquoted is read as text again.
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]+(?:[eE][-+][0-9]+)?")
_WORDS = {
    written: value
    for word, value in (("true", True), ("false", False), ("null", None), ("~", None), ("", None))
    for written in (word, word.capitalize(), word.upper())
}


def _instant(value: object) -> datetime:
    if isinstance(value, str):
        value = datetime.fromisoformat(value.strip())
    if not isinstance(value, datetime):
        raise ValueError("must be a date")
    try:
        moment = value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    except OverflowError:
        raise ValueError("must be in the years 1 to 9999") from None
    return moment.replace(microsecond=0)


def _listed(value: JsonValue) -> object:
    match value:
        case None:
            return ()
        case str():
            return [tag for tag in value.split(",") if tag.strip()]
        case list():
            return [str(tag) if type(tag) is int else tag for tag in value]
        case _:
            return value


Instant = Annotated[datetime, BeforeValidator(_instant)]
ListedTags = Annotated[
    tuple[Tag, ...],
    BeforeValidator(_listed),
    AfterValidator(lambda tags: tuple(dict.fromkeys(tags))),
]


class FrontMatter(Shape):
    """What a file says of itself.

    Attributes:
        approved_sha256: `body_sha256` of the text that was approved.
        created_at: without a zone it is UTC; fractions of a second are dropped.
        others: whatever else people keep there.
    """

    created_by: str | None = None
    approved_by: str | None = None
    approved_sha256: str | None = None
    created_at: Instant | None = None
    last_updated: Instant | None = None
    tags: ListedTags = ()
    others: Mapping[str, JsonValue] = {}


_OURS = FrontMatter.model_fields.keys() - {"others"}


@dataclass(frozen=True, slots=True)
class Document:
    """A file of a standard, taken apart.

    Attributes:
        body: in the form that `write_document` gives it.
        body_line: the line of the file at which the body begins, from 1.
        title: the first heading of level 1.
        problem: why the front matter, or which part of it, cannot be used.
    """

    front: FrontMatter
    body: str
    body_line: int
    title: str | None
    problem: str | None


class _Dumper(yaml.SafeDumper):
    """Writes moments in the form of RFC 3339, and every text so that it is read as it was."""


def _write_text(_: yaml.SafeDumper, text: str) -> yaml.Node:
    # Breaks that only Unicode knows would be folded in any other style.
    style = '"' if len(text.splitlines()) > 1 or text != text.strip() else None
    return yaml.ScalarNode("tag:yaml.org,2002:str", text, style=style)


def _write_moment(_: yaml.SafeDumper, moment: datetime) -> yaml.Node:
    written = moment.isoformat().replace("+00:00", "Z")
    return yaml.ScalarNode("tag:yaml.org,2002:timestamp", written)


_Dumper.add_representer(str, _write_text)
_Dumper.add_representer(datetime, _write_moment)


class _Unusable(Exception):
    """Front matter of which nothing can be used; the message ends a sentence."""


def read_document(text: str) -> Document:
    """Take any text apart; what is wrong with the front matter is said in `problem`.

    Front matter that is no mapping is text between two rules: it stays in the body.
    """
    text, skipped = _in_form(text)
    found = _FRONT_MATTER.match(text)
    front, problem = FrontMatter(), None
    if found is not None:
        try:
            fields = _fields(found["yaml"] or "", first_line=skipped + 2)
        except _Unusable as error:
            problem = f"The front matter cannot be used: it {error}."
        else:
            if fields is None:
                found, problem = None, "The front matter cannot be used: it has no keys."
            else:
                front, problem = _understood(fields)
    end = found.end() if found else 0
    body, blank = _in_form(text[end:])
    line = 1 + skipped + text.count("\n", 0, end) + blank
    return Document(front, body, line, title_of(body), problem)


def write_document(front: FrontMatter, body: str) -> str:
    """Write a file that `read_document` takes apart again; empty front matter is left out.

    Comments within front matter that was read before are not kept.
    """
    body, _ = _in_form(body)
    fields = front.model_dump(exclude={"others"}, exclude_defaults=True)
    fields |= {key: front.others[key] for key in sorted(front.others)}
    if not fields and not _FRONT_MATTER.match(body):
        return body
    head = (
        yaml.dump(fields, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)
        if fields
        else ""
    )
    return f"---\n{head}---\n" + (f"\n{body}" if body else "")


def body_sha256(body: str) -> str:
    """Hash a body in the form that `write_document` gives it."""
    return hashlib.sha256(_in_form(body)[0].encode()).hexdigest()


def claimed_by(document: Document) -> str | None:
    """Return who approved the text as it is, by what the file says of itself."""
    front = document.front
    return front.approved_by if front.approved_sha256 == body_sha256(document.body) else None


def has_front_matter(text: str) -> bool:
    """Tell whether a text begins with front matter, and not with a rule."""
    found = _FRONT_MATTER.match(_in_form(text)[0])
    if found is None:
        return False
    try:
        return _fields(found["yaml"] or "", first_line=2) is not None
    except _Unusable:
        return True


def _in_form(text: str) -> tuple[str, int]:
    """Give a text its one form, and say how many blank lines in front were dropped for that."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").rstrip()
    rest = _BLANK_IN_FRONT.sub("", text, count=1)
    return (f"{rest}\n" if rest else ""), text.count("\n") - rest.count("\n")


def _fields(text: str, *, first_line: int) -> dict[str, JsonValue] | None:
    """Read front matter; `None` when it is no mapping.

    Raises:
        _Unusable: it is no YAML, or more than front matter needs.
    """
    if len(text) > FRONT_MATTER_LENGTH:
        raise _Unusable(f"is longer than {FRONT_MATTER_LENGTH:,} characters")
    try:
        node: yaml.Node | None = yaml.SafeLoader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        at = f" (line {first_line + error.problem_mark.line})" if error.problem_mark else ""
        raise _Unusable(f"is no YAML{at}") from None
    except (yaml.YAMLError, ValueError, OverflowError):
        # PyYAML lets through what Python says of an escaped character that cannot be.
        raise _Unusable("has what YAML does not allow") from None
    except RecursionError:
        raise _Unusable("is nested too deeply") from None
    if node is None:
        return {}
    value = _value(node, set(), DEPTH)
    return value if isinstance(value, dict) else {} if value is None else None


def _value(node: yaml.Node, seen: set[int], depth: int) -> JsonValue:
    """Make JSON of a node. Tags are passed over: nothing is made that a file names."""
    if id(node) in seen:
        raise _Unusable("uses aliases")
    if not depth:
        raise _Unusable("is nested too deeply")
    seen.add(id(node))
    match node:
        case yaml.MappingNode():
            return {_key(key, seen): _value(value, seen, depth - 1) for key, value in node.value}
        case yaml.SequenceNode():
            return [_value(one, seen, depth - 1) for one in node.value]
        case yaml.ScalarNode(style=None):
            return _plain(_storable(node.value))
        case _:
            return _storable(node.value)


def _key(node: yaml.Node, seen: set[int]) -> str:
    # An alias can stand for a key too.
    if not isinstance(node, yaml.ScalarNode) or id(node) in seen:
        raise _Unusable("has a key that is no text")
    seen.add(id(node))
    return _storable(node.value)


def _storable(text: str) -> str:
    """Refuse what can be escaped in YAML, and kept in no database: NUL and half characters."""
    try:
        storable(text).encode()
    except ValueError:
        raise _Unusable("has a character that cannot be stored") from None
    return text


def _plain(text: str) -> JsonValue:
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and isfinite(float(text)):
        return float(text)
    return text


def _understood(fields: Mapping[str, JsonValue]) -> tuple[FrontMatter, str | None]:
    """Use what can be used, and say which fields of ours cannot."""
    others = {key: value for key, value in fields.items() if key not in _OURS}
    ours = {key: value for key, value in fields.items() if key in _OURS}
    try:
        return FrontMatter.model_validate({**ours, "others": others}), None
    except ValidationError as error:
        wrong = {str(one["loc"][0]) for one in error.errors()}
    used = {key: value for key, value in ours.items() if key not in wrong}
    problem = f"Left out of the front matter, as not of their kind: {', '.join(sorted(wrong))}."
    return FrontMatter.model_validate({**used, "others": others}), problem
