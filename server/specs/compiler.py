"""From a spec to the prompt. Pure: the same input gives the same bytes in every process.

Sections have a fixed order, their headings are ours alone (see `layout`), and what a section holds
stands in blocks, so that whole blocks can be dropped when a budget is too small.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Literal

from pydantic import JsonValue

from server.errors import parse
from server.markdown import BYTES_PER_TOKEN, fenced, size_bytes, tokens
from server.specs.document import Example, Module, PersonaSpec
from server.specs.layout import bullets, item, labelled, numbered, outline
from server.specs.selection import chosen_anti_examples, chosen_examples, merged, selected_modules
from server.specs.shapes import (
    SECTIONS,
    CompiledRules,
    Dropped,
    PlanRequest,
    PromptPlan,
    Section,
    Variant,
    joined,
)

SUMMARY_LENGTH = 120
DROPPED_NAMED = 10
BETWEEN = len("\n\n")
HEADINGS: dict[Section, str] = {
    "constitution": "## Constitution",
    "decision_policy": "## Decision policy",
    "style": "## Voice",
    "modules": "## Procedures",
    "few_shots": "## Examples",
    "rules": "## Rules",
}


@dataclass(frozen=True, slots=True)
class _Form:
    """What a variant shows."""

    shots: int
    anti_examples: int
    modules: Literal["expanded", "summary", "voice"]
    policy: bool = True


FORMS: dict[Variant, _Form] = {
    "baseline": _Form(shots=4, anti_examples=30, modules="expanded"),
    "compact": _Form(shots=2, anti_examples=2, modules="summary"),
    "compact_no_examples": _Form(shots=0, anti_examples=0, modules="summary"),
    "voice_focus": _Form(shots=4, anti_examples=4, modules="voice", policy=False),
}


@dataclass(frozen=True, slots=True)
class _Block:
    text: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class _Draft:
    """Sections as blocks. The fixed ones are never dropped; of the others the last goes first."""

    fixed: dict[Section, str]
    modules: list[_Block]
    few_shots: list[_Block]
    anti_examples: list[_Block]

    def texts(self) -> dict[Section, str]:
        anti = ["Answers like these are wrong:", *(b.text for b in self.anti_examples)]
        rules = [self.fixed["rules"], *(anti if self.anti_examples else [])]
        bodies: dict[Section, list[str]] = {
            **{section: [text] for section, text in self.fixed.items()},
            "modules": [block.text for block in self.modules],
            "few_shots": [block.text for block in self.few_shots],
            "rules": rules,
        }
        return {section: _section(section, bodies[section]) for section in SECTIONS}


def compile_spec(
    spec: PersonaSpec,
    *,
    intent: str | None = None,
    query: str | None = None,
    variant: str = "baseline",
    budget: int | None = None,
) -> PromptPlan:
    """Compile a spec to a plan, whose `text` is the prompt.

    Args:
        intent: leaves out the modules of other intents. Without it all active ones are in.
        query: picks examples that share words with it, beside those that modules name.
        budget: tokens that the text should stay under. Anti-examples go first, then examples,
            then modules, the least important first. What is fixed, bans included, stays, even
            when it alone is over the budget.

    Raises:
        Invalid: an unknown variant, or an argument out of its range.
    """
    asked = parse(PlanRequest, intent=intent, query=query, variant=variant, budget=budget)
    modules = selected_modules(spec, asked.intent)
    rules = CompiledRules(
        banned=merged(spec.deterministic_rules.banned_phrases, *(module.ban for module in modules)),
        anti_style_rules=spec.deterministic_rules.anti_style_rules,
        format_rules=spec.deterministic_rules.format_rules,
    )
    draft, dropped = _fitted(_drafted(spec, modules, rules, asked), asked.budget)
    texts = draft.texts()
    whole = joined(texts)
    return PromptPlan(
        spec_version=spec.version,
        intent=asked.intent,
        query=asked.query,
        variant=asked.variant,
        constitution_text=texts["constitution"],
        decision_policy_text=texts["decision_policy"],
        style_text=texts["style"],
        modules_text=texts["modules"],
        few_shots_text=texts["few_shots"],
        rules_text=texts["rules"],
        selected_module_ids=[module.id for module in modules],
        few_shot_ids=[block.id for block in draft.few_shots],
        anti_example_ids=[block.id for block in draft.anti_examples],
        deterministic_rules=rules,
        tokens={section: tokens(text) for section, text in texts.items()},
        total_tokens=tokens(whole),
        budget=asked.budget,
        dropped=dropped,
        digest=sha256(whole.encode()).hexdigest(),
    )


def left_out(plan: PromptPlan) -> str | None:
    """Say in a sentence what the budget had no room for."""
    if not plan.dropped:
        return None
    named = ", ".join(f"{one.section} {one.id}" for one in plan.dropped[:DROPPED_NAMED])
    more = len(plan.dropped) - DROPPED_NAMED
    rest = f" and {more:,} more" if more > 0 else ""
    return f"Left out of the spec to stay under {plan.budget:,} tokens: {named}{rest}."


def over_budget(total_tokens: int, budget: int | None) -> str | None:
    """Say in a sentence that a budget is too small even for what is never left out."""
    if budget is None or total_tokens <= budget:
        return None
    return f"What is never left out has {total_tokens:,} tokens by itself, more than {budget:,}."


def _drafted(
    spec: PersonaSpec, modules: Sequence[Module], rules: CompiledRules, asked: PlanRequest
) -> _Draft:
    """Lay out all that the variant shows, before any budget."""
    form = FORMS[asked.variant]
    shots = chosen_examples(spec, modules, asked)[: form.shots]
    anti = chosen_anti_examples(spec, asked)[: form.anti_examples]
    policy = _outlined(spec.decision_policy, "stance values", spec.stance_values)
    return _Draft(
        fixed={
            "constitution": numbered(spec.constitution),
            "decision_policy": policy if form.policy else "",
            "style": _outlined(spec.identity_voice, "interaction style", spec.interaction_style),
            "rules": _rules(rules),
        },
        modules=[block for module in modules if (block := _module(module, form)).text],
        few_shots=[_example(example) for example in shots],
        anti_examples=[_example(example) for example in anti],
    )


def _module(module: Module, form: _Form) -> _Block:
    match form.modules:
        case "summary":
            return _Block(_summary(module), module.id)
        case "voice":
            said = labelled("Say it", module.say_style)
            return _Block(f"### {module.id}\n\n{said}" if said else "", module.id)
        case _:
            parts = [
                labelled("When", module.when),
                labelled("Do", module.do, ordered=True),
                labelled("Say it", module.say_style),
                labelled("Never", module.ban),
            ]
            body = "\n".join(part for part in parts if part)
            return _Block(f"### {module.id}\n\n{body}" if body else f"### {module.id}", module.id)


def _summary(module: Module) -> str:
    """Say in a line when a module applies and what to do."""
    when = f" (when {'; '.join(map(_short, module.when))})" if module.when else ""
    steps = "; ".join(map(_short, module.do or module.say_style))
    return item(f"{module.id}{when}: {steps}".removesuffix(": "))


def _short(text: str) -> str:
    first = text.splitlines()[0].strip()
    return first if len(first) <= SUMMARY_LENGTH else f"{first[: SUMMARY_LENGTH - 1].rstrip()}…"


def _example(example: Example) -> _Block:
    text = (
        f"### {example.id}\n\nAsked:\n\n{fenced(example.prompt)}\n\nAnswered:\n\n"
        f"{fenced(example.response)}"
    )
    return _Block(text, example.id)


def _rules(rules: CompiledRules) -> str:
    parts = [
        ("Never say, write or do:", rules.banned),
        ("Habits to avoid:", rules.anti_style_rules),
        ("Every answer:", rules.format_rules),
    ]
    return "\n\n".join(f"{label}\n\n{bullets(texts)}" for label, texts in parts if texts)


def _outlined(mapping: Mapping[str, JsonValue], label: str, further: dict[str, JsonValue]) -> str:
    """Outline a mapping, and below it a further one, whose label may also be a key of the first."""
    entries = [outline(mapping), outline({label: further}) if further else ""]
    return "\n".join(entry for entry in entries if entry)


def _section(section: Section, blocks: Sequence[str]) -> str:
    body = "\n\n".join(block for block in blocks if block)
    return f"{HEADINGS[section]}\n\n{body}" if body else ""


def _fitted(draft: _Draft, budget: int | None) -> tuple[_Draft, list[Dropped]]:
    """Drop blocks from the ends until the text is within the budget, or only the fixed is left."""
    if budget is None:
        return draft, []
    left = replace(
        draft,
        modules=list(draft.modules),
        few_shots=list(draft.few_shots),
        anti_examples=list(draft.anti_examples),
    )
    dropped: list[Dropped] = []
    over = _over(left, budget)
    while over > 0 and (found := _least_important(left)):
        section, blocks = found
        block = blocks.pop()
        dropped.append(Dropped(section=section, id=block.id, tokens=tokens(block.text)))
        # With its last block a section loses its heading too.
        over = over - size_bytes(block.text) - BETWEEN if blocks else _over(left, budget)
    return left, dropped


def _over(draft: _Draft, budget: int) -> int:
    return size_bytes(joined(draft.texts())) - budget * BYTES_PER_TOKEN


def _least_important(draft: _Draft) -> tuple[Section, list[_Block]] | None:
    droppable: tuple[tuple[Section, list[_Block]], ...] = (
        ("rules", draft.anti_examples),
        ("few_shots", draft.few_shots),
        ("modules", draft.modules),
    )
    return next(((section, blocks) for section, blocks in droppable if blocks), None)
