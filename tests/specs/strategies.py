"""Specs as people and programs might write them, the nastier the better."""

import json
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from server.specs.document import LARGEST_INTEGER, PersonaSpec
from server.specs.notation import read_spec

# A whole spec takes a while to draw, and a busy machine takes longer.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

# What YAML, JSON and Markdown could take for something of their own.
LOOKALIKES = (
    *("no", "yes", "on", "null", "~", "true", "1", "1.0", "1e5", "0x1F", "0o17", "1_000", "1:30"),
    *(".inf", ".nan", "-.5", "2026-01-01", "<<", "=", "!!str x", "&a", "*a", "%YAML 1.1", "@", "`"),
    *("---", "- -", "--", "-", "...", "***", "___", "- ---", "-\t-", "\\---", "+", "1.", "1. x"),
    *("# Rules", "## Rules", "### a", "## Constitution\n\n1. Obey", "Rules\n=====", "Rules\n---"),
    *(
        "---\n# Evil",
        "-\n## Rules",
        "- -\n\n# Evil",
        "x\n\n    code",
        "> quote",
        "[a]: /b",
        "| a |",
    ),
    *(
        "```",
        "````\n```",
        "~~~",
        "```text\nx\n```",
        "x\n```\n## Rules\n```",
        "```\n# open",
        "`" * 9,
    ),
    *(
        "<!-- ",
        "<script>",
        "<pre>\n\n# x",
        "</div>\n# x",
        "a: b",
        "a #b",
        "{}",
        "[]",
        "'",
        '"',
        "\\",
    ),
    *(
        "a\u2028# b",
        "a\u2029b",
        "é",
        "e\u0301",
        "\u202e# x",
        "שלום",
        "🦊" * 3,
        "\u200b",
        "a\u00a0b",
    ),
    *(
        "a\n\n\nb",
        "a\n  b",
        "    if x:\n        y",
        "  a\n# Evil",
        "a \nb",
        "\ta\n\tb",
        "x\n\t# y",
        "  a  ",
        "\u3000a",
        "long " * 60,
        "x" * 300,
    ),
    *("\u0958", "x\r\ny", "\rx", "\ufeff", "🦊\ufe0f\u200d", "{{7*7}}", "%s", "\u061c"),
)
_CHARACTERS = st.characters(exclude_categories=["Cc", "Cs"], include_characters="\n\t")


def _trims_to_something(text: str) -> bool:
    return bool(text.strip())


lookalikes = st.sampled_from(LOOKALIKES)
texts = st.one_of(
    lookalikes,
    st.text(_CHARACTERS, min_size=1, max_size=60).filter(_trims_to_something),
    st.lists(lookalikes, min_size=2, max_size=4).map("\n".join),
    st.lists(st.sampled_from("-`#~>*_=+ \t\n1.a<[]:"), min_size=1, max_size=24)
    .map("".join)
    .filter(_trims_to_something),
)
ids = st.one_of(
    st.sampled_from(
        ["a", "b", "A", "-", "--", "---", "1.", "a.b", "a:b", "_x_", "no", "1e5", "null"]
    ),
    st.from_regex(r"[A-Za-z0-9._:-]{1,12}", fullmatch=True),
)
# Letters of few scripts: what else a line may hold is the business of the personas.
labels = st.one_of(
    st.sampled_from(
        ["review", "Review", "STRASSE", "straße", "code review", "no", "1e5", "🦊", "# x"]
    ),
    st.from_regex(r"[a-z]{1,8}", fullmatch=True),
)
keys = st.one_of(
    st.sampled_from(
        ["a", "b", "no", "1", "null", "# Rules", "- x", "a: b", "```", "---", "a.b", "🦊"]
    ),
    st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=10),
).filter(_trims_to_something)
_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-LARGEST_INTEGER, LARGEST_INTEGER),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
    st.just(""),
)


def _trimmed_keys_differ(mapping: dict[str, Any]) -> bool:
    return len({key.strip() for key in mapping}) == len(mapping)


def _mappings_of(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(keys, values, max_size=4).filter(_trimmed_keys_differ)


def _deeper(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(values, max_size=3) | _mappings_of(values)


def _depth(value: JsonValue) -> int:
    match value:
        case dict():
            return 1 + max(map(_depth, value.values()), default=0)
        case list():
            return 1 + max(map(_depth, value), default=0)
        case _:
            return 0


values = st.recursive(_scalars, _deeper, max_leaves=6).filter(lambda value: _depth(value) < 7)
mappings = _mappings_of(values)
_some_texts = st.lists(texts, max_size=3)
_lines = _some_texts | texts
versions = st.tuples(*[st.integers(0, 2**31 - 1) | st.integers(0, 12)] * 3).map(
    lambda parts: ".".join(map(str, parts))
)


def examples(unique: st.SearchStrategy[str] = ids) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"id": unique, "intent_label": labels, "prompt": texts, "response": texts},
        optional={"tags": st.lists(labels, max_size=2)},
    )


def _modules(named: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    few_shots = st.lists(st.sampled_from(named), max_size=3) if named else st.just(list[str]())
    return st.fixed_dictionaries(
        {"id": ids},
        optional={
            "intent_labels": st.lists(labels, max_size=2),
            "when": _lines,
            "do": _lines,
            "say_style": _lines,
            "ban": _some_texts,
            "few_shot_ids": few_shots,
            "priority": st.integers(-3, 3),
            "active": st.booleans(),
        },
    )


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a whole spec as it might be written: fields left out, and blanks around texts."""
    both = draw(st.lists(examples(), max_size=7, unique_by=lambda one: one["id"]))
    shown, avoided = both[::2], both[1::2]
    named = [example["id"] for example in shown]
    modules = st.lists(_modules(named), max_size=5, unique_by=lambda one: one["id"])
    rules = dict.fromkeys(("banned_phrases", "anti_style_rules", "format_rules"), _some_texts)
    rest: dict[str, st.SearchStrategy[Any]] = {
        "version": st.none() | versions,
        "constitution": _some_texts,
        "decision_policy": mappings,
        "stance_values": mappings,
        "identity_voice": mappings,
        "interaction_style": mappings,
        "procedural_modules": modules,
        "deterministic_rules": st.fixed_dictionaries({}, optional=rules),
        "metadata": mappings,
    }
    return {
        **draw(st.fixed_dictionaries({}, optional=rest)),
        "canonical_examples": shown,
        "anti_examples": avoided,
    }


specs: st.SearchStrategy[PersonaSpec] = documents().map(read_spec)


@st.composite
def twins(draw: st.DrawFn) -> tuple[PersonaSpec, PersonaSpec]:
    """Draw a spec twice, the second time with its keys, modules and examples in another order."""
    spec = draw(specs)
    content = _shuffled(draw, json.loads(spec.model_dump_json()))
    for field in ("procedural_modules", "canonical_examples", "anti_examples"):
        content[field] = draw(st.permutations(content[field]))
    return spec, read_spec(content)


def _shuffled(draw: st.DrawFn, value: JsonValue) -> Any:
    match value:
        case dict():
            return {key: _shuffled(draw, value[key]) for key in draw(st.permutations([*value]))}
        case list():
            return [_shuffled(draw, one) for one in value]
        case _:
            return value
