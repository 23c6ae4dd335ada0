from typing import Any

import pytest
from hypothesis import given

from server.specs.compiler import compile_spec
from server.specs.diff import changes, compiled
from server.specs.document import PersonaSpec
from server.specs.notation import canonical, read_spec
from server.specs.shapes import Change, TextRow
from tests.specs import strategies


def difference(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    return changes(read_spec(before), read_spec(after))


def in_metadata(before: Any, after: Any) -> list[Change]:
    return difference({"metadata": {"a": before}}, {"metadata": {"a": after}})


def test_mappings_are_compared_by_key_at_every_depth():
    before = {"identity_voice": {"tone": "dry", "who": {"name": "Con", "age": 7, "same": 1}}}
    after = {"identity_voice": {"who": {"same": 1, "name": "Ada", "x": [1]}, "tone": "dry"}}

    assert difference(before, after) == [
        Change(kind="removed", path="identity_voice.who.age", before=7),
        Change(kind="changed", path="identity_voice.who.name", before="Con", after="Ada"),
        Change(kind="added", path="identity_voice.who.x", after=[1]),
    ]


def test_modules_and_examples_are_compared_by_id():
    example = {"id": "e", "intent_label": "a", "prompt": "p", "response": "r"}
    before = {
        "procedural_modules": [{"id": "a", "do": ["x"]}, {"id": "b"}],
        "canonical_examples": [example],
    }
    after = {
        "procedural_modules": [{"id": "c"}, {"id": "a", "do": ["y"], "priority": 1}],
        "canonical_examples": [{**example, "response": "R"}],
        "anti_examples": [{**example, "id": "f"}],
    }

    found = difference(before, after)

    assert [(change.kind, change.path) for change in found] == [
        ("added", "anti_examples.f"),
        ("changed", "canonical_examples.e.response"),
        ("changed", "procedural_modules.a.do"),
        ("changed", "procedural_modules.a.priority"),
        ("removed", "procedural_modules.b"),
        ("added", "procedural_modules.c"),
    ]
    assert found[0].after == {"intent_label": "a", "prompt": "p", "response": "r", "tags": []}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (["a", "b"], ["a", "b"], []),
        (["a", "b"], ["a", "c"], [("changed", "b", "c")]),
        (["a", "b"], ["a", "b", "c"], [("added", None, "c")]),
        (["a", "b", "c"], ["b"], [("removed", "a", None), ("removed", "c", None)]),
        (["a", "b"], ["b", "c"], [("removed", "a", None), ("added", None, "c")]),
        (["a", "b"], ["b", "a"], [("changed", ["a", "b"], ["b", "a"])]),
        (["a", "a"], ["a"], [("changed", ["a", "a"], ["a"])]),
        ([], ["a"], [("added", None, "a")]),
    ],
)
def test_lists_are_compared_item_by_item_unless_their_order_differs(
    before: list[str], after: list[str], expected: list[tuple[str, Any, Any]]
):
    found = difference({"constitution": before}, {"constitution": after})

    assert [(change.kind, change.before, change.after) for change in found] == expected
    assert {change.path for change in found} <= {"constitution"}


def test_the_version_is_left_out():
    assert difference({"version": "1.0.0"}, {"version": "2.0.0"}) == []


def test_the_order_of_keys_means_nothing_in_lists_either():
    assert in_metadata([{"x": 1, "y": {"a": 1, "b": 2}}], [{"y": {"b": 2, "a": 1}, "x": 1}]) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [(1, True), (1, 1.0), (0, False), (0.0, -0.0), ("1", 1), (None, ""), ([], {}), ([], None)],
)
def test_values_of_different_types_differ(before: Any, after: Any):
    assert in_metadata(before, after) == [
        Change(kind="changed", path="metadata.a", before=before, after=after)
    ]
    in_lists = in_metadata([before, "x"], [after, "y"])
    assert [(c.kind, str(c.before)) for c in in_lists if c.kind == "removed"] == [
        ("removed", str(before)),
        ("removed", "x"),
    ]


@strategies.patient
@given(strategies.specs)
def test_a_spec_does_not_differ_from_itself(spec: PersonaSpec):
    assert (changes(spec, spec), compiled(spec, spec)) == ([], [])


