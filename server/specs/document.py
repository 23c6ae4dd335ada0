"""The document itself. Its JSON Schema is published, so descriptions here are read by its authors.

Texts are stored without blanks around them and with LF line ends: editors and YAML's block
styles add the one and the other, and two specs that read the same are to be the same. Only what
an example quotes keeps the indent of its first line, for it may be code.
"""

import math
import re
import unicodedata
from typing import Annotated, Protocol, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from server.markdown import without_margins
from server.personas.shapes import one_line, prose

EXAMPLES = 30
MODULES = 500
EXAMPLE_LENGTH = 6_000
TEXT_LENGTH = 20_000
LABEL_LENGTH = 100
ID_LENGTH = 120
KEY_LENGTH = 120
DEPTH = 8
LARGEST_INTEGER = 2**63 - 1
# Each part is an integer of 32 bits in the database.
LARGEST_PART = 2**31 - 1

_STRICT = r"(0|[1-9][0-9]{0,9})(\.(0|[1-9][0-9]{0,9})){2}"


def _trimmed(value: object) -> object:
    return _with_line_feeds(value).strip() if type(value) is str else value


def _quoted(value: object) -> object:
    return without_margins(_with_line_feeds(value)) if type(value) is str else value


def _with_line_feeds(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _composed(value: object) -> object:
    """Compose before the length is checked: some texts become longer by it."""
    return _trimmed(unicodedata.normalize("NFC", value)) if type(value) is str else value


def parts_of(version: str) -> tuple[int, int, int]:
    """Split a version into what it is ordered by."""
    major, minor, patch = version.split(".")
    return int(major), int(minor), int(patch)


def _parts(version: str) -> str:
    if not re.fullmatch(_STRICT, version) or max(parts_of(version)) > LARGEST_PART:
        raise ValueError(
            "must be three numbers X.Y.Z without leading zeros or suffix, as in 1.0.0, each of at"
            f" most {LARGEST_PART:,}"
        )
    return version


def _lines(value: object) -> object:
    return [value] if type(value) is str else value


def _tidy(mapping: dict[str, JsonValue]) -> dict[str, JsonValue]:
    return _tidied_mapping(mapping, "", 0)


def _tidied_mapping(mapping: dict[str, JsonValue], at: str, depth: int) -> dict[str, JsonValue]:
    """Trim the keys; two that were told apart by blanks alone would overwrite each other."""
    trimmed = {_key(key.strip(), at): value for key, value in mapping.items()}
    if len(trimmed) < len(mapping):
        raise ValueError(f"{at} has two keys that differ in blanks only".lstrip())
    return {
        key: _tidied(value, f"{at}.{key}" if at else key, depth + 1)
        for key, value in trimmed.items()
    }


def _tidied(value: JsonValue, at: str, depth: int) -> JsonValue:
    """Check a value below a mapping; JSON has no rules of its own for texts and numbers."""
    if depth > DEPTH:
        raise ValueError(f"{at} is nested deeper than {DEPTH} levels")
    match value:
        case str():
            return _checked(value, at)
        case float() if not math.isfinite(value):
            raise ValueError(f"{at} must be a finite number")
        case int() if abs(value) > LARGEST_INTEGER:
            raise ValueError(f"{at} must be an integer of at most 64 bits")
        case list():
            return [_tidied(item, f"{at}.{i}", depth + 1) for i, item in enumerate(value)]
        case dict():
            return _tidied_mapping(value, at, depth)
        case _:
            return value


def _checked(text: str, at: str) -> str:
    text = str(_trimmed(text))
    if len(text) > TEXT_LENGTH:
        raise ValueError(f"{at} must have at most {TEXT_LENGTH:,} characters")
    try:
        text.encode()
        return prose(text)
    except UnicodeEncodeError:
        raise ValueError(f"{at} must be valid Unicode text") from None
    except ValueError as error:
        raise ValueError(f"{at} {error}") from None


def _key(key: str, at: str) -> str:
    visible = all(unicodedata.category(char) not in ("Cc", "Cs", "Zl", "Zp") for char in key)
    if not (key and len(key) <= KEY_LENGTH and visible):
        rule = f"has a key that is no line of 1 to {KEY_LENGTH} visible characters"
        raise ValueError(f"{at} {rule}".lstrip())
    return key


class _Identified(Protocol):
    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=_Identified)


def _unique(items: list[Item]) -> list[Item]:
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise ValueError(f"the id {item.id!r} is given twice")
        seen.add(item.id)
    return items


