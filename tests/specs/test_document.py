from collections.abc import Mapping
from typing import Any

import pytest

from server.errors import Invalid
from server.specs.document import Example, Module, PersonaSpec, Rules
from server.specs.notation import SpecTooLarge, canonical, read_spec

LONE = chr(0xD800)
WIDE_ONE = "\uff11"
ARABIC = "\u0661.\u0660.\u0660"


def an_example(key: str = "e", **changes: Any) -> dict[str, Any]:
    return {"id": key, "intent_label": "review", "prompt": "P", "response": "R", **changes}


def refusal(content: Mapping[str, Any]) -> str:
    with pytest.raises(Invalid) as refused:
        read_spec(content)
    return str(refused.value)


@pytest.mark.parametrize("version", ["0.0.0", "1.0.0", "10.20.30", "2147483647.0.0"])
def test_a_version_is_three_numbers(version: str):
    assert read_spec({"version": version}).version == version


def test_blanks_around_a_version_are_trimmed():
    assert read_spec({"version": " \t1.2.3\r\n"}).version == "1.2.3"


@pytest.mark.parametrize(
    "version",
    [
        *(
            "",
            "1",
            "1.0",
            "1.0.0.0",
            "01.0.0",
            "1.00.0",
            "1.0.01",
            "1.0.0-rc1",
            "1.0.0+x",
            "v1.0.0",
        ),
        *(
            "1. 0.0",
            "-1.0.0",
            "+1.0.0",
            "1.0.x",
            "1,0,0",
            "1.0.0\n1",
            ARABIC,
            f"{WIDE_ONE}.0.0",
            "1.0.²",
        ),
        *("2147483648.0.0", "1.99999999999.0", "1.0." + "9" * 5_000),
    ],
)
def test_anything_else_is_no_version(version: str):
    assert refusal({"version": version}) == (
        "version: must be three numbers X.Y.Z without leading zeros or suffix, as in 1.0.0, each"
        " of at most 2,147,483,647."
    )


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("    if x:\n        y", "    if x:\n        y"),
        (" \n\t\r\n\tif x:\r\n\t\ty \n\n", "\tif x:\n\t\ty"),
        ("\n    x  \n", "x"),
        (" \u2028  x\n  y", "  x\n  y"),
    ],
)
def test_what_an_example_quotes_keeps_the_indent_of_its_first_line(written: str, stored: str):
    once = read_spec({"canonical_examples": [an_example(prompt=written, response=written)]})

    assert once.canonical_examples == [
        Example.model_validate(an_example(prompt=stored, response=stored))
    ]
    assert read_spec(canonical(once)) == once


@pytest.mark.parametrize("version", [1, 1.0, True, ["1.0.0"]])
def test_a_version_is_text(version: object):
    assert refusal({"version": version}) == "version: must be text."


def test_every_field_may_be_left_out():
    assert read_spec({}) == PersonaSpec()


def test_a_module_has_defaults():
    spec = read_spec({"procedural_modules": [{"id": "m"}]})

    assert spec.procedural_modules == [
        Module(
            id="m",
            intent_labels=[],
            when=[],
            do=[],
            say_style=[],
            ban=[],
            few_shot_ids=[],
            priority=100,
            active=True,
        )
    ]


def test_one_text_stands_for_a_list_where_a_module_describes():
    spec = read_spec(
        {"procedural_modules": [{"id": "m", "when": "w", "do": "d", "say_style": "s"}]}
    )

    module = spec.procedural_modules[0]
    assert (module.when, module.do, module.say_style) == (["w"], ["d"], ["s"])


