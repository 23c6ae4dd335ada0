# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# PyYAML's type stubs leave out what its nodes and marks are.
"""YAML with the data types of YAML 1.2, without aliases and tags, and with each key once."""

import re
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

# More than a number of 64 bits has in any notation; Python refuses thousands of them in its own way.
DIGITS = 80
TEXT = "tag:yaml.org,2002:str"
KEY_SHOWN = 60


def read_integer(text: str) -> int:
    """Read an integer of YAML 1.2 or JSON."""
    if len(text) > DIGITS:
        raise ValueError("an integer has at most 64 bits")
    return int(text, 0) if text.startswith(("0o", "0x")) else int(text)


def brief_key(key: object) -> str:
    said = repr(key)
    return said if len(said) <= KEY_SHOWN else f"{said[: KEY_SHOWN - 1]}…"


class Loader(yaml.SafeLoader):
    """Reads texts as they look: only `true`, `null` and numbers are anything else."""

    yaml_implicit_resolvers = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise ComposerError(
                None,
                None,
                "aliases are not supported: repeat the text",
                self.peek_event().start_mark,
            )
        if getattr(self.peek_event(), "tag", None) is not None:
            raise ComposerError(
                None,
                None,
                "tags are not supported: put a text in quotes instead",
                self.peek_event().start_mark,
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[str] = set()
        for key_node, _ in node.value:
            if key_node.tag != TEXT:
                raise ConstructorError(
                    None, None, "a key must be text: put it in quotes", key_node.start_mark
                )
            if key_node.value in keys:
                problem = f"the key {brief_key(key_node.value)} is given twice"
                raise ConstructorError(None, None, problem, key_node.start_mark)
            keys.add(key_node.value)
        return super().construct_mapping(node, deep=deep)


class Dumper(yaml.SafeDumper):
    """Writes what `Loader` reads back, and texts of several lines as blocks."""

    yaml_implicit_resolvers = {}

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        # Items of a list stand further in than its key.
        super().increase_indent(flow, False)


def _write_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # Breaks that only Unicode knows would be folded in every style but this one.
    breaks = len(text.splitlines()) - 1
    style = "|" if breaks and text.count("\n") == breaks else '"' if breaks else None
    return dumper.represent_scalar(TEXT, text, style=style)


Dumper.add_representer(str, _write_text)
# The core schema of YAML 1.2.2, section 10.3. PyYAML's own is that of 1.1, where `no` is false,
# `1:30` is ninety and a date is no text.
for _class in (Loader, Dumper):
    for _tag, _pattern, _first in (
        ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
        (
            "float",
            r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
            "-+0123456789.",
        ),
    ):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first)
        )


def _read_integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return read_integer(loader.construct_scalar(node))


def _read_float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(
        loader.construct_scalar(node).lower().replace(".inf", "inf").replace(".nan", "nan")
    )


Loader.add_constructor("tag:yaml.org,2002:int", _read_integer)
Loader.add_constructor("tag:yaml.org,2002:float", _read_float)
