"""What a compiled spec leaves out to stay under its budget."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from server.specs.compiler import FORMS, compile_spec
from server.specs.document import PersonaSpec
from server.specs.notation import read_spec
from server.specs.shapes import Dropped
from tests.specs import strategies

budgets = st.integers(1, 2_000)
variants = st.sampled_from([*FORMS])


def a_spec() -> PersonaSpec:
    example = {"intent_label": "a", "prompt": "p" * 100, "response": "r" * 100}
    return read_spec(
        {
            "constitution": ["Stay."],
            "procedural_modules": [
                {"id": f"m{i}", "priority": i, "do": "d" * 100, "ban": [f"b{i}"]} for i in range(3)
            ],
            "canonical_examples": [{"id": f"e{i}", **example} for i in range(2)],
            "anti_examples": [{"id": f"x{i}", **example} for i in range(2)],
        }
    )


def test_anti_examples_go_first_then_examples_then_modules_and_the_last_of_each_first():
    spec = a_spec()
    everything = [f"rules {i}" for i in ("x1", "x0")]
    everything += [f"few_shots {i}" for i in ("e1", "e0")]
    everything += [f"modules {i}" for i in ("m2", "m1", "m0")]

    plans = [compile_spec(spec, intent="a", budget=budget) for budget in range(1, 500)]
    seen = [[f"{dropped.section} {dropped.id}" for dropped in plan.dropped] for plan in plans]

    assert {len(dropped) for dropped in seen} == set(range(len(everything) + 1))
    assert all(dropped == everything[: len(dropped)] for dropped in seen)


def test_no_more_is_dropped_than_has_to_be():
    spec = a_spec()
    plans = [compile_spec(spec, intent="a", budget=budget) for budget in range(1, 500)]
    sizes = {len(plan.dropped): plan.total_tokens for plan in plans}

    for budget, plan in enumerate(plans, start=1):
        one_less = sizes.get(len(plan.dropped) - 1, 1_000)
        assert one_less > budget


def test_bans_of_dropped_modules_stay():
    plan = compile_spec(a_spec(), intent="a", budget=1)

    assert plan.deterministic_rules.banned == ["b0", "b1", "b2"]
    assert plan.text == (
        "## Constitution\n\n1. Stay.\n\n## Rules\n\nNever say, write or do:\n\n- b0\n- b1\n- b2\n"
    )
    assert plan.selected_module_ids == ["m0", "m1", "m2"]


def test_what_was_dropped_is_reported_with_its_size():
    spec = a_spec()
    whole = compile_spec(spec, intent="a")

    plan = compile_spec(spec, intent="a", budget=whole.total_tokens - 1)

    assert plan.dropped == [Dropped(section="rules", id="x1", tokens=64)]
    assert (plan.budget, plan.anti_example_ids) == (whole.total_tokens - 1, ["x0"])


@strategies.patient
@given(strategies.specs, variants)
def test_a_budget_of_exactly_the_text_drops_nothing(spec: PersonaSpec, variant: str):
    whole = compile_spec(spec, variant=variant)

    plan = compile_spec(spec, variant=variant, budget=max(1, whole.total_tokens))

    assert (plan.dropped, plan.text) == ([], whole.text)


@strategies.patient
@given(strategies.specs, budgets, strategies.labels)
def test_a_text_is_over_its_budget_only_when_nothing_is_left_to_drop(
    spec: PersonaSpec, budget: int, intent: str
):
    plan = compile_spec(spec, intent=intent, budget=budget)

    over = plan.total_tokens > budget
    assert not (over and (plan.modules_text or plan.few_shot_ids or plan.anti_example_ids))


@strategies.patient
@given(strategies.specs, st.lists(budgets, min_size=2, max_size=5).map(sorted), variants)
def test_a_bigger_budget_never_drops_more(spec: PersonaSpec, sizes: list[int], variant: str):
    plans = [compile_spec(spec, variant=variant, budget=size) for size in sizes]

    for small, big in pairwise(plans):
        assert small.dropped[: len(big.dropped)] == big.dropped


@strategies.patient
@given(strategies.specs, budgets)
def test_a_budget_never_touches_what_is_fixed(spec: PersonaSpec, budget: int):
    whole, plan = compile_spec(spec), compile_spec(spec, budget=budget)

    assert plan.constitution_text == whole.constitution_text
    assert plan.decision_policy_text == whole.decision_policy_text
    assert plan.style_text == whole.style_text
    assert plan.deterministic_rules == whole.deterministic_rules
