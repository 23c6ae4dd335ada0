"""Read a list of mappings from YAML or JSON, and where in the file each one begins.

Nothing in a file is carried out: YAML's tags make no objects, and its aliases are not copied.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from server.errors import Invalid

# PyYAML reads about 300 KB in a second.
LARGEST_BYTES = 1_000_000

Pairs = list[tuple[str, object]]


class UnreadableFile(Invalid):
    code = "unreadable_file"


@dataclass(frozen=True, slots=True)
class Line:
    """An item of the list, and the number of the line where it begins.

    `pairs` is `None` when the item is no mapping. A key may be in it twice. A value that is
    neither text nor null stands as something that no shape takes for text.
    """

    number: int
    pairs: Pairs | None


def read_lines(raw: bytes, key: str) -> list[Line]:
    """Read the items of a file that is a list, or a mapping with nothing but a list at `key`.

    Raises:
        UnreadableFile: it is neither, or larger than `LARGEST_BYTES`.
    """
    if len(raw) > LARGEST_BYTES:
        raise UnreadableFile(
            f"The file is larger than {LARGEST_BYTES:,} bytes.", hint="Split it into several."
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnreadableFile("The file is not UTF-8 text.") from None
    try:
        return list(_from_json(text, key) if _is_json(text) else _from_yaml(text, key))
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UnreadableFile(f"The file is no YAML or JSON: {error.problem}{line}.") from None
    except yaml.YAMLError:
        raise UnreadableFile("The file has characters that YAML does not allow.") from None
    except RecursionError:
        raise UnreadableFile("The file nests too deep.") from None


def _is_json(text: str) -> bool:
    """Tell JSON from YAML, which may begin alike but reads fewer escapes, and no tabs."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Object:
    """A JSON object with every pair that it has, also those that share a key."""

    pairs: Pairs


def _from_json(text: str, key: str) -> Iterator[Line]:
    decoder = json.JSONDecoder(object_pairs_hook=_Object)
    whole = decoder.decode(text)
    if not isinstance(_at(key, whole.pairs) if isinstance(whole, _Object) else whole, list):
        raise _no_list(key)
    # Before the list there is nothing but the key, so this is where it begins.
    at = text.index("[") + 1
    number, counted = 1, 0
    while text[at := _next(text, at)] != "]":
        number, counted = number + text.count("\n", counted, at), at
        item, at = decoder.raw_decode(text, at)
        pairs = item.pairs if isinstance(item, _Object) else None
        yield Line(number, pairs and [(name, _plain(value)) for name, value in pairs])


def _next(text: str, at: int) -> int:
    """Step over what separates the items of a JSON list."""
    while text[at] in " \t\r\n,":
        at += 1
    return at


def _plain(value: object) -> object:
    return () if isinstance(value, _Object | list) else value


def _from_yaml(text: str, key: str) -> Iterator[Line]:
    node: object = yaml.SafeLoader(text).get_single_node()
    if isinstance(node, yaml.MappingNode):
        node = _at(key, [(_key(name), value) for name, value in node.value])
    if not isinstance(node, yaml.SequenceNode):
        raise _no_list(key)
    for item in node.value:
        pairs = None
        if isinstance(item, yaml.MappingNode):
            pairs = [(_key(name), _scalar(value)) for name, value in item.value]
        yield Line(item.start_mark.line + 1, pairs)


def _key(node: yaml.Node) -> str:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else "a key that is no text"


def _scalar(node: yaml.Node) -> object:
    """Return text or nothing; what YAML takes for something else, such as 5 or no, is neither."""
    match node.tag:
        case "tag:yaml.org,2002:str":
            return node.value
        case "tag:yaml.org,2002:null":
            return None
        case _:
            return ()


def _at(key: str, pairs: Pairs) -> object:
    unknown = sorted({name for name, _ in pairs} - {key})
    if unknown:
        raise UnreadableFile(f"{unknown[0]}: is not known here.", hint=f"Known: {key}.")
    return pairs[0][1] if len(pairs) == 1 else None


def _no_list(key: str) -> UnreadableFile:
    return UnreadableFile(f"The file is neither a list nor a mapping with a list at `{key}`.")