@strategies.patient
@given(strategies.twins())
def test_specs_that_mean_the_same_do_not_differ(twins: tuple[PersonaSpec, PersonaSpec]):
    assert (changes(*twins), compiled(*twins)) == ([], [])


def without_version_and_order(spec: PersonaSpec) -> str:
    fields = ("procedural_modules", "canonical_examples", "anti_examples")
    ordered = {field: sorted(getattr(spec, field), key=lambda one: one.id) for field in fields}
    return canonical(spec.model_copy(update={"version": None, **ordered}))


@strategies.patient
@given(strategies.specs, strategies.specs)
def test_two_specs_have_no_differences_only_when_they_are_the_same(
    one: PersonaSpec, other: PersonaSpec
):
    # Half of the other, too: two that were drawn apart are hardly ever the same.
    mixed = one.model_copy(update={"metadata": other.metadata, "constitution": other.constitution})

    for after in (other, mixed):
        same = without_version_and_order(one) == without_version_and_order(after)
        assert (not changes(one, after)) == same
        if same:
            assert compile_spec(one).text == compile_spec(after).text


def test_compiled_texts_stand_side_by_side():
    before = read_spec({"constitution": [f"rule {i}" for i in range(20)]})
    after = read_spec(
        {"constitution": [f"rule {i}" if i != 9 else "new" for i in range(20)] + ["last"]}
    )

    assert compiled(before, after) == [
        TextRow(kind="skipped", before="8 lines that are the same", after="8 lines that are the same"),
        *(TextRow(kind="same", before=f"{i + 1}. rule {i}", after=f"{i + 1}. rule {i}") for i in (6, 7, 8)),
        TextRow(kind="changed", before="10. rule 9", after="10. new"),
        *(TextRow(kind="same", before=f"{i + 1}. rule {i}", after=f"{i + 1}. rule {i}") for i in (10, 11, 12)),
        TextRow(kind="skipped", before="4 lines that are the same", after="4 lines that are the same"),
        *(TextRow(kind="same", before=f"{i + 1}. rule {i}", after=f"{i + 1}. rule {i}") for i in (17, 18, 19)),
        TextRow(kind="added", before=None, after="21. last"),
    ]  # fmt: skip


def test_lines_that_are_gone_have_nothing_beside_them():
    rows = compiled(read_spec({"constitution": ["a", "b"]}), read_spec({"constitution": ["a"]}))

    assert rows[-1] == TextRow(kind="removed", before="2. b", after=None)


def test_one_line_that_is_the_same_is_said_as_such():
    before = read_spec({"identity_voice": {"a": 0, "b": 0, "c": 1}})
    after = read_spec({"identity_voice": {"a": 0, "b": 0, "c": 2}})

    assert compiled(before, after)[0].before == "1 line that is the same"


@strategies.patient
@given(strategies.specs, strategies.specs)
def test_the_rows_hold_every_line_that_differs(one: PersonaSpec, other: PersonaSpec):
    rows = compiled(one, other)

    before, after = (compile_spec(spec).text.splitlines() for spec in (one, other))
    shown = [row for row in rows if row.kind != "skipped"]
    skipped = [int((row.before or "").split()[0]) for row in rows if row.kind == "skipped"]
    assert sum(row.before is not None for row in shown) + sum(skipped) in (len(before), 0)
    assert sum(row.after is not None for row in shown) + sum(skipped) in (len(after), 0)
    assert all((row.before == row.after) == (row.kind == "same") for row in shown)


def test_texts_of_lines_that_are_much_alike_are_compared_at_once():
    before = read_spec({"identity_voice": {"a": ["x"] * 3_000}})
    after = read_spec({"identity_voice": {"a": ["x", "y"] * 1_500}})

    assert len(compiled(before, after)) > 3_000


def test_a_frequent_line_that_stands_beside_itself_is_the_same():
    before = read_spec({"identity_voice": {"a": ["x", "old"] * 150}})
    after = read_spec({"identity_voice": {"a": ["x", "new"] * 150}})

    rows = compiled(before, after)

    assert [row.kind for row in rows].count("changed") == 150


def test_long_lists_are_compared_at_once():
    before, after = [*range(60_000)], [*range(1, 60_001)]

    assert in_metadata(before, after) == [
        Change(kind="removed", path="metadata.a", before=0),
        Change(kind="added", path="metadata.a", after=60_000),
    ]
