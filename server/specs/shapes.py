"""What goes in and out of this room, on every surface."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints

from server.personas.shapes import Reference, Shape, prose
from server.specs.document import Label, Version
from server.specs.trace import Trace

VERSIONS_LISTED = 20
VERSIONS_LIMIT = 100
QUERY_LENGTH = 10_000
NOTE_LENGTH = 1_000
CHECKS = 100

Variant = Literal["baseline", "compact", "compact_no_examples", "voice_focus"]
Section = Literal["constitution", "decision_policy", "style", "modules", "few_shots", "rules"]
SECTIONS: tuple[Section, ...] = (
    "constitution",
    "decision_policy",
    "style",
    "modules",
    "few_shots",
    "rules",
)
SpecStatus = Literal["draft", "active", "archived"]
Origin = Literal["written", "generated"]
Confirmed = Literal["operator", "person", "agent"]

Intent = Label
Query = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=QUERY_LENGTH),
    AfterValidator(prose),
]
Budget = Annotated[int, Field(ge=1, le=1_000_000)]
Note = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=NOTE_LENGTH),
    AfterValidator(prose),
]


class PlanRequest(Shape):
    """What a spec is compiled for."""

    model_config = ConfigDict(strict=True)

    intent: Intent | None = None
    query: Query | None = None
    variant: Variant = "baseline"
    budget: Budget | None = None


class Publishing(Shape):
    version: Version


class Why(Shape):
    note: Note


class VersionQuery(Shape):
    version: Version | None


class VersionListing(Shape):
    before: Version | None
    limit: Annotated[int, Field(ge=1, le=VERSIONS_LIMIT)]


class Overview(Shape):
    after: Reference | None
    limit: Annotated[int, Field(ge=1, le=VERSIONS_LIMIT)]


class CompiledRules(Shape):
    banned: list[str] = Field(description="Bans of the rules, then of the modules.")
    anti_style_rules: list[str]
    format_rules: list[str]


class Dropped(Shape):
    section: Section
    id: str
    tokens: int


class PromptPlan(Shape):
    """A compiled spec. Tokens are estimates: bytes of UTF-8 by four."""

    spec_version: str | None = Field(description="Null for a spec that is not stored.")
    intent: str | None
    query: str | None
    variant: Variant
    constitution_text: str
    decision_policy_text: str
    style_text: str
    modules_text: str
    few_shots_text: str
    rules_text: str
    selected_module_ids: list[str] = Field(description="Chosen by intent, in their order.")
    few_shot_ids: list[str]
    anti_example_ids: list[str]
    deterministic_rules: CompiledRules
    tokens: dict[Section, int]
    total_tokens: int
    budget: int | None
    dropped: list[Dropped] = Field(description="What the budget had no room for, in that order.")
    digest: str = Field(description="SHA-256 of the text.")

    @property
    def section_texts(self) -> dict[Section, str]:
        return {
            "constitution": self.constitution_text,
            "decision_policy": self.decision_policy_text,
            "style": self.style_text,
            "modules": self.modules_text,
            "few_shots": self.few_shots_text,
            "rules": self.rules_text,
        }

    @property
    def text(self) -> str:
        """The prompt: the sections there are, with a blank line between."""
        return joined(self.section_texts)


def joined(texts: dict[Section, str]) -> str:
    whole = "\n\n".join(texts[section] for section in SECTIONS if texts[section])
    return f"{whole}\n" if whole else ""


class Publication(Shape):
    version: str
    published_at: datetime
    author: str
    confirmed: Confirmed = Field(
        description="Who said yes: the operator, a person who was asked, or the agent by its word."
    )
    note: str
    replaced: str | None = Field(description="Version that was active until then.")
    overridden: list[str] = Field(description="Checks that failed and were overridden.")


class SpecSummary(Shape):
    version: str
    status: SpecStatus
    origin: Origin
    sources: list[str] = Field(description="What a generated one was made from.")
    author: str
    created_at: datetime
    digest: str = Field(description="SHA-256 of the document.")
    last_published: Publication | None


class PersonaSpecs(Shape):
    """How many versions a persona has, and which ones matter."""

    slug: str
    name: str
    active: str | None
    newest: str
    versions: int


class SpecListing(Shape):
    personas: list[PersonaSpecs] = Field(description="Personas that have specs, by slug.")
    versions: list[SpecSummary] = Field(
        description="Of the persona that was asked for, by version, highest first."
    )
    next: str | None = Field(description="Where the next page begins: `before` or `after`.")


class SpecDetail(SpecSummary):
    slug: str
    document: dict[str, Any] = Field(description="The spec; left-out fields have their defaults.")
    publications: list[Publication] = Field(description="Newest first.")


class SpecDraft(Shape):
    slug: str
    version: str
    status: SpecStatus
    origin: Origin
    sources: list[str]
    digest: str = Field(description="SHA-256 of the document.")
    preview: PromptPlan = Field(description="What a run will compile it to.")


class SpecText(Shape):
    """A version as YAML, without its version."""

    slug: str
    version: str
    next_version: str
    text: str


class CheckOutcome(Shape):
    name: str
    passed: bool
    failures: list[str]


class CheckReport(Shape):
    slug: str
    version: str
    passed: bool
    outcomes: list[CheckOutcome]


class Published(Shape):
    slug: str
    version: str
    changed: bool = Field(description="False when it was the active version already.")
    replaced: str | None
    digest: str = Field(description="SHA-256 of the document.")
    overridden: list[str]


class Change(Shape):
    """One difference in meaning."""

    kind: Literal["added", "removed", "changed"]
    path: str = Field(description="As in `procedural_modules.review.do`.")
    before: Any = None
    after: Any = None


class Prospect(Shape):
    """What publishing a version would do now: what somebody who is asked has to know."""

    slug: str
    name: str
    version: str
    active: str | None = Field(description="The version that is active now.")
    published: Publication | None = Field(description="When that one was published.")
    changes: list[Change] = Field(description="From the active version to this one.")
    failing: list[str] = Field(description="Checks that would be overridden.")

    @property
    def changes_nothing(self) -> bool:
        return self.active == self.version


class TextRow(Shape):
    """A line of the compiled texts side by side; null where there is none."""

    kind: Literal["same", "added", "removed", "changed", "skipped"]
    before: str | None
    after: str | None


class SpecDiff(Shape):
    slug: str
    before: str
    after: str
    changes: list[Change]
    compiled: list[TextRow] = Field(description="Changed lines of the compiled text, in context.")


class Compiled(Shape):
    """A prompt, and proof of what it was made from."""

    slug: str
    text: str
    tokens: int
    plan: PromptPlan | None = Field(description="Null on fallback.")
    known_intents: list[str] = Field(description="Those to ask for; none on fallback.")
    cuts: list[str]
    trace: Trace


class BecomePrompt(Shape):
    slug: str
    text: str
    tokens: int
    cuts: list[str]
    trace: Trace