def test_texts_lose_the_blanks_around_them_and_carriage_returns():
    spec = read_spec(
        {
            "constitution": ["  a\r\nb\rc \n"],
            "identity_voice": {" tone ": " dry\r\n", "n": [" x "]},
            "canonical_examples": [an_example(" e ", intent_label=" Review ", prompt="\nP\n")],
        }
    )

    assert spec.constitution == ["a\nb\nc"]
    assert spec.identity_voice == {"tone": "dry", "n": ["x"]}
    assert spec.canonical_examples == [
        Example(id="e", intent_label="Review", prompt="P", response="R")
    ]


@pytest.mark.parametrize("field", ["canonical_examples", "anti_examples"])
def test_thirty_examples_are_the_most(field: str):
    thirty = [an_example(f"e{i}") for i in range(30)]

    assert read_spec({field: thirty})
    assert refusal({field: [*thirty, an_example()]}) == f"{field}: must have at most 30 items."


def test_five_hundred_modules_are_the_most():
    modules = [{"id": f"m{i}"} for i in range(500)]

    assert read_spec({"procedural_modules": modules})
    assert refusal({"procedural_modules": [*modules, {"id": "m"}]}) == (
        "procedural_modules: must have at most 500 items."
    )


@pytest.mark.parametrize(
    ("changes", "limit"),
    [({"prompt": "x"}, 6_000), ({"response": "é"}, 6_000), ({"intent_label": "x"}, 100)],
)
def test_texts_of_an_example_have_a_limit(changes: dict[str, str], limit: int):
    [(field, char)] = changes.items()

    assert read_spec({"canonical_examples": [an_example(**{field: char * limit})]})
    assert refusal({"canonical_examples": [an_example(**{field: char * (limit + 1)})]}) == (
        f"canonical_examples.0.{field}: must have at most {limit} characters."
    )


@pytest.mark.parametrize("field", ["id", "intent_label", "prompt", "response"])
def test_an_example_needs_its_texts(field: str):
    blank, missing = an_example(**{field: " \n"}), an_example()
    del missing[field]

    assert refusal({"canonical_examples": [blank]}) == (
        f"canonical_examples.0.{field}: must not be empty or blank."
    )
    assert refusal({"anti_examples": [missing]}) == f"anti_examples.0.{field}: is required."


def test_a_label_may_not_grow_beyond_its_limit_when_it_is_composed():
    grows = chr(0x958) * 51

    assert refusal({"canonical_examples": [an_example(intent_label=grows)]}) == (
        "canonical_examples.0.intent_label: must have at most 100 characters."
    )


def test_labels_that_look_the_same_are_the_same():
    spec = read_spec({"canonical_examples": [an_example(intent_label="cafe\u0301")]})

    assert spec.canonical_examples[0].intent_label == "caf\u00e9"


@pytest.mark.parametrize("key", ["a", "A-b_c.d:e", "1", "-", "x" * 120])
def test_an_id_has_letters_digits_and_four_signs(key: str):
    spec = read_spec({"procedural_modules": [{"id": key}], "anti_examples": [an_example(key)]})

    assert (spec.procedural_modules[0].id, spec.anti_examples[0].id) == (key, key)


@pytest.mark.parametrize("key", ["a b", "a/b", "é", "a\nb", "#", "🦊", "a,b", WIDE_ONE])
def test_an_id_has_nothing_else(key: str):
    assert refusal({"procedural_modules": [{"id": key}]}) == (
        "procedural_modules.0.id: must match pattern '^[A-Za-z0-9._:-]+$'."
    )


def test_an_id_has_at_most_120_characters():
    assert refusal({"procedural_modules": [{"id": "x" * 121}]}) == (
        "procedural_modules.0.id: must have at most 120 characters."
    )


