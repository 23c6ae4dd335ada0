from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment

from db.shipped import shipped
from server.errors import Invalid
from server.rendering import environment, render
from server.specs.document import PersonaSpec
from server.specs.generating import Known, generate
from server.specs.notation import as_yaml, canonical, read_spec
from tests.specs import strategies

EXAMPLE = {"id": "e", "intent_label": "a", "prompt": "p", "response": "r"}
CODE = "```python\n# a comment\n\n## Not a heading\n\n- not a bullet\n```"
LONG = 1_000_000


def known(
    skill: str | None, description: str | None = None, earlier: PersonaSpec | None = None
) -> Known:
    return Known(
        name="Con", role="Developer", description=description, skill=skill, earlier=earlier
    )


def made(skill: str) -> PersonaSpec:
    spec, _ = generate(known(skill))
    return spec


def filled(template: str, fill: Callable[[str], str]) -> str:
    """Render a shipped skill and put something in the place of each of its placeholders."""
    templates: Environment = environment(None)
    skill = render(templates, f"assets/{template}", name="Con", role="Developer")
    return "\n".join(fill(line) if line.startswith("[") else line for line in skill.splitlines())


@pytest.mark.parametrize("template", ["skill.md", "skill-detailed.md"])
def test_an_unfilled_skill_says_nothing(template: str):
    spec, sources = generate(known(filled(template, lambda line: line)))

    assert spec == read_spec({"identity_voice": {"name": "Con", "role": "Developer"}})
    assert sources == ["name and role"]


def test_every_section_of_the_shipped_skills_has_its_place():
    sections = iter(["identity", "preferences", "style", "boundaries", "method", "quality", "anti"])
    skill = filled("skill-detailed.md", lambda _: f"- {(name := next(sections))} 1\n- {name} 2")

    assert made(skill) == read_spec(
        {
            "constitution": ["boundaries 1", "boundaries 2"],
            "decision_policy": {
                "preferences": ["preferences 1", "preferences 2"],
                "done_when": ["quality 1", "quality 2"],
            },
            "identity_voice": {
                "name": "Con",
                "role": "Developer",
                "identity": ["identity 1", "identity 2"],
            },
            "interaction_style": {"how": ["style 1", "style 2"]},
            "procedural_modules": [
                {"id": "working-method", "do": ["method 1", "method 2"], "priority": 50}
            ],
            "deterministic_rules": {"anti_style_rules": ["anti 1", "anti 2"]},
        }
    )


def test_the_shipped_skills_are_where_they_are_read_from():
    assert (shipped("server", "templates") / "assets" / "skill-detailed.md").is_file()


def test_other_sections_become_modules():
    skill = "## Code Review\n\nRead it.\n\n1. First\n2) Then\n\n## C#\n\nNo.\n\n## \n\nBare.\n\n## 数据 ##\n\nYes."

    modules = made(skill).procedural_modules

    assert [(module.id, module.when, module.do) for module in modules] == [
        ("code-review-1", ["Code Review"], ["Read it.", "First", "Then"]),
        ("c-2", ["C#"], ["No."]),
        ("section-3", [], ["Bare."]),
        ("section-4", ["数据"], ["Yes."]),
    ]


def test_sections_with_the_same_title_are_one():
    skill = "## Values\n\na\n\n## x\n\nb\n\n## VALUES\n\nc\n\n## x\n\nd"

    spec = made(skill)

    assert spec.constitution == ["a", "c"]
    assert [module.do for module in spec.procedural_modules] == [["b", "d"]]


def test_what_stands_before_the_sections_is_the_identity():
    skill = (
        "# Con — developer\nLikes tests.\n\n---\n\nAnd tea.\r\n\r\n## Boundaries\r\n\r\nNone.\r\n"
    )

    spec = made(skill)

    assert spec.identity_voice["identity"] == ["Likes tests.", "And tea."]
    assert spec.constitution == ["None."]


def test_bullets_keep_what_stands_below_them():
    skill = "## Rules\n- One\n  - below\n    it\n* Two\n+ Three\n10. Four\nstill four\n\n-no bullet"

    assert made(skill).constitution == [
        *("One\n  - below\n    it", "Two", "Three", "Four\nstill four", "-no bullet")
    ]


def test_a_heading_below_the_second_level_stays_text():
    assert made("## Rules\n\n### Sub\n\n#hash\n\n####### x").constitution == [
        *("### Sub", "#hash", "####### x")
    ]


