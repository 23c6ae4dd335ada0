"""What goes in and out of this room, on every surface."""

import re
import unicodedata
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

NAME_LENGTH = 100
DESCRIPTION_LENGTH = 10_000
FILE_BYTES = 1_000_000
PAGE_LIMIT = 100

Status = Literal["active", "archived"]


def storable(text: str) -> str:
    """Refuse the one character that Postgres cannot hold."""
    if "\0" in text:
        raise ValueError("must not contain the NUL character")
    return text


def one_line(text: str) -> str:
    """Accept one line of visible text, in its composed form, so that equal names are equal."""
    storable(text)
    if any(unicodedata.category(char) in ("Cc", "Zl", "Zp") for char in text):
        raise ValueError("must not contain control characters or line breaks")
    if any(unicodedata.bidirectional(char) in _BIDI_CONTROLS for char in text):
        raise ValueError("must not contain characters that change the writing direction")
    if all(char in _BLANK or unicodedata.category(char)[0] in "ZC" for char in text):
        raise ValueError("must not be empty or blank")
    if any(unicodedata.category(char) == "Cf" and char not in _JOINERS for char in text):
        raise ValueError("must not contain invisible characters")
    return unicodedata.normalize("NFC", text)


def prose(text: str) -> str:
    storable(text)
    if _CONTROL.search(text):
        raise ValueError("must not contain control characters")
    return text


def _fits_a_file(text: str) -> str:
    storable(text)
    if len(text.encode()) > FILE_BYTES:
        raise ValueError(f"must be at most {FILE_BYTES:,} bytes of UTF-8")
    return text


# Unicode's category Cc without tabs and line breaks. Asking for the category of each character
# took most of the time that reading a spec takes.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
# Emoji and several scripts need these two; no other format character shows in a name.
_JOINERS = frozenset({"\u200c", "\u200d"})
# Letters and symbols that draw nothing.
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")
# Overrides and isolates can make one name look like another (Unicode TR 36).
_BIDI_CONTROLS = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})

PersonaName = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=NAME_LENGTH),
    AfterValidator(one_line),
]
RoleName = PersonaName
Description = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=DESCRIPTION_LENGTH),
    AfterValidator(prose),
]
Reference = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
    AfterValidator(storable),
    AfterValidator(lambda text: unicodedata.normalize("NFC", text)),
]
Hash = Annotated[
    str, StringConstraints(strip_whitespace=True, to_lower=True), AfterValidator(storable)
]
FileText = Annotated[str, AfterValidator(_fits_a_file)]
EntryText = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1), AfterValidator(_fits_a_file)
]
Limit = Annotated[int, Field(ge=1, le=PAGE_LIMIT)]


class Shape(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Registration(Shape):
    """What registering takes. Also a line of an import file."""

    name: PersonaName
    role: RoleName
    description: Description | None = None


class Changes(Shape):
    """What to change; `None` leaves a field as it is and an empty description removes it."""

    name: PersonaName | None = None
    description: Description | None = None
    status: Status | None = None


class Wanted(Shape):
    persona: Reference


class SkillChange(Shape):
    content: FileText | None
    restore_sha256: Hash | None
    expected_sha256: Hash | None


class Entry(Shape):
    entry: EntryText


class Typed(Shape):
    """The beginning of a word that somebody is typing, or the place in a listing."""

    text: Annotated[
        str,
        StringConstraints(max_length=NAME_LENGTH),
        AfterValidator(storable),
        AfterValidator(lambda text: unicodedata.normalize("NFC", text)),
    ]


class Task(Shape):
    task: Description


class RoleQuery(Shape):
    name: RoleName


class Listing(Shape):
    """What to list, and how."""

    role: RoleName | None
    status: Literal["active", "archived", "all"]
    text: Reference | None
    sort: Literal["newest", "role"]
    limit: Limit
    cursor: str | None


class AssetState(Shape):
    """Which of a persona's files are there."""

    directory: bool
    skill: bool
    experience: bool

    @property
    def complete(self) -> bool:
        return self.directory and self.skill and self.experience


class PersonaSummary(Shape):
    id: int
    slug: str
    name: str
    role: str
    status: Status
    created_at: datetime
    assets: AssetState


class Persona(PersonaSummary):
    description: str | None
    path: str = Field(description="Directory of the persona's files, absolute.")
    updated_at: datetime


class Registered(Persona):
    role_created: bool = Field(description="Whether this was the first persona of its role.")
    files_created: list[str] = Field(
        description="Files written now. One that lay there already was kept as it is."
    )


class Candidate(Shape):
    slug: str
    name: str
    role: str


class Match(Shape):
    """The one persona that was meant, or the several that may have been."""

    persona: Persona | None
    candidates: list[Candidate] = Field(
        description="Filled when the reference fits several: ask again with one of these slugs."
    )
    more: bool = Field(description="Whether there are further candidates.")


class Role(Shape):
    name: str
    label: str = Field(description="The spelling first used.")
    description: str | None
    created_at: datetime
    persona_count: int


class RoleLookup(Shape):
    found: bool
    role: Role | None
    personas: list[PersonaSummary] = Field(description="Active ones first, newest first.")
    left_out: int = Field(description="Further ones: list_personas with this role has them all.")
    nearest: list[str] = Field(description="Known roles that look like the one asked for.")
    how_to_create: str | None


class Totals(Shape):
    active: int
    archived: int


class PersonaPage(Shape):
    personas: list[PersonaSummary]
    totals: Totals = Field(description="All personas of the tenant, whatever the filters.")
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page.")


class SkillVersion(Shape):
    sha256: str
    author: str
    created_at: datetime
    size_bytes: int


class AssetFile(Shape):
    """A persona's file. An absent one is an answer: `exists` is false and the rest is null."""

    exists: bool
    path: str
    content: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    last_modified: datetime | None = None


class PersonaFiles(Shape):
    slug: str
    skill: AssetFile | None = Field(description="Null when it was not asked for.")
    experience: AssetFile | None
    skill_versions: list[SkillVersion] = Field(description="Kept texts of skill.md, newest first.")


class SkillWritten(Shape):
    slug: str
    path: str
    sha256: str
    replaced_sha256: str | None = Field(description="Hash of the text before; null when none.")
    changed: bool


class ExperienceAdded(Shape):
    slug: str
    path: str
    heading: str
    last_modified: datetime
    size_bytes: int


class Repaired(Shape):
    slug: str
    path: str
    created: list[str] = Field(description="Files that were missing and now are there.")
    assets: AssetState


class Deleted(Shape):
    slug: str
    kept_files: str | None = Field(description="Where the files still are; null without any.")


class Outcome(Shape):
    """What became of one line of an import."""

    line: int
    name: str | None
    slug: str | None
    error: str | None


class AgentSkill(Shape):
    uri: str
    name: str
    description: str
    text: str = Field(description="The whole SKILL.md.")


class AgentSkillPage(Shape):
    skills: list[AgentSkill]
    next_cursor: str | None
