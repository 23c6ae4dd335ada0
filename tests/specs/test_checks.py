import json
from typing import Any

import pytest

from server.errors import Invalid
from server.specs.checks import Check, Checks, read_checks, run_checks
from server.specs.notation import SpecNotReadable, read_spec
from server.specs.shapes import CheckOutcome

KNOWN = ", ".join(Check.model_fields)
SPEC = read_spec(
    {
        "constitution": ["Say what is\n  TRUE, always."],
        "identity_voice": {"tone": "dry"},
        "procedural_modules": [
            {"id": "review", "intent_labels": ["review"], "do": "Read all of it.", "ban": ["LGTM"]},
            {"id": "outage", "intent_labels": ["outage"], "do": "Stop the bleeding."},
        ],
        "canonical_examples": [
            {"id": "e", "intent_label": "other", "prompt": "database", "response": "Postgres."}
        ],
        "deterministic_rules": {"banned_phrases": ["AI", "as an\nAI model", "C++"]},
    }
)


def failures(**check: Any) -> list[str]:
    checks = Checks.model_validate({"checks": [{"name": "it", **check}]})
    [outcome] = run_checks(checks, SPEC)
    assert outcome == CheckOutcome(
        name="it", passed=not outcome.failures, failures=outcome.failures
    )
    return outcome.failures


def refusal(text: str) -> str:
    with pytest.raises(Invalid) as refused:
        read_checks(text)
    return str(refused.value)


@pytest.mark.parametrize(
    ("check", "failed"),
    [
        ({"must_contain": ["say what is true", "Stop  the\nBLEEDING"]}, []),
        ({"must_contain": ["dry", "wet"]}, ["lacks 'wet'"]),
        ({"must_contain": ["x" * 80]}, [f"lacks '{'x' * 59}…'"]),
        ({"must_not_contain": ["sorry"]}, []),
        ({"must_not_contain": ["READ ALL", "sorry"]}, ["contains 'READ ALL'"]),
        ({"section_order": ["constitution", "style", "modules", "rules"]}, []),
        ({"section_order": ["rules", "style"]}, ["has its sections in the order style, rules"]),
        ({"section_order": ["few_shots", "rules"]}, ["has no section few_shots"]),
        (
            {"section_order": ["rules", "decision_policy", "style"]},
            ["has no section decision_policy", "has its sections in the order style, rules"],
        ),
        ({"max_tokens": 1_000}, []),
        ({"max_tokens": 5}, ["has 63 tokens, more than 5"]),
        ({"sample_answer": "I said: Thai food, aimed at C."}, []),
        ({"sample_answer": "Sure, ai!"}, ["bans 'AI', which the sample answer says"]),
        (
            {"sample_answer": "As an AI model I like C++."},
            [
                "bans 'AI', which the sample answer says",
                "bans 'as an\\nAI model', which the sample answer says",
                "bans 'C++', which the sample answer says",
            ],
        ),
        (
            {"sample_answer": "LGTM", "intent": "review"},
            ["bans 'LGTM', which the sample answer says"],
        ),
        ({"sample_answer": "LGTM", "intent": "outage"}, []),
        (
            {"must_contain": ["Stop the bleeding"], "intent": "review"},
            ["lacks 'Stop the bleeding'"],
        ),
        ({"must_contain": ["Postgres"]}, ["lacks 'Postgres'"]),
        ({"must_contain": ["Postgres"], "query": "which database?"}, []),
        ({"must_contain": ["- review: read all of it."], "variant": "compact"}, []),
        (
            {"must_contain": ["wet"], "must_not_contain": ["dry"], "max_tokens": 1},
            ["lacks 'wet'", "contains 'dry'", "has 63 tokens, more than 1"],
        ),
    ],
)
def test_a_check_says_what_the_prompt_does_not_fulfil(check: dict[str, Any], failed: list[str]):
    assert failures(**check) == failed


def test_checks_are_a_list_or_a_mapping_with_a_list_in_yaml_or_json():
    checks = [{"name": "one", "must_contain": ["🦊"]}, {"name": "two", "max_tokens": 7}]
    expected = Checks(
        checks=[Check(name="one", must_contain=["🦊"]), Check(name="two", max_tokens=7)]
    )

    as_yaml = "- name: one\n  must_contain: [🦊]\n- name: two\n  max_tokens: 7\n"
    written = [json.dumps(checks), json.dumps({"checks": checks}), as_yaml, "checks:\n" + as_yaml]

    assert [read_checks(text) for text in written] == [expected] * 4
    assert read_checks("[]") == read_checks("checks: []") == Checks(checks=[])


def test_checks_may_stand_in_brackets():
    assert read_checks("[{name: it, max_tokens: 1}]") == read_checks("- name: it\n  max_tokens: 1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "- name: it",
            "checks.0: expects nothing: give must_contain, must_not_contain, section_order,"
            " max_tokens or sample_answer.",
        ),
        ("- max_tokens: 1", "checks.0.name: is required."),
        ("- name: it\n  must_contain: abc", "checks.0.must_contain: must be a list."),
        (
            "- name: it\n  must_contain: [' ']",
            "checks.0.must_contain.0: must not be empty or blank.",
        ),
        ("- name: it\n  max_tokens: 0", "checks.0.max_tokens: must be greater than or equal to 1."),
        (
            "- name: it\n  max_tokens: 1\n- name: ' it '\n  max_tokens: 2",
            "Two checks are called 'it'.",
        ),
        (
            "- name: it\n  max_tokens: 1\n  must: x",
            f"checks.0.must: is not known here. Known: {KNOWN}.",
        ),
        ("checks: []\nmore: 1", "more: is not known here. Known: checks."),
        ("{}", "checks: is required."),
    ],
)
def test_checks_that_cannot_be_run_are_refused(text: str, said: str):
    assert refusal(text) == said


def test_an_unknown_section_or_variant_is_refused_with_the_known_ones():
    assert "'constitution', 'decision_policy', 'style'" in refusal(
        "- name: it\n  section_order: [middle]"
    )
    assert "'baseline', 'compact'" in refusal("- name: it\n  max_tokens: 1\n  variant: tiny")


@pytest.mark.parametrize("text", ["", "just text", "7", "null"])
def test_checks_are_no_text(text: str):
    with pytest.raises(SpecNotReadable, match=r"^Checks are a list, or a mapping with a list"):
        read_checks(text)


def test_a_hundred_checks_are_the_most():
    hundred = [{"name": f"c{i}", "max_tokens": 1} for i in range(100)]

    assert len(read_checks(json.dumps(hundred)).checks) == 100
    assert refusal(json.dumps([*hundred, {"name": "c", "max_tokens": 1}])) == (
        "checks: must have at most 100 items."
    )
