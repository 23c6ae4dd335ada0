from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.specs.compiler import compile_spec
from server.specs.document import PersonaSpec
from server.specs.notation import read_spec
from server.specs.selection import known_intents, selected_modules, unknown_intent
from tests.specs import strategies


def a_module(key: str, *intents: str, **rest: Any) -> dict[str, Any]:
    return {"id": key, "intent_labels": list(intents), **rest}


def an_example(key: str, intent: str, prompt: str = "P", **rest: Any) -> dict[str, Any]:
    return {"id": key, "intent_label": intent, "prompt": prompt, "response": "R", **rest}


def chosen(modules: list[dict[str, Any]], intent: str | None = None) -> list[str]:
    spec = read_spec({"procedural_modules": modules})
    return compile_spec(spec, intent=intent).selected_module_ids


def shots(
    examples: list[dict[str, Any]],
    modules: list[dict[str, Any]] | None = None,
    *,
    intent: str | None = None,
    query: str | None = None,
) -> list[str]:
    spec = read_spec({"canonical_examples": examples, "procedural_modules": modules or []})
    return compile_spec(spec, intent=intent, query=query).few_shot_ids


MODULES = [
    a_module("a", "review"),
    a_module("b", "outage"),
    a_module("c"),
    a_module("d", "plan", "review"),
]


def test_modules_of_the_intent_and_those_for_all_are_chosen():
    assert chosen(MODULES, "review") == ["a", "c", "d"]


def test_without_an_intent_all_active_modules_are_chosen():
    assert chosen([*MODULES, a_module("e", active=False)]) == ["a", "b", "c", "d"]


def test_an_intent_without_modules_leaves_those_for_all():
    assert chosen(MODULES, "gardening") == ["c"]
    assert chosen([a_module("a", "review")], "gardening") == []


@pytest.mark.parametrize("intent", ["REVIEW", " Review ", "review"])
def test_an_intent_is_understood_in_any_case(intent: str):
    assert chosen(MODULES, intent) == ["a", "c", "d"]
    assert chosen([a_module("a", "Straße"), a_module("b", "cafe\u0301")], "STRASSE") == ["a"]
    assert chosen([a_module("a", "Straße"), a_module("b", "cafe\u0301")], "CAF\u00c9") == ["b"]


def test_an_inactive_module_is_never_chosen():
    modules = [a_module("a", "review", active=False, do="Hidden.", ban=["hush"])]
    plan = compile_spec(read_spec({"procedural_modules": modules}), intent="review")

    assert (plan.selected_module_ids, plan.text, plan.deterministic_rules.banned) == ([], "", [])


def test_modules_are_ordered_by_priority_and_then_by_id():
    modules = [
        a_module("b"),
        a_module("a", priority=100),
        a_module("B"),
        a_module("z", priority=-5),
        a_module("y", priority=7),
        a_module("10"),
        a_module("9"),
    ]

    assert chosen(modules) == ["z", "y", "10", "9", "B", "a", "b"]


@strategies.patient
@given(strategies.specs, strategies.labels)
def test_a_module_of_another_intent_is_never_chosen(spec: PersonaSpec, intent: str):
    modules = selected_modules(spec, intent)

    wanted = {
        module.id
        for module in spec.procedural_modules
        if module.active
        and intent.casefold() in {*map(str.casefold, module.intent_labels or [intent])}
    }
    assert {module.id for module in modules} == wanted
    assert modules == sorted(modules, key=lambda module: (module.priority, module.id))


def test_examples_that_modules_name_come_first_in_the_order_of_the_modules():
    examples = [an_example(key, "other") for key in "abcde"]
    modules = [a_module("m", few_shot_ids=["c", "a"]), a_module("l", few_shot_ids=["e", "c"])]

    assert shots(examples, modules) == ["e", "c", "a"]


def test_then_come_those_of_the_intent_and_then_those_that_share_words():
    examples = [
        an_example("words", "other", "Please migrate the database"),
        an_example("intent", "Review"),
        an_example("both", "review", "the database"),
        an_example("more", "other", "migrate one database today"),
        an_example("named", "other"),
        an_example("none", "other", "the and for"),
    ]
    modules = [a_module("m", few_shot_ids=["named"])]

    query = "Migrate the database today!"

    found = shots(examples, modules, intent="review", query=query)

    assert found == ["named", "both", "intent", "more"]
    assert shots(examples[2:4], intent="review", query=query) == ["both", "more"]


def test_at_most_four_examples_are_shown_and_ties_go_by_id():
    examples = [an_example(key, "review") for key in "fedcba"]

    assert shots(examples, intent="review") == ["a", "b", "c", "d"]
    assert shots(examples, [a_module("m", few_shot_ids=[*"fedcb"])]) == ["f", "e", "d", "c"]


