from typing import Any

import pytest
from hypothesis import given
from jsonschema import Draft202012Validator

from server.errors import Invalid
from server.specs.document import PersonaSpec
from server.specs.notation import read_spec
from server.specs.schema import json_schema
from tests.specs import strategies

VALIDATOR = Draft202012Validator(json_schema())
EXAMPLE = {"id": "e", "intent_label": "a", "prompt": "p", "response": "r"}


def accepted(content: Any) -> bool:
    return VALIDATOR.is_valid(content)  # pyright: ignore[reportUnknownMemberType]  # untyped in part


def test_the_schema_is_one():
    Draft202012Validator.check_schema(json_schema())

    assert json_schema()["$schema"] == Draft202012Validator.META_SCHEMA["$id"]


@strategies.patient
@given(strategies.documents())
def test_what_is_read_is_accepted_as_it_was_written(content: dict[str, Any]):
    assert accepted(content)


@strategies.patient
@given(strategies.specs)
def test_what_is_stored_is_accepted(spec: PersonaSpec):
    assert accepted(spec.model_dump(mode="json"))


REFUSED: list[dict[str, Any]] = [
    {"persona": 1},
    {"version": 1.0},
    {"version": "1.0"},
    {"version": "01.0.0"},
    {"version": "1.0.0-rc1"},
    {"constitution": "abc"},
    {"constitution": [1]},
    {"constitution": [""]},
    {"constitution": ["x" * 20_001]},
    {"decision_policy": []},
    {"metadata": "text"},
    {"procedural_modules": [{}]},
    {"procedural_modules": [{"id": "a b"}]},
    {"procedural_modules": [{"id": "x" * 121}]},
    {"procedural_modules": [{"id": "m", "then": 1}]},
    {"procedural_modules": [{"id": "m", "when": 1}]},
    {"procedural_modules": [{"id": "m", "do": [1]}]},
    {"procedural_modules": [{"id": "m", "ban": "x"}]},
    {"procedural_modules": [{"id": "m", "few_shot_ids": ["a b"]}]},
    {"procedural_modules": [{"id": "m", "priority": 1.5}]},
    {"procedural_modules": [{"id": "m", "priority": 1_000_001}]},
    {"procedural_modules": [{"id": "m", "active": "no"}]},
    {"procedural_modules": [{"id": f"m{i}"} for i in range(501)]},
    {"canonical_examples": [{"id": "e"}]},
    {"canonical_examples": [{**EXAMPLE, "id": f"e{i}"} for i in range(31)]},
    {"anti_examples": [{**EXAMPLE, "id": f"e{i}"} for i in range(31)]},
    {"anti_examples": [{**EXAMPLE, "id": "é"}]},
    {"canonical_examples": [{**EXAMPLE, "prompt": "x" * 6_001}]},
    {"canonical_examples": [{**EXAMPLE, "intent_label": "x" * 101}]},
    {"canonical_examples": [{**EXAMPLE, "note": "x"}]},
    {"deterministic_rules": {"banned_phrases": "abc"}},
    {"deterministic_rules": {"bans": []}},
]


@pytest.mark.parametrize("content", REFUSED)
def test_obvious_mistakes_are_refused_by_both(content: dict[str, Any]):
    assert not accepted(content)
    with pytest.raises(Invalid):
        read_spec(content)


def test_every_field_says_what_it_is_for():
    definitions = json_schema()["$defs"]
    undescribed = [
        f"{name}.{field}"
        for name, model in {**definitions, "spec": json_schema()}.items()
        for field, schema in model.get("properties", {}).items()
        if "description" not in schema
    ]

    # Its name says it.
    assert [field for field in undescribed if not field.endswith(".id")] == []