@pytest.mark.parametrize("fence", ["```", "~~~~"])
def test_a_fenced_block_stays_whole(fence: str):
    block = CODE.replace("```", fence)
    skill = f"## Rules\n\nLike so:\n\n{block}\n\nAfter.\n\n- Bullet:\n  {fence}\n\n  ## x\n  {fence}\n- Last"

    assert made(skill).constitution == [
        "Like so:",
        block,
        "After.",
        f"Bullet:\n  {fence}\n\n  ## x\n  {fence}",
        "Last",
    ]


def test_a_fence_is_closed_by_one_as_long_and_without_words():
    block = "````md\n```\n## x\n```\n~~~~\n```` no\n`````"

    assert made(f"## Rules\n\n{block}\n\n## Values\n\ny").constitution == [block, "y"]
    assert made("## Rules\n\n```\n\n## never closed").constitution == ["```\n\n## never closed"]


def test_comments_and_placeholders_are_skipped():
    skill = (
        "<!-- a\n## Hidden\n -->## Rules\n\n[What it\nrefuses.]\n\n- [Later]\n\n[a](b) stays\n\n"
        "One <!-- two --> three <!-- four"
    )

    assert made(skill).constitution == ["[a](b) stays", "One  three <!-- four"]


def test_a_title_without_text_makes_nothing():
    assert made("## Review\n\n## Outage\n\n[To be written.]").procedural_modules == []


def test_sources_say_what_it_was_made_from():
    earlier = read_spec(
        {"version": "1.4.0", "constitution": ["old"], "canonical_examples": [EXAMPLE]}
    )

    spec, sources = generate(known("## Values\n\nnew", "  Keeps it simple. ", earlier))

    assert sources == ["name and role", "description", "skill.md", "examples of 1.4.0"]
    assert spec.identity_voice["purpose"] == "Keeps it simple."
    assert (spec.constitution, spec.canonical_examples) == (["new"], earlier.canonical_examples)


def test_anti_examples_are_carried_over_and_nothing_else():
    earlier = read_spec(
        {"version": "1.0.0", "anti_examples": [EXAMPLE], "procedural_modules": [{"id": "m"}]}
    )

    spec, sources = generate(known(None, earlier=earlier))

    assert (spec.anti_examples, spec.procedural_modules) == (earlier.anti_examples, [])
    assert sources == ["name and role", "examples of 1.0.0"]
    assert generate(known(None, earlier=read_spec({"version": "1.0.0"})))[1] == ["name and role"]


def test_it_has_no_version_of_its_own():
    assert made("x").version is None


def test_characters_that_a_spec_refuses_are_left_out():
    skill = "## Ru\x07les\n\na\x00b\x1bc\x85d\tindented\x7f\n\n\x00\n\n## \x00\n\nx"

    spec = made(skill)

    assert spec.constitution == ["abc\nd\tindented"]
    assert [module.do for module in spec.procedural_modules] == [["x"]]


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(Invalid, match="must be valid Unicode text"):
        made(f"## Rules\n\n{chr(0xD800)}")


def test_more_sections_than_a_spec_has_modules_are_refused():
    with pytest.raises(Invalid, match=r"^procedural_modules: must have at most 500 items\.$"):
        made("\n".join(f"## s{i}\n\nx" for i in range(501)))


@pytest.mark.parametrize(
    "skill",
    [
        "a" * LONG,
        "a " * (LONG // 2),
        "<!-- " * (LONG // 5),
        "<!---->" * (LONG // 7),
        "## " + " " * LONG + "x",
        "## " + "# " * (LONG // 2) + "x",
        "\n" * LONG,
        "\n \t" * (LONG // 3),
        "- " * (LONG // 2),
        "```\n" * (LONG // 4),
        "[" * LONG,
        "`" * LONG,
    ],
    ids=lambda skill: repr(skill[:6]),
)
def test_a_megabyte_of_anything_is_sorted_at_once(skill: str):
    spec = made(skill)

    assert len(canonical(spec)) <= 1_000_000


@strategies.patient
@given(
    st.one_of(
        st.text(),
        st.lists(strategies.texts | st.sampled_from(["## Rules", "## ", "##", CODE, "<!--", "-->"]))
        .map("\n".join),
    ),
    st.none() | strategies.specs,
)  # fmt: skip
def test_any_skill_makes_a_valid_spec_that_reads_back(skill: str, earlier: PersonaSpec | None):
    spec, _ = generate(known(skill, earlier=earlier))

    assert read_spec(as_yaml(spec)) == spec
    assert canonical(read_spec(canonical(spec))) == canonical(spec)