OF_ANOTHER_TYPE: list[tuple[dict[str, Any], str]] = [
    ({"constitution": "abc"}, "constitution: must be a list."),
    ({"constitution": [1]}, "constitution.0: must be text."),
    ({"constitution": [" "]}, "constitution.0: must not be empty or blank."),
    ({"constitution": ["x" * 20_001]}, "constitution.0: must have at most 20000 characters."),
    ({"constitution": None}, "constitution: must be a list."),
    ({"procedural_modules": {"id": "m"}}, "procedural_modules: must be a list."),
    ({"procedural_modules": [{}]}, "procedural_modules.0.id: is required."),
    (
        {"procedural_modules": [{"id": "m", "when": [1]}]},
        "procedural_modules.0.when.0: must be text.",
    ),
    (
        {"procedural_modules": [{"id": "m", "do": {"a": 1}}]},
        "procedural_modules.0.do: must be a list.",
    ),
    (
        {"procedural_modules": [{"id": "m", "ban": "x"}]},
        "procedural_modules.0.ban: must be a list.",
    ),
    (
        {"procedural_modules": [{"id": "m", "intent_labels": "x"}]},
        "procedural_modules.0.intent_labels: must be a list.",
    ),
    (
        {"procedural_modules": [{"id": "m", "intent_labels": ["a\nb"]}]},
        "procedural_modules.0.intent_labels.0: must not contain control characters or line breaks.",
    ),
    (
        {"procedural_modules": [{"id": "m", "few_shot_ids": "e"}]},
        "procedural_modules.0.few_shot_ids: must be a list.",
    ),
    (
        {"procedural_modules": [{"id": "m", "priority": "1"}]},
        "procedural_modules.0.priority: must be a valid integer.",
    ),
    (
        {"procedural_modules": [{"id": "m", "priority": 1_000_001}]},
        "procedural_modules.0.priority: must be less than or equal to 1000000.",
    ),
    (
        {"procedural_modules": [{"id": "m", "priority": -1_000_001}]},
        "procedural_modules.0.priority: must be greater than or equal to -1000000.",
    ),
    (
        {"procedural_modules": [{"id": "m", "priority": True}]},
        "procedural_modules.0.priority: must be a valid integer.",
    ),
    (
        {"procedural_modules": [{"id": "m", "active": "no"}]},
        "procedural_modules.0.active: must be a valid boolean.",
    ),
    ({"anti_examples": [an_example(tags="x")]}, "anti_examples.0.tags: must be a list."),
    (
        {"deterministic_rules": {"banned_phrases": "abc"}},
        "deterministic_rules.banned_phrases: must be a list.",
    ),
    (
        {"deterministic_rules": {"anti_style_rules": [7]}},
        "deterministic_rules.anti_style_rules.0: must be text.",
    ),
    (
        {"deterministic_rules": {"format_rules": {"a": "b"}}},
        "deterministic_rules.format_rules: must be a list.",
    ),
]


@pytest.mark.parametrize(("content", "said"), OF_ANOTHER_TYPE)
def test_a_value_of_another_type_is_refused_with_its_path(content: dict[str, Any], said: str):
    assert refusal(content) == said


@pytest.mark.parametrize(
    "field",
    ["decision_policy", "stance_values", "identity_voice", "interaction_style", "metadata"],
)
@pytest.mark.parametrize("value", ["text", ["a"], 1, None])
def test_a_mapping_is_a_mapping(field: str, value: object):
    assert refusal({field: value}).startswith(f"{field}: must be a")


@pytest.mark.parametrize(
    ("content", "path", "model"),
    [
        ({"persona": 1}, "persona", PersonaSpec),
        ({"procedural_modules": [{"id": "m", "then": "x"}]}, "procedural_modules.0.then", Module),
        ({"canonical_examples": [an_example(note="x")]}, "canonical_examples.0.note", Example),
        ({"anti_examples": [an_example(note="x")]}, "anti_examples.0.note", Example),
        ({"deterministic_rules": {"bans": []}}, "deterministic_rules.bans", Rules),
    ],
)
def test_an_unknown_field_is_named_with_the_known_ones(
    content: dict[str, Any], path: str, model: type[PersonaSpec]
):
    known = ", ".join(model.model_fields)

    assert refusal(content) == f"{path}: is not known here. Known: {known}."


