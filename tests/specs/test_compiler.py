import difflib
import json
import os
import subprocess
import sys
from hashlib import sha256
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import Invalid
from server.specs.compiler import FORMS, compile_spec
from server.specs.document import PersonaSpec
from server.specs.notation import canonical, read_spec, stored_spec
from server.specs.shapes import SECTIONS, PromptPlan, Section
from tests.specs import strategies

GOLDEN = Path(__file__).parent / "golden"
RENEW = f"If it is meant to be so: {Path(sys.executable).name} -m tests.specs.test_compiler"
HEADINGS = [
    "## Constitution",
    "## Decision policy",
    "## Voice",
    "## Procedures",
    "## Examples",
    "## Rules",
]


def golden_spec() -> PersonaSpec:
    return read_spec((GOLDEN / "spec.yaml").read_text(encoding="utf-8"))


def golden_texts() -> dict[str, str]:
    """Compile what the golden files hold: the sections of the baseline, and each variant."""
    spec = golden_spec()
    sections = compile_spec(spec).section_texts.items()
    return {
        **{f"section-{section}.md": f"{text}\n" for section, text in sections},
        **{f"variant-{variant}.md": compile_spec(spec, variant=variant).text for variant in FORMS},
        "intent-outage.md": compile_spec(spec, intent="Outage", query="replica").text,
    }


@pytest.mark.parametrize("name", golden_texts())
def test_a_golden_file_is_what_is_compiled(name: str):
    expected = (GOLDEN / name).read_text(encoding="utf-8")
    compiled = golden_texts()[name]

    lines = difflib.unified_diff(expected.splitlines(), compiled.splitlines(), name, "compiled")
    assert compiled == expected, "\n".join([*lines, RENEW])


def test_there_is_no_other_golden_file():
    assert {file.name for file in GOLDEN.glob("*.md")} == golden_texts().keys()


def sections_of(plan: PromptPlan) -> list[str]:
    return [line for line in plan.text.splitlines() if line.startswith("## ")]


def test_sections_have_their_order():
    plan = compile_spec(golden_spec())

    # One more stands in a fence of an example.
    assert [line for line in sections_of(plan) if line != "## One thing"] == HEADINGS


@pytest.mark.parametrize(
    ("content", "heading"),
    [
        ({"constitution": ["a"]}, "## Constitution"),
        ({"decision_policy": {"a": "b"}}, "## Decision policy"),
        ({"stance_values": {"a": "b"}}, "## Decision policy"),
        ({"identity_voice": {"a": "b"}}, "## Voice"),
        ({"interaction_style": {"a": "b"}}, "## Voice"),
        ({"procedural_modules": [{"id": "m"}]}, "## Procedures"),
        ({"deterministic_rules": {"format_rules": ["a"]}}, "## Rules"),
        ({"deterministic_rules": {"anti_style_rules": ["a"]}}, "## Rules"),
    ],
)
def test_empty_sections_are_left_out(content: dict[str, object], heading: str):
    assert sections_of(compile_spec(read_spec(content))) == [heading]


def test_an_empty_spec_compiles_to_nothing():
    plan = compile_spec(PersonaSpec(metadata={"a": "b"}))

    assert (plan.text, plan.total_tokens, set(plan.tokens.values())) == ("", 0, {0})


def test_metadata_is_never_compiled():
    spec = golden_spec()

    assert "nobody sees this" not in compile_spec(spec).text
    assert compile_spec(spec.model_copy(update={"metadata": {}})).text == compile_spec(spec).text


def test_the_version_is_named_in_the_plan_and_not_in_the_text():
    plan = compile_spec(golden_spec())

    assert plan.spec_version == "1.2.3"
    assert "1.2.3" not in plan.text


@strategies.patient
@given(strategies.specs, st.sampled_from([*FORMS]))
def test_the_plan_describes_its_text(spec: PersonaSpec, variant: str):
    plan = compile_spec(spec, variant=variant)

    texts = [plan.section_texts[section] for section in SECTIONS if plan.section_texts[section]]
    assert plan.text == ("\n\n".join(texts) + "\n" if texts else "")
    assert plan.digest == sha256(plan.text.encode()).hexdigest()
    assert plan.total_tokens == ceil(len(plan.text.encode()) / 4)
    assert plan.tokens == {
        section: ceil(len(text.encode()) / 4) for section, text in plan.section_texts.items()
    }
    assert plan.dropped == []


