"""What of a spec has to do with what was asked. Pure, and the same in every process."""

import re
from collections.abc import Sequence
from functools import lru_cache

from server.specs.document import Example, Module, PersonaSpec
from server.specs.shapes import PlanRequest

# What overlaps without saying anything. Other languages only get less apt examples from it.
STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "the and for with that this from are was were will would can could should have has had not"
        " you your our their its what when where which who how why but all any about into than then",
    )
)


def known_intents(spec: PersonaSpec) -> list[str]:
    """List the intents that active modules and examples have, without duplicates in any case."""
    labels = [label for m in spec.procedural_modules if m.active for label in m.intent_labels]
    labels += [example.intent_label for example in spec.canonical_examples]
    folded = {label.casefold(): label for label in sorted(labels, reverse=True)}
    return [folded[key] for key in sorted(folded)]


def unknown_intent(intent: str | None, known: Sequence[str]) -> str | None:
    """Say that an intent means nothing here, as it may be misspelled; `None` when it does."""
    asked = PlanRequest(intent=intent).intent
    if asked is None or any(_same(asked, label) for label in known):
        return None
    there = f" Known: {', '.join(known)}." if known else ""
    return f"No module or example has the intent {asked!r}.{there}"


def selected_modules(spec: PersonaSpec, intent: str | None) -> list[Module]:
    def fits(module: Module) -> bool:
        labels = module.intent_labels
        return not labels or intent is None or any(_same(label, intent) for label in labels)

    chosen = [module for module in spec.procedural_modules if module.active and fits(module)]
    return sorted(chosen, key=lambda module: (module.priority, module.id))


def chosen_examples(
    spec: PersonaSpec, modules: Sequence[Module], asked: PlanRequest
) -> list[Example]:
    """Order the examples that have to do with this: named ones, then by intent, then by words."""
    by_id = {example.id: example for example in spec.canonical_examples}
    named = dict.fromkeys(wanted for module in modules for wanted in module.few_shot_ids)
    sought = _telling_words(asked.query or "")
    related: list[tuple[bool, int, str]] = []
    for example in spec.canonical_examples:
        of_intent = asked.intent is not None and _same(example.intent_label, asked.intent)
        shared = _overlap(example, sought)
        if example.id not in named and (of_intent or shared):
            related.append((not of_intent, -shared, example.id))
    return [by_id[wanted] for wanted in (*named, *(key[-1] for key in sorted(related)))]


def chosen_anti_examples(spec: PersonaSpec, asked: PlanRequest) -> list[Example]:
    """Order those of the intent before those that only share words with the query.

    Without an intent all are in. Their order in the spec means nothing.
    """
    sought = _telling_words(asked.query or "")
    related: list[tuple[bool, int, str, Example]] = []
    for example in spec.anti_examples:
        other = asked.intent is not None and not _same(example.intent_label, asked.intent)
        shared = _overlap(example, sought)
        if shared or not other:
            related.append((other, -shared, example.id, example))
    return [example for *_, example in sorted(related, key=lambda key: key[:3])]


def _overlap(example: Example, sought: frozenset[str]) -> int:
    if not sought:
        return 0
    about = " ".join([example.prompt, example.intent_label, *example.tags])
    return len(sought & _words(about))


def _telling_words(text: str) -> frozenset[str]:
    telling = (word for word in _words(text) if len(word) > 2 or not word.isascii())
    return frozenset(telling) - STOP_WORDS


# Finding the words of sixty long examples takes longer than all the rest of a compilation, and
# a spec that runs is compiled again and again.
@lru_cache(maxsize=256)
def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.casefold()))


def _same(label: str, other: str) -> bool:
    return label.casefold() == other.casefold()


def merged(*lists: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(text for texts in lists for text in texts))