Version = Annotated[
    str,
    BeforeValidator(_trimmed),
    AfterValidator(_parts),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": rf"^\s*{_STRICT}\s*$",
        }
    ),
]
# The constraints stand before the validators: behind one they would count "items", and their
# pattern would be missing from the JSON Schema.
Text = Annotated[
    str,
    StringConstraints(min_length=1, max_length=TEXT_LENGTH),
    BeforeValidator(_trimmed),
    AfterValidator(prose),
]
ExampleText = Annotated[
    str,
    StringConstraints(min_length=1, max_length=EXAMPLE_LENGTH),
    BeforeValidator(_quoted),
    AfterValidator(prose),
]
Label = Annotated[
    str,
    StringConstraints(min_length=1, max_length=LABEL_LENGTH),
    BeforeValidator(_composed),
    AfterValidator(one_line),
]
Id = Annotated[
    str,
    StringConstraints(min_length=1, max_length=ID_LENGTH, pattern="^[A-Za-z0-9._:-]+$"),
    BeforeValidator(_trimmed),
]
Lines = Annotated[
    list[Text],
    BeforeValidator(_lines),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
Mapping = Annotated[dict[str, JsonValue], AfterValidator(_tidy)]


class Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )


class Module(Part):
    """How to go about one kind of situation."""

    id: Id
    """Unique among the modules."""
    intent_labels: list[Label] = Field(default_factory=list[str])
    """Intents that it is for. Without any it is for all."""
    when: Lines = Field(default_factory=list[str])
    """Situations in which it applies."""
    do: Lines = Field(default_factory=list[str])
    """Steps, in their order."""
    say_style: Lines = Field(default_factory=list[str])
    """How to put it."""
    ban: list[Text] = Field(default_factory=list[str])
    """What never to say or do; merged with `banned_phrases`."""
    few_shot_ids: list[Id] = Field(default_factory=list[str])
    """Ids of canonical examples that show it."""
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = 100
    """Low comes first."""
    active: bool = True
    """Whether it is compiled at all."""


class Example(Part):
    """A request and the answer to it."""

    id: Id
    """Unique among all examples."""
    intent_label: Label
    """The intent that it is an example of."""
    prompt: ExampleText
    """What was asked."""
    response: ExampleText
    """What was answered."""
    tags: list[Label] = Field(default_factory=list[str])
    """Words that a query may share with it."""


class Rules(Part):
    """Rules that leave nothing to judge."""

    banned_phrases: list[Text] = Field(default_factory=list[str])
    """What never to say."""
    anti_style_rules: list[Text] = Field(default_factory=list[str])
    """Habits of style to avoid."""
    format_rules: list[Text] = Field(default_factory=list[str])
    """What every answer has to look like."""


class PersonaSpec(Part):
    """How a persona thinks and speaks. All fields are optional."""

    version: Version | None = None
    """X.Y.Z. Left out, it is the highest there is with its patch raised."""
    constitution: list[Text] = Field(default_factory=list[str])
    """Principles, the most important first."""
    decision_policy: Mapping = Field(default_factory=dict[str, JsonValue])
    """How it decides: what it weighs, when it asks."""
    stance_values: Mapping = Field(default_factory=dict[str, JsonValue])
    """What it stands for, and how strongly."""
    identity_voice: Mapping = Field(default_factory=dict[str, JsonValue])
    """Who speaks, and in which voice."""
    interaction_style: Mapping = Field(default_factory=dict[str, JsonValue])
    """How it deals with people."""
    procedural_modules: Annotated[
        list[Module], Field(max_length=MODULES), AfterValidator(_unique)
    ] = Field(default_factory=list[Module])
    """What to do in which situation."""
    canonical_examples: Annotated[
        list[Example], Field(max_length=EXAMPLES), AfterValidator(_unique)
    ] = Field(default_factory=list[Example])
    """Answers as they should be."""
    anti_examples: Annotated[list[Example], Field(max_length=EXAMPLES), AfterValidator(_unique)] = (
        Field(default_factory=list[Example])
    )
    """Answers as they must not be."""
    deterministic_rules: Rules = Field(default_factory=Rules)
    """Rules for every answer, whatever the intent."""
    metadata: Mapping = Field(default_factory=dict[str, JsonValue])
    """Notes for people; never compiled."""

    @model_validator(mode="after")
    def _refer_to_what_there_is(self) -> "PersonaSpec":
        shown = {example.id for example in self.canonical_examples}
        avoided = {example.id for example in self.anti_examples}
        if both := sorted(shown & avoided):
            raise ValueError(f"the id {both[0]!r} is that of an example and of an anti-example")
        for module in self.procedural_modules:
            for wanted in module.few_shot_ids:
                if wanted not in shown:
                    what = "an anti-example" if wanted in avoided else "no canonical example"
                    raise ValueError(
                        f"the module {module.id!r} names {wanted!r} in few_shot_ids, which is {what}"
                    )
        return self
