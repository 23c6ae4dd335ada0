"""What may stand in the free mappings of a spec."""

from typing import Any

import pytest
from pydantic import JsonValue

from server.errors import Invalid
from server.specs.notation import read_spec


def refusal(mapping: Any) -> str:
    with pytest.raises(Invalid) as refused:
        read_spec({"identity_voice": mapping})
    return str(refused.value)


def nested(levels: int, *, in_lists: bool = False) -> JsonValue:
    value: JsonValue = "deep"
    for _ in range(levels):
        value = [value] if in_lists else {"a": value}
    return value


def test_a_mapping_keeps_its_types():
    mapping: dict[str, JsonValue] = {
        "text": "no",
        "integer": 2**63 - 1,
        "number": -0.5,
        "whole": 1.0,
        "true": True,
        "none": None,
        "empty": ["", [], {}],
    }

    assert read_spec({"identity_voice": mapping}).identity_voice == mapping
    assert type(read_spec({"identity_voice": mapping}).identity_voice["whole"]) is float


def test_eight_levels_are_the_most():
    assert read_spec({"identity_voice": nested(8)})
    assert refusal(nested(9)) == (
        "identity_voice: a.a.a.a.a.a.a.a.a is nested deeper than 8 levels."
    )
    assert refusal({"a": nested(8, in_lists=True)}) == (
        "identity_voice: a.0.0.0.0.0.0.0.0 is nested deeper than 8 levels."
    )


@pytest.mark.parametrize("levels", [200, 300, 5_000])
def test_a_refusal_of_a_deep_mapping_is_short(levels: int):
    assert len(refusal(nested(levels))) < 100


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_is_finite(number: float):
    assert refusal({"a": {"b": [number]}}) == "identity_voice: a.b.0 must be a finite number."


@pytest.mark.parametrize("number", [2**63, -(2**63), 10**400])
def test_an_integer_has_at_most_64_bits(number: int):
    assert refusal({"a": number}) == "identity_voice: a must be an integer of at most 64 bits."


@pytest.mark.parametrize("key", ["", " ", "\0", "a\nb", "a\u2028b", "x" * 121, chr(0xD800)])
def test_a_key_is_a_line(key: str):
    rule = "has a key that is no line of 1 to 120 visible characters."

    assert refusal({key: 1}) == f"identity_voice: {rule}"
    assert refusal({"a": [{key: 1}]}) == f"identity_voice: a.0 {rule}"


def test_keys_that_differ_in_blanks_only_are_refused():
    assert refusal({"a": 1, " a": 2}) == (
        "identity_voice: has two keys that differ in blanks only."
    )
    assert refusal({"b": {"a": 1, "a ": 2}}) == (
        "identity_voice: b has two keys that differ in blanks only."
    )


def test_a_text_has_a_limit():
    assert read_spec({"identity_voice": {"a": "x" * 20_000}})
    assert refusal({"a": "x" * 20_001}) == (
        "identity_voice: a must have at most 20,000 characters."
    )