def test_an_unrelated_example_is_never_padding():
    examples = [an_example("a", "other", "the and for with you"), an_example("b", "other")]

    assert shots(examples) == []
    assert shots(examples, intent="review", query="the and for with you a") == []


def test_tags_and_the_label_count_as_words_of_an_example():
    examples = [an_example("a", "code review"), an_example("b", "x", tags=["postgres"])]

    assert shots(examples, query="POSTGRES?") == ["b"]
    assert shots(examples, query="review it") == ["a"]


def test_words_of_other_scripts_count_whatever_their_length():
    examples = [an_example("a", "x", "数据 库"), an_example("b", "x", "ab cd")]

    assert shots(examples, query="库") == ["a"]
    assert shots(examples, query="ab") == []


def test_examples_named_by_a_module_of_another_intent_are_not_shown():
    modules = [a_module("m", "outage", few_shot_ids=["a"])]

    assert shots([an_example("a", "x")], modules, intent="review") == []
    assert shots([an_example("a", "x")], modules, intent="outage") == ["a"]


@strategies.patient
@given(strategies.specs, st.none() | strategies.labels, st.none() | strategies.texts)
def test_what_is_shown_is_named_or_related(
    spec: PersonaSpec, intent: str | None, query: str | None
):
    plan = compile_spec(spec, intent=intent, query=query)

    named = {key for m in selected_modules(spec, intent) for key in m.few_shot_ids}
    of_intent = {
        one.id
        for one in spec.canonical_examples
        if intent and one.intent_label.casefold() == intent.casefold()
    }
    assert len(plan.few_shot_ids) == len(set(plan.few_shot_ids)) <= 4
    if query is None:
        assert plan.few_shot_ids[: len(named)] == [k for k in plan.few_shot_ids if k in named]
        assert set(plan.few_shot_ids) <= named | of_intent


def test_bans_of_rules_and_modules_are_merged_in_order_without_duplicates():
    spec = read_spec(
        {
            "deterministic_rules": {"banned_phrases": ["b", "a", "b"]},
            "procedural_modules": [
                a_module("late", priority=200, ban=["z", "a"]),
                a_module("soon", priority=1, ban=["c", "b"]),
                a_module("other", "outage", ban=["hidden"]),
            ],
        }
    )

    plan = compile_spec(spec, intent="review")

    assert plan.deterministic_rules.banned == ["b", "a", "c", "z"]
    assert "Never say, write or do:\n\n- b\n- a\n- c\n- z" in plan.rules_text


def test_anti_examples_are_compiled_as_what_not_to_do():
    spec = read_spec({"anti_examples": [an_example("x", "review", "Well?")]})

    assert compile_spec(spec).rules_text == (
        "## Rules\n\nAnswers like these are wrong:\n\n### x\n\nAsked:\n\n```text\nWell?\n```\n\n"
        "Answered:\n\n```text\nR\n```"
    )


def test_anti_examples_of_the_intent_come_before_those_that_share_words():
    anti = [
        an_example("a", "other", "database"),
        an_example("b", "review"),
        an_example("c", "review", "database"),
        an_example("d", "other"),
    ]
    spec = read_spec({"anti_examples": anti})

    plan = compile_spec(spec, intent="REVIEW", query="database")
    compact = compile_spec(spec, intent="REVIEW", query="database", variant="compact")

    assert plan.anti_example_ids == ["c", "b", "a"]
    assert compact.anti_example_ids == ["c", "b"]
    assert compile_spec(spec).anti_example_ids == ["a", "b", "c", "d"]


def test_known_intents_are_those_of_active_modules_and_examples():
    spec = read_spec(
        {
            "procedural_modules": [
                a_module("a", "Review", "plan"),
                a_module("b", "gone", active=False),
            ],
            "canonical_examples": [an_example("e", "review"), an_example("f", "outage")],
        }
    )

    assert known_intents(spec) == ["outage", "plan", "Review"]


@pytest.mark.parametrize("intent", [None, "Outage", " outage ", "CAFE\u0301"])
def test_an_intent_that_something_has_is_no_mistake(intent: str | None):
    assert unknown_intent(intent, ["caf\u00e9", "outage"]) is None


def test_an_intent_that_nothing_has_is_told_with_those_there_are():
    assert unknown_intent("outrage", ["Review", "outage"]) == (
        "No module or example has the intent 'outrage'. Known: Review, outage."
    )
    assert unknown_intent("outrage", []) == "No module or example has the intent 'outrage'."
