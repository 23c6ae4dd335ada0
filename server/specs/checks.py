"""Checks that a persona's prompt must pass before a version of its spec is published."""

import re
from typing import Annotated

from pydantic import Field, ValidationError, model_validator

from server.errors import refused
from server.personas.shapes import Shape
from server.specs.compiler import compile_spec
from server.specs.document import Label, PersonaSpec, Text
from server.specs.notation import SpecNotReadable, parse_text
from server.specs.shapes import (
    CHECKS,
    SECTIONS,
    Budget,
    CheckOutcome,
    Intent,
    PromptPlan,
    Query,
    Section,
    Variant,
)

SHOWN = 60


class Check(Shape):
    """What has to be true of the prompt that a spec compiles to."""

    name: Label
    intent: Intent | None = Field(default=None, description="Compile for this intent.")
    query: Query | None = None
    variant: Variant = "baseline"
    must_contain: list[Text] = Field(default_factory=list[str], description="In any case.")
    must_not_contain: list[Text] = Field(default_factory=list[str], description="In any case.")
    section_order: list[Section] = Field(
        default_factory=list[Section], description="Sections that must be there, in this order."
    )
    max_tokens: Budget | None = None
    sample_answer: Text | None = Field(
        default=None, description="An answer that must be free of the banned phrases."
    )

    @model_validator(mode="after")
    def _expect_something(self) -> "Check":
        expected = (
            self.must_contain,
            self.must_not_contain,
            self.section_order,
            self.max_tokens,
            self.sample_answer,
        )
        if not any(expected):
            raise ValueError(
                "expects nothing: give must_contain, must_not_contain, section_order, max_tokens or"
                " sample_answer"
            )
        return self


class Checks(Shape):
    """All checks of a persona."""

    checks: Annotated[list[Check], Field(max_length=CHECKS)]

    @model_validator(mode="after")
    def _name_each_once(self) -> "Checks":
        names = [check.name for check in self.checks]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two checks are called {twice!r}")
        return self


def read_checks(text: str) -> Checks:
    """Read checks from YAML or JSON: a list, or a mapping with the list under `checks`.

    Raises:
        SpecNotReadable: the text is neither.
        Invalid: a check breaks a rule.
    """
    content = parse_text(text)
    if not isinstance(content, (dict, list)):
        raise SpecNotReadable("Checks are a list, or a mapping with a list under `checks`.")
    try:
        if isinstance(content, list):
            return Checks.model_validate({"checks": content})
        return Checks.model_validate(content)
    except ValidationError as error:
        unknown = [p["loc"] for p in error.errors() if p["type"] == "extra_forbidden"]
        model = Checks if any(len(loc) == 1 for loc in unknown) else Check
        raise refused(error, list(model.model_fields)) from None


def run_checks(checks: Checks, spec: PersonaSpec) -> list[CheckOutcome]:
    """Compile the spec for each check and say what it does not fulfil."""
    return [_outcome(check, spec) for check in checks.checks]


def _outcome(check: Check, spec: PersonaSpec) -> CheckOutcome:
    plan = compile_spec(spec, intent=check.intent, query=check.query, variant=check.variant)
    text = _folded(plan.text)
    failures = [
        *(f"lacks {_quoted(t)}" for t in check.must_contain if _folded(t) not in text),
        *(f"contains {_quoted(t)}" for t in check.must_not_contain if _folded(t) in text),
        *_misplaced(check.section_order, plan),
        *_too_long(check.max_tokens, plan),
        *_said(check.sample_answer, plan),
    ]
    return CheckOutcome(name=check.name, passed=not failures, failures=failures)


def _misplaced(wanted: list[Section], plan: PromptPlan) -> list[str]:
    there = [section for section in SECTIONS if plan.section_texts[section]]
    missing = [f"has no section {section}" for section in wanted if section not in there]
    found = [section for section in wanted if section in there]
    in_order = sorted(found, key=there.index)
    if found != in_order:
        missing.append(f"has its sections in the order {', '.join(in_order)}")
    return missing


def _too_long(limit: int | None, plan: PromptPlan) -> list[str]:
    if limit is None or plan.total_tokens <= limit:
        return []
    return [f"has {plan.total_tokens:,} tokens, more than {limit:,}"]


def _said(answer: str | None, plan: PromptPlan) -> list[str]:
    said = _folded(answer or "")
    banned = [text for text in plan.deterministic_rules.banned if _says(said, _folded(text))]
    return [f"bans {_quoted(text)}, which the sample answer says" for text in banned]


def _says(answer: str, phrase: str) -> bool:
    """Look for whole words: `AI` is not in `said`."""
    return re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", answer) is not None


def _folded(text: str) -> str:
    """Ignore case and how a text is broken into lines."""
    return " ".join(text.casefold().split())


def _quoted(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…")
