"""Specs to measure with: the same words in every run, in lengths that people write."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

INTENTS = ("review", "design", "debug", "explain", "plan", "release")
MODULES = 60
EXAMPLES = 30
ANTI_EXAMPLES = 10
QUERY = "Why does the nightly migration of the billing tables wait for a lock, and what is the fix?"
LENGTHS = (
    f"{MODULES} modules of about 900 characters, {EXAMPLES} examples of 400 and 1,200,"
    f" {ANTI_EXAMPLES} anti-examples of 400 and 600"
)

_WORDS = [
    "the",
    "reader",
    "asks",
    "why",
    "a",
    "migration",
    "waits",
    "for",
    "its",
    "lock",
    "before",
    "anyone",
    "has",
    "measured",
    "what",
    "one",
    "transaction",
    "costs",
    "and",
    "which",
    "table",
    "grows",
    "fastest",
    "so",
    "name",
    "each",
    "risk",
    "in",
    "order",
    "of",
    "harm",
    "say",
    "how",
    "likely",
    "it",
    "is",
    "show",
    "the",
    "smallest",
    "change",
    "that",
    "removes",
    "it",
    "keep",
    "old",
    "rows",
    "readable",
    "prefer",
    "a",
    "test",
    "over",
    "an",
    "opinion",
    "quote",
    "errors",
    "exactly",
    "never",
    "guess",
    "at",
    "billing",
    "data",
    "and",
    "when",
    "two",
    "answers",
    "are",
    "equally",
    "good",
    "choose",
    "whichever",
    "is",
    "easier",
    "to",
    "undo",
    "tomorrow",
]


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes sentences that differ from each other and are the same in every process."""

    words: Iterator[str] = field(default_factory=lambda: itertools.cycle(_WORDS))
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def sentence(self, length: int) -> str:
        text = f"Point {next(self.numbers)}:"
        while len(text) < length:
            text += f" {next(self.words)}"
        return f"{text}."

    def sentences(self, count: int, length: int) -> list[str]:
        return [self.sentence(length) for _ in range(count)]

    def paragraphs(self, length: int) -> str:
        return "\n\n".join(self.sentences(max(1, length // 200), 200))

    def module(self, number: int, few_shot_ids: list[str]) -> dict[str, Any]:
        return {
            "id": f"module-{number:03}",
            # Every third is for all intents.
            "intent_labels": [INTENTS[number % len(INTENTS)]] if number % 3 else [],
            "when": self.sentences(2, 75),
            "do": self.sentences(5, 85),
            "say_style": self.sentences(2, 70),
            "ban": self.sentences(2, 40),
            "few_shot_ids": few_shot_ids,
            "priority": 100 - number % 7,
        }

    def example(self, name: str, number: int, response_length: int) -> dict[str, Any]:
        return {
            "id": f"{name}-{number:02}",
            "intent_label": INTENTS[number % len(INTENTS)],
            "prompt": self.paragraphs(400),
            "response": self.paragraphs(response_length),
            "tags": [f"topic {number % 5}"],
        }

    def mapping(self, name: str, entries: int) -> dict[str, Any]:
        return {
            f"{name} {number}": {
                "weighs": self.sentence(80),
                "asks_first": number % 2 == 0,
                "steps": self.sentences(2, 60),
            }
            for number in range(entries)
        }


def large_spec() -> dict[str, Any]:
    """Write the spec of somebody who has everything: as many examples as there may be."""
    writer = _Writer()
    shown = [f"example-{number:02}" for number in range(EXAMPLES)]
    return {
        **_frame(writer, 8),
        "procedural_modules": [
            writer.module(number, shown[number : number + 1] if number % 15 == 0 else [])
            for number in range(MODULES)
        ],
        "canonical_examples": [
            writer.example("example", number, 1_200) for number in range(EXAMPLES)
        ],
        "anti_examples": [writer.example("wrong", number, 600) for number in range(ANTI_EXAMPLES)],
    }


def grown_spec(factor: int) -> dict[str, Any]:
    """Write a spec of everything that has no bound of its own, `factor` times a small one."""
    writer = _Writer()
    return {
        **_frame(writer, factor),
        "procedural_modules": [writer.module(number, []) for number in range(10 * factor)],
    }


def _frame(writer: _Writer, size: int) -> dict[str, Any]:
    return {
        "constitution": writer.sentences(2 * size, 120),
        "decision_policy": writer.mapping("question", size),
        "stance_values": writer.mapping("value", size),
        "identity_voice": writer.mapping("voice", size),
        "interaction_style": writer.mapping("habit", size),
        "deterministic_rules": {
            "banned_phrases": writer.sentences(3 * size, 30),
            "anti_style_rules": writer.sentences(size, 70),
            "format_rules": writer.sentences(size, 80),
        },
    }
