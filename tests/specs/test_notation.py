import hashlib
import json

import pytest
from hypothesis import given
from pydantic import ValidationError

from server.errors import Invalid
from server.specs.document import PersonaSpec
from server.specs.notation import (
    SpecNotReadable,
    SpecTooLarge,
    as_yaml,
    canonical,
    digest,
    parse_text,
    read_spec,
    stored_spec,
)
from tests.specs import strategies

ALL_FIELDS = ", ".join(PersonaSpec.model_fields)


def refusal(text: str) -> str:
    with pytest.raises(SpecNotReadable) as refused:
        read_spec(text)
    return str(refused.value)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        *(
            (text, text)
            for text in ("no", "yes", "on", "off", "y", "N", "1_000", "1:30", "0b1", "<<")
        ),
        *(
            (text, text)
            for text in ("2026-01-01", "2026-01-01T10:00:00Z", "1.0.0", "+", ".", "=", "e5")
        ),
        *((text, True) for text in ("true", "True", "TRUE")),
        *((text, False) for text in ("false", "False", "FALSE")),
        *((text, None) for text in ("null", "Null", "NULL", "~", "")),
        *(("1", 1), ("-7", -7), ("+7", 7), ("010", 10), ("0o17", 15), ("0x1F", 31)),
        *(("1.0", 1.0), ("1.", 1.0), (".5", 0.5), ("1e5", 100_000.0), ("-1.5E-3", -0.0015)),
        *(("'1'", "1"), ('"true"', "true"), ("'null'", "null"), ('""', "")),
    ],
)
def test_yaml_has_the_types_of_its_version_1_2(written: str, value: object):
    read = read_spec(f"metadata:\n  a: {written}\n").metadata["a"]

    assert (type(read), read) == (type(value), value)


@pytest.mark.parametrize("written", [".inf", "-.INF", "+.Inf", ".nan", ".NaN", "1e999"])
def test_a_number_of_yaml_that_is_not_finite_is_refused(written: str):
    with pytest.raises(Invalid, match=r"^metadata: a must be a finite number\.$"):
        read_spec(f"metadata: {{a: {written}}}")


@pytest.mark.parametrize("written", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_of_json_that_is_not_finite_is_refused(written: str):
    with pytest.raises(Invalid, match=r"^metadata: a must be a finite number\.$"):
        read_spec(f'{{"metadata": {{"a": {written}}}}}')


@pytest.mark.parametrize("text", ["metadata: {a: %s}", '{"metadata": {"a": %s}}'])
def test_a_number_of_thousands_of_digits_is_refused(text: str):
    assert refusal(text % ("9" * 5_000)) == "This cannot be read: an integer has at most 64 bits."


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &x [1]\nb: *x", "line 2, column 4: aliases are not supported: repeat the text"),
        ("metadata: {a: 1, a: 2}", "line 1, column 18: the key 'a' is given twice"),
        (
            "constitution: []\nconstitution: []",
            "line 2, column 1: the key 'constitution' is given twice",
        ),
        ("metadata: {'1': a, \"1\": b}", "line 1, column 20: the key '1' is given twice"),
        ("metadata: {1: a}", "line 1, column 12: a key must be text: put it in quotes"),
        ("metadata: {true: a}", "line 1, column 12: a key must be text: put it in quotes"),
        ("metadata: {? [a] : b}", "line 1, column 14: a key must be text: put it in quotes"),
        ("a: [", "line 1, column 5: expected the node content, but found '<stream end>'"),
        ("a: b: c", "line 1, column 5: mapping values are not allowed here"),
        ("a:\n\t- b", "line 2, column 1: found character '\\t' that cannot start any token"),
        ("a: 1\n---\nb: 2", "line 2, column 1: but found another document"),
        ("a: %b", "line 1, column 4: found character '%' that cannot start any token"),
    ],
)
def test_what_is_wrong_in_yaml_is_said_with_line_and_column(text: str, said: str):
    assert refusal(text) == f"This is no YAML: {said}."


@pytest.mark.parametrize(
    "tag",
    [
        "!!str 1",
        "!!int 1",
        "!!bool maybe",
        "!!timestamp x",
        "!!binary aGk=",
        "!mine x",
        "! x",
        "!!set {a}",
        "!!omap [a: 1]",
        "!!python/object/apply:os.system [id]",
        "!!null x",
    ],
)
def test_tags_are_refused(tag: str):
    assert refusal(f"metadata:\n  a: {tag}") == (
        "This is no YAML: line 2, column 6: tags are not supported: put a text in quotes instead."
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": [1,,]}', "This is no JSON: line 1, column 10: "),
        ('{"a":\n 1 "b"}', "This is no JSON: line 2, column 4: Expecting ',' delimiter."),
        ('{"a": {"b": 1, "b": 1}}', "This cannot be read: the key 'b' is given twice."),
    ],
)
def test_what_is_wrong_in_json_is_said(text: str, said: str):
    assert refusal(text).startswith(said)