def test_an_id_given_twice_is_refused():
    assert refusal({"procedural_modules": [{"id": "m"}, {"id": " m"}]}) == (
        "procedural_modules: the id 'm' is given twice."
    )
    for field in ("canonical_examples", "anti_examples"):
        assert refusal({field: [an_example("e"), an_example("f"), an_example("e")]}) == (
            f"{field}: the id 'e' is given twice."
        )


def test_ids_differ_in_case():
    assert read_spec({"procedural_modules": [{"id": "m"}, {"id": "M"}]})


def test_an_example_and_an_anti_example_may_not_share_an_id():
    assert refusal({"canonical_examples": [an_example()], "anti_examples": [an_example()]}) == (
        "The id 'e' is that of an example and of an anti-example."
    )


def test_a_module_that_names_an_unknown_example_is_refused_with_both_names():
    assert refusal({"procedural_modules": [{"id": "m", "few_shot_ids": ["ghost"]}]}) == (
        "The module 'm' names 'ghost' in few_shot_ids, which is no canonical example."
    )


def test_a_module_may_not_show_an_anti_example():
    content = {
        "procedural_modules": [{"id": "m", "few_shot_ids": ["e"]}],
        "anti_examples": [an_example()],
    }

    assert refusal(content) == (
        "The module 'm' names 'e' in few_shot_ids, which is an anti-example."
    )


def test_many_problems_are_counted_beyond_the_tenth():
    said = refusal({"constitution": [1] * 14})

    assert said.endswith("constitution.9: must be text. And 4 more.")


@pytest.mark.parametrize(
    "secret", ["hunter2\0", "hunter2" * 3_000, "hunter2" + LONE, "hunter2\x1b"]
)
def test_a_refused_value_is_not_repeated(secret: str):
    said = [
        refusal({"constitution": [secret]}),
        refusal({"metadata": {"a": {"b": secret}}}),
        refusal({"canonical_examples": [an_example(intent_label=secret)]}),
        refusal({"procedural_modules": [{"id": secret}]}),
        refusal({"version": secret}),
        refusal({"deterministic_rules": secret}),
    ]

    assert not [text for text in said if "hunter2" in text]


@pytest.mark.parametrize(
    ("bad", "rule"),
    [
        ("\0", "must not contain the NUL character"),
        ("\x07", "must not contain control characters"),
        ("\x85", "must not contain control characters"),
        (LONE, "must be valid Unicode text"),
    ],
)
def test_a_text_without_a_look_is_refused(bad: str, rule: str):
    text = f"a{bad}b"

    assert refusal({"constitution": [text]}) == f"constitution.0: {rule}."
    assert refusal({"canonical_examples": [an_example(prompt=text)]}) == (
        f"canonical_examples.0.prompt: {rule}."
    )
    assert refusal({"metadata": {"a": [text]}}) == f"metadata: a.0 {rule}."


def test_line_separators_and_tabs_are_text():
    spec = read_spec({"constitution": ["a\u2028b\tc\nd"], "metadata": {"a": "b\u2029c"}})

    assert (spec.constitution, spec.metadata) == (["a\u2028b\tc\nd"], {"a": "b\u2029c"})


def test_a_spec_has_a_limit_in_bytes():
    fits = {"constitution": ["x" * 19_000] * 52}

    assert read_spec(fits)
    with pytest.raises(SpecTooLarge) as refused:
        read_spec({"constitution": ["é" * 19_000] * 27})
    assert str(refused.value) == "The spec is 1,026,362 bytes; the limit is 1,000,000."


def test_defaults_and_left_out_fields_are_stored_alike():
    written: dict[str, Any] = {
        "deterministic_rules": {},
        "procedural_modules": [{"id": "m", "active": True}],
    }

    assert canonical(read_spec(written)) == canonical(
        read_spec({"procedural_modules": [{"id": "m"}]})
    )