@strategies.patient
@given(strategies.twins(), strategies.labels, strategies.texts)
def test_the_order_of_keys_modules_and_examples_means_nothing(
    twins: tuple[PersonaSpec, PersonaSpec], intent: str, query: str
):
    one, other = (compile_spec(spec, intent=intent, query=query) for spec in twins)

    assert one == other
    assert one.text == other.text


@strategies.patient
@given(strategies.specs)
def test_a_spec_that_was_stored_compiles_to_the_same(spec: PersonaSpec):
    assert compile_spec(stored_spec(canonical(spec))) == compile_spec(spec)


def test_every_process_compiles_the_same_bytes():
    program = (
        "from tests.specs.test_compiler import golden_texts; import hashlib, json;"
        "print(hashlib.sha256(json.dumps(golden_texts(), sort_keys=True).encode()).hexdigest())"
    )

    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed in ("0", "1", "random")
    }

    here = json.dumps(golden_texts(), sort_keys=True).encode()
    assert digests == {sha256(here).hexdigest()}


def test_an_unknown_variant_is_refused_with_the_known_ones():
    with pytest.raises(Invalid) as refused:
        compile_spec(golden_spec(), variant="tiny")

    assert str(refused.value) == (
        "variant: must be 'baseline', 'compact', 'compact_no_examples' or 'voice_focus'."
    )


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"budget": 0}, "budget: must be greater than or equal to 1."),
        ({"budget": 1_000_001}, "budget: must be less than or equal to 1000000."),
        ({"intent": " "}, "intent: must not be empty or blank."),
        ({"intent": "a\nb"}, "intent: must not contain control characters or line breaks."),
        ({"intent": "x" * 101}, "intent: must have at most 100 characters."),
        ({"query": ""}, "query: must not be empty or blank."),
        ({"query": "x" * 10_001}, "query: must have at most 10000 characters."),
    ],
)
def test_what_is_asked_has_limits(asked: dict[str, Any], said: str):
    with pytest.raises(Invalid) as refused:
        compile_spec(golden_spec(), **asked)

    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("variant", "shots", "anti_examples", "missing"),
    [
        ("baseline", 4, 6, None),
        ("compact", 2, 2, None),
        ("compact_no_examples", 0, 0, "few_shots"),
        ("voice_focus", 4, 4, "decision_policy"),
    ],
)
def test_a_variant_shows_so_many_examples(
    variant: str, shots: int, anti_examples: int, missing: Section | None
):
    examples = [
        {"id": f"e{i}", "intent_label": "a", "prompt": "p", "response": "r"} for i in range(6)
    ]
    anti = [{**example, "id": f"x{i}"} for i, example in enumerate(examples)]
    content = {
        "decision_policy": {"a": "b"},
        "canonical_examples": examples,
        "anti_examples": anti,
    }

    plan = compile_spec(read_spec(content), intent="a", variant=variant)

    assert plan.few_shot_ids == [f"e{i}" for i in range(shots)]
    assert plan.anti_example_ids == [f"x{i}" for i in range(anti_examples)]
    assert missing is None or not plan.section_texts[missing]


def test_variants_show_a_module_expanded_summed_up_or_by_its_voice_alone():
    content = {
        "procedural_modules": [
            {
                "id": "m",
                "when": "W",
                "do": ["D" * 200, "two\nlines"],
                "say_style": "S",
                "ban": ["B"],
            },
            {"id": "n", "do": "N"},
        ]
    }
    spec = read_spec(content)
    modules = {variant: compile_spec(spec, variant=variant).modules_text for variant in FORMS}

    summary = f"## Procedures\n\n- m (when W): {'D' * 119}…; two\n\n- n: N"
    assert modules == {
        "baseline": (
            f"## Procedures\n\n### m\n\n- When: W\n- Do:\n  1. {'D' * 200}\n  2. two\n     lines\n"
            "- Say it: S\n- Never: B\n\n### n\n\n- Do: N"
        ),
        "compact": summary,
        "compact_no_examples": summary,
        "voice_focus": "## Procedures\n\n### m\n\n- Say it: S",
    }
    assert all("- B" in compile_spec(spec, variant=variant).rules_text for variant in FORMS)


@strategies.patient
@given(strategies.specs)
def test_a_compact_text_never_says_what_the_baseline_leaves_out(spec: PersonaSpec):
    whole, compact = compile_spec(spec), compile_spec(spec, variant="compact")

    assert compact.deterministic_rules == whole.deterministic_rules
    assert compact.selected_module_ids == whole.selected_module_ids
    assert compact.few_shot_ids == whole.few_shot_ids[:2]


if __name__ == "__main__":
    for name, text in golden_texts().items():
        (GOLDEN / name).write_text(text, encoding="utf-8", newline="\n")