def test_brackets_alone_are_no_sign_of_json():
    assert parse_text("{a: 1, b: [x, 'y']}") == {"a": 1, "b": ["x", "y"]}


@pytest.mark.parametrize(
    "text", ["", " \n", "# nothing\n", "just text", "- a\n- b", "[]", "7", "null"]
)
def test_a_spec_is_a_mapping(text: str):
    assert refusal(text) == f"A spec is a mapping of fields. Known: {ALL_FIELDS}."


@pytest.mark.parametrize("text", ["a: " + "[" * 100_000, '{"a":' * 100_000, "[" * 100_000])
def test_deep_nesting_is_refused(text: str):
    assert refusal(text) == "The text is nested too deeply."


@pytest.mark.parametrize(
    "text",
    [
        f"metadata: {{{'k' * 10_000}: 1, {'k' * 10_000}: 1}}",
        f'{{"{"k" * 10_000}": 1, "{"k" * 10_000}": 1}}',
        f"a: &{'k' * 10_000} 1\nb: &{'k' * 10_000} 2\nc: !{'k' * 10_000}!x y",
    ],
)
def test_a_refusal_does_not_repeat_long_texts(text: str):
    assert len(refusal(text)) < 300


def test_a_key_given_twice_is_found_at_once_among_very_many():
    keys = ",".join(f'"k{i}":1' for i in range(60_000))

    assert refusal(f'{{{keys},"k59999":1}}') == (
        "This cannot be read: the key 'k59999' is given twice."
    )


@pytest.mark.parametrize("char", ["\0", "\x07", "\x7f"])
def test_yaml_with_control_characters_is_refused(char: str):
    assert refusal(f"constitution: [a{char}]").startswith("This is no YAML: unacceptable character")


@pytest.mark.parametrize("text", ["constitution: [a%s]", '{"constitution": ["%s"]}'])
def test_a_text_with_half_a_surrogate_pair_is_refused(text: str):
    assert refusal(text % chr(0xD800)) == "The text is not valid Unicode."


def test_escaped_halves_of_a_pair_in_json_are_one_character():
    assert read_spec('{"constitution": ["\\ud83e\\udd8a"]}').constitution == ["🦊"]


def test_a_text_has_a_limit_in_bytes():
    with pytest.raises(SpecTooLarge) as refused:
        read_spec("# " + "é" * 500_000)

    assert str(refused.value) == "The spec is 1,000,002 bytes; the limit is 1,000,000."


def test_windows_line_ends_and_a_byte_order_mark_change_nothing():
    text = "constitution:\n  - |\n    One\n    two\n"

    assert read_spec("\ufeff" + text.replace("\n", "\r\n")) == read_spec(text)


@strategies.patient
@given(strategies.specs)
def test_a_spec_comes_back_from_yaml(spec: PersonaSpec):
    read = read_spec(as_yaml(spec))

    # Compared as text too: in Python 1, true and 1.0 are equal.
    assert (read, canonical(read)) == (spec, canonical(spec))


@strategies.patient
@given(strategies.specs)
def test_a_spec_comes_back_from_the_store(spec: PersonaSpec):
    stored = canonical(spec)

    assert canonical(stored_spec(stored)) == canonical(read_spec(stored)) == stored
    assert stored_spec(stored) == spec


def test_yaml_for_people_leaves_out_defaults_and_keeps_lines():
    spec = read_spec(
        {
            "constitution": ["Keep it simple.\n\nSay why."],
            "metadata": {"answer": "no", "b": 1.0},
            "procedural_modules": [{"id": "m", "do": "x", "priority": 100}],
        }
    )

    assert as_yaml(spec) == (
        "constitution:\n  - |-\n    Keep it simple.\n\n    Say why.\n"
        "procedural_modules:\n  - id: m\n    do:\n      - x\n"
        "metadata:\n  answer: no\n  b: 1.0\n"
    )


def test_the_canonical_text_has_sorted_keys_at_every_depth_and_no_escapes():
    stored = canonical(read_spec({"metadata": {"b": {"z": 1, "ä": "🦊"}, "a": [{"y": 1, "x": 2}]}}))

    assert '"metadata":{"a":[{"x":2,"y":1}],"b":{"z":1,"ä":"🦊"}}' in stored
    assert stored == json.dumps(
        json.loads(stored), sort_keys=True, ensure_ascii=False, separators=(",", ":")
    )


def test_a_digest_is_the_sha256_of_the_text():
    assert digest("é") == hashlib.sha256(b"\xc3\xa9").hexdigest()


def test_a_stored_document_that_was_changed_is_not_read():
    with pytest.raises(ValidationError):
        stored_spec('{"constitution": "abc"}')
