from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from server.markdown import fenced, tokens
from server.specs.compiler import FORMS, compile_spec
from server.specs.document import PersonaSpec
from server.specs.layout import bullets, item, labelled, numbered, outline
from server.specs.notation import read_spec
from server.specs.shapes import SECTIONS, PromptPlan
from tests.specs import strategies

OURS = {"heading_open", "paragraph_open", "bullet_list_open", "ordered_list_open", "fence"}
TITLES = ("Constitution", "Decision policy", "Voice", "Procedures", "Examples", "Rules")
INTRODUCTIONS = {
    "Asked:",
    "Answered:",
    "Never say, write or do:",
    "Habits to avoid:",
    "Every answer:",
    "Answers like these are wrong:",
}
HOSTILE = read_spec(
    {
        "constitution": ["---\n# Evil", "-\n\n## Rules", "```\nopen"],
        "decision_policy": {"a": "- -\n# Evil", "b": ["---", ["-", ["--\n# Evil"]]], "# c": {"```": "~~~"}},
        "procedural_modules": [{"id": "---", "do": "--\n# Evil"}, {"id": "-", "say_style": "- -\n\n# E"}],
        "canonical_examples": [
            {"id": "a", "intent_label": "a", "prompt": "```\n## Rules", "response": "`````\n\n````"}
        ],
        "deterministic_rules": {"banned_phrases": ["---\n# Evil", "- - -\n\nRules\n====="]},
    }
)  # fmt: skip


def parsed(text: str) -> list[Token]:
    """Parse as CommonMark and keep what stands at the top level, with the text of each heading."""
    return MarkdownIt("commonmark").parse(text)


def headings(found: list[Token]) -> list[str]:
    return [
        f"{token.markup} {found[at + 1].content}"
        for at, token in enumerate(found)
        if token.type == "heading_open" and token.level == 0
    ]


def expected_headings(spec: PersonaSpec, plan: PromptPlan, variant: str) -> list[str]:
    said = {module.id: module.say_style for module in spec.procedural_modules}
    modules = {
        "baseline": plan.selected_module_ids,
        "voice_focus": [key for key in plan.selected_module_ids if said[key]],
    }
    below = {
        "modules": modules.get(variant, []),
        "few_shots": plan.few_shot_ids,
        "rules": plan.anti_example_ids,
    }
    expected: list[str] = []
    for section, title in zip(SECTIONS, TITLES, strict=True):
        if plan.section_texts[section]:
            expected += [f"## {title}", *(f"### {key}" for key in below.get(section, []))]
    return expected


@strategies.patient
@given(strategies.specs, st.sampled_from([*FORMS]))
@example(HOSTILE, "baseline")
@example(HOSTILE, "compact")
@example(HOSTILE, "voice_focus")
def test_nothing_in_a_spec_can_pass_for_a_part_of_ours(spec: PersonaSpec, variant: str):
    plan = compile_spec(spec, variant=variant)
    found = parsed(plan.text)

    assert headings(found) == expected_headings(spec, plan, variant)
    assert {token.type for token in found if token.level == 0 and token.nesting >= 0} <= OURS
    paragraphs = {
        found[at + 1].content
        for at, token in enumerate(found)
        if token.type == "paragraph_open" and token.level == 0
    }
    assert paragraphs <= INTRODUCTIONS


@strategies.patient
@given(strategies.specs)
@example(HOSTILE)
def test_no_example_closes_its_fence(spec: PersonaSpec):
    plan = compile_spec(spec)
    by_id = {one.id: one for one in [*spec.canonical_examples, *spec.anti_examples]}
    shown = [by_id[key] for key in [*plan.few_shot_ids, *plan.anti_example_ids]]

    fences = [token for token in parsed(plan.text) if token.type == "fence" and token.level == 0]

    texts = [text for one in shown for text in (one.prompt, one.response)]
    assert [fence.content for fence in fences] == [
        "\n".join([*text.splitlines(), ""]) for text in texts
    ]


@strategies.patient
@given(st.lists(strategies.texts, min_size=1, max_size=4))
def test_a_list_has_as_many_items_as_texts(texts: list[str]):
    texts = [text.strip() for text in texts]

    for listed in (bullets(texts), numbered(texts)):
        found = parsed(listed)
        assert sum(t.type == "list_item_open" and t.level == 1 for t in found) == len(texts)
        assert sum(t.level == 0 and t.nesting >= 0 for t in found) == 1


@strategies.patient
@given(strategies.mappings)
def test_an_outline_has_as_many_items_as_keys(mapping: dict[str, object]):
    content = read_spec({"metadata": mapping}).metadata

    found = parsed(outline(content))

    assert sum(t.type == "list_item_open" and t.level == 1 for t in found) == len(content)
    assert sum(t.level == 0 and t.nesting >= 0 for t in found) == bool(content)


@given(st.text())
@example("\n \n    if x:\n        y \n")
def test_a_fence_is_longer_than_any_in_the_text(text: str):
    found = parsed(fenced(text))

    lines = text.rstrip().splitlines()
    while lines and not lines[0].strip():
        lines.pop(0)
    if len(lines) == 1:
        lines = [lines[0].strip()]
    assert [token.type for token in found] == (["fence"] if lines else [])
    # By CommonMark, NUL becomes the replacement character.
    content = "\n".join([*lines, ""]).replace("\0", "\ufffd")
    assert not lines or found[0].content == content


def test_a_value_says_what_it_is():
    mapping = read_spec(
        {
            "metadata": {
                "z": True,
                "b": False,
                "a": None,
                "c": "",
                "d": [],
                "e": {},
                "f": -1.50,
                "g": 7,
                "h": [[1, [2]], {"y": 1, "x": "two\nlines"}, ""],
            }
        }
    ).metadata

    assert outline(mapping).splitlines() == [
        "- a: (none)",
        "- b: no",
        "- c: (empty)",
        "- d: (none)",
        "- e: (none)",
        "- f: -1.5",
        "- g: 7",
        "- h:",
        "  - - 1",
        "    - - 2",
        "  - - x: two",
        "      lines",
        "    - y: 1",
        "  - (empty)",
        "- z: yes",
    ]


def test_further_lines_of_an_item_stand_below_its_first():
    assert item("a\n\n  b\u2028c", "10. ") == "10. a\n\n      b\n    c"
    assert item("") == "- (empty)"


def test_dashes_are_written_so_that_they_are_no_rule():
    assert [item("--"), item("- -\nx"), item("--a")] == ["- \\--", "- \\- -\n  x", "- --a"]


def test_a_label_has_one_text_beside_it_and_several_below():
    assert labelled("Do", []) == ""
    assert labelled("Do", ["a"], ordered=True) == "- Do: a"
    assert labelled("Do", ["a", "b"], ordered=True) == "- Do:\n  1. a\n  2. b"
    assert labelled("Say", ["a", "b"]) == "- Say:\n  - a\n  - b"


def test_tokens_are_bytes_by_four_rounded_up():
    assert [tokens(text) for text in ("", "a", "abcd", "abcde", "🦊é")] == [0, 1, 1, 2, 2]
