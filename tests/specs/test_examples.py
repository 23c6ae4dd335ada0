"""The example specs, and the schema that editors read: both are shipped, and both have to be true."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator, ValidationError, validate

from server.specs.checks import Check, Checks, run_checks
from server.specs.compiler import compile_spec
from server.specs.document import PersonaSpec
from server.specs.examples import ExampleNotFound, example_names, example_text
from server.specs.notation import as_yaml, parse_text, read_spec
from server.specs.schema import json_schema
from server.specs.selection import known_intents
from server.specs.shapes import SECTIONS, Variant

ROOT = Path(__file__).parent.parent.parent
SCHEMA = ROOT / "docs" / "persona-spec.schema.json"
NAMES = ["developer", "product-manager", "security-reviewer", "support"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
MODELINE = "# yaml-language-server: $schema="


def spec(name: str) -> PersonaSpec:
    return read_spec(example_text(name))


def as_an_editor_does(content: Any) -> None:
    """Raise what an editor would mark."""
    validate(content, json_schema(), Draft202012Validator)


def test_there_are_four_examples():
    assert example_names() == NAMES


def test_an_unknown_example_is_refused_with_the_known_ones():
    with pytest.raises(ExampleNotFound, match="No example is called 'poet'") as caught:
        example_text("poet")

    assert caught.value.hint == f"Known: {', '.join(NAMES)}."


@pytest.mark.parametrize("name", ["../prompts/become_persona", "developer.yaml", "", "."])
def test_only_a_name_reads_an_example(name: str):
    with pytest.raises(ExampleNotFound):
        example_text(name)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_gets_its_version_when_it_is_stored(name: str):
    assert spec(name).version is None


@pytest.mark.parametrize("name", NAMES)
def test_an_example_uses_every_part_of_a_spec(name: str):
    unused = PersonaSpec.model_fields.keys() - spec(name).model_fields_set - {"version"}

    assert unused == set()
    assert 4 <= len(spec(name).procedural_modules) <= 7
    assert 3 <= len(spec(name).canonical_examples) <= 5
    assert 1 <= len(spec(name).anti_examples) <= 3


@pytest.mark.parametrize("name", NAMES)
def test_an_example_survives_being_edited(name: str):
    assert read_spec(as_yaml(spec(name))) == spec(name)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_no_stub_and_no_novel(name: str):
    plan = compile_spec(spec(name))

    assert 900 <= plan.total_tokens <= 2_000
    assert [section for section in SECTIONS if not plan.section_texts[section]] == []


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", NAMES)
def test_an_example_compiles_in_every_variant_to_less_than_the_baseline(
    name: str, variant: Variant
):
    baseline = compile_spec(spec(name))

    plan = compile_spec(spec(name), variant=variant)

    assert plan.rules_text
    assert (plan.digest == baseline.digest) is (variant == "baseline")
    assert plan.total_tokens <= baseline.total_tokens


@pytest.mark.parametrize("name", NAMES)
def test_every_intent_of_an_example_selects_a_module_of_its_own(name: str):
    intents = known_intents(spec(name))
    everywhere = {m.id for m in spec(name).procedural_modules if not m.intent_labels}

    selected = {
        intent: set(compile_spec(spec(name), intent=intent).selected_module_ids)
        for intent in intents
    }

    assert len(intents) >= 3
    assert [intent for intent, modules in selected.items() if not modules - everywhere] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_answer_of_an_example_is_reachable_by_its_intent_and_by_its_words(name: str):
    for example in spec(name).canonical_examples:
        by_intent = compile_spec(spec(name), intent=example.intent_label)
        by_words = compile_spec(spec(name), intent=example.intent_label, query=example.prompt)

        assert example.id in by_intent.few_shot_ids
        assert example.id in by_words.few_shot_ids


@pytest.mark.parametrize("name", NAMES)
def test_no_answer_of_an_example_says_what_is_banned(name: str):
    checks = [
        Check(name=example.id, sample_answer=example.response)
        for example in spec(name).canonical_examples
    ]

    outcomes = run_checks(Checks(checks=checks), spec(name))

    assert [outcome for outcome in outcomes if not outcome.passed] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_answer_answers_what_a_right_one_does(name: str):
    intents = {example.intent_label for example in spec(name).canonical_examples}

    assert {example.intent_label for example in spec(name).anti_examples} <= intents


@pytest.mark.parametrize("name", NAMES)
def test_an_editor_finds_the_schema_of_an_example_and_nothing_to_complain_of(name: str):
    first, *_ = example_text(name).splitlines()
    named = ROOT / "templates" / "specs" / first.removeprefix(MODELINE)

    assert first.startswith(MODELINE)
    assert named.resolve() == SCHEMA
    as_an_editor_does(parse_text(example_text(name)))


def test_the_schema_is_a_schema():
    Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize(
    "content",
    [
        {"version": "1.0"},
        {"constitutions": ["x"]},
        {"procedural_modules": [{"id": "x", "ban": "abc"}]},
        {"deterministic_rules": {"banned_phrases": "abc"}},
        {"canonical_examples": [{"id": "x", "intent_label": "x", "prompt": ""}]},
    ],
)
def test_an_editor_marks_what_would_be_refused(content: dict[str, Any]):
    with pytest.raises(ValidationError):
        as_an_editor_does(content)


def test_the_committed_schema_is_that_of_the_code():
    """Renew it with `dramatis spec schema > docs/persona-spec.schema.json`."""
    written = json.dumps(json_schema(), ensure_ascii=False, indent=2) + "\n"

    assert SCHEMA.read_text(encoding="utf-8") == written
