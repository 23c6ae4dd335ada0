"""What goes in and out of this room, on every surface."""

import re
import unicodedata
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from server.personas.shapes import PAGE_LIMIT, Reference, Shape, one_line, storable

NAME_LENGTH = 80
NAME_BYTES = 200
QUERY_LENGTH = 10_000
QUERIES = 5
HITS = 20

Layer = Literal["project", "language", "universal"]
Review = Literal["approved", "claimed", "unreviewed"]

# What some file system keeps for itself, or a reader of addresses undoes.
_NO_FILE_NAME = re.compile(r'[/\\:*?"<>|%]')
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(\..*)?")


def folded(name: str) -> str:
    """Fold a name for comparing, so that `Error handling` is `error-handling`."""
    return re.sub(r"[\s_]+", "-", unicodedata.normalize("NFC", name.strip().casefold()))


def _file_name(text: str) -> str:
    # Look-alikes of dots and separators become what they look like.
    plain = unicodedata.normalize("NFKC", one_line(text))
    name = re.sub(r"\s+", "-", plain.strip().lower()).removesuffix(".md")
    if _NO_FILE_NAME.search(name) or ".." in name:
        raise ValueError("must be a name, not a path: letters, digits, hyphens and the like")
    if len(name.encode()) > NAME_BYTES:
        # Longer ones fit no file beside it while it is written.
        raise ValueError(f"must be at most {NAME_BYTES} bytes of UTF-8")
    if not name or name[0] in ".-~" or name.endswith("."):
        raise ValueError("must begin with a letter or digit and not end with a dot")
    if _DEVICES.fullmatch(name):
        raise ValueError("must be a name that Windows allows for a file too")
    return name


FileName = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=NAME_LENGTH),
    AfterValidator(_file_name),
]
DomainName = FileName
TopicName = FileName
Tag = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=40),
    AfterValidator(one_line),
    AfterValidator(str.lower),
]
Tags = Annotated[
    list[Tag], Field(max_length=20), AfterValidator(lambda tags: [*dict.fromkeys(tags)])
]
Digest = Annotated[
    str,
    StringConstraints(strip_whitespace=True, to_lower=True, pattern=r"^[0-9a-fA-F]{64}$"),
]
Query = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=QUERY_LENGTH),
    AfterValidator(storable),
]
Queries = Annotated[list[Query], Field(min_length=1, max_length=QUERIES)]
HitLimit = Annotated[int, Field(ge=1, le=HITS)]


class Named(Shape):
    domain: Reference
    topic: Reference


class Searched(Shape):
    queries: Queries
    limit: HitLimit
    domain: Reference | None
    tags: Tags
    layer: Layer | None


class StandardQuery(Shape):
    domain: Reference | None
    tags: Tags
    layer: Layer | None
    limit: Annotated[int, Field(ge=1, le=PAGE_LIMIT)]
    cursor: Reference | None


class Hit(Shape):
    """A passage that answers."""

    file: str = Field(description="Relative to the project, or to the library of its layer.")
    domain: str
    topic: str
    layer: Layer
    section: str
    line: int
    text: str
    highlight: str = Field(description="What matched, between « and ».")
    relevance: float = Field(description="0 to 1, higher is better; comparable within one answer.")
    tokens: int
    review: Review = Field(
        description="`approved`: this very text was approved here. `claimed`: the file says so."
        " `unreviewed`: saved by hand, so check it before you rely on it."
    )
    approved_by: str | None


class SearchResult(Shape):
    hits: list[Hit]
    found_by: Literal["full text", "full text and vectors", "scan of the files"]
    took_ms: float
    tokens: int
    note: str | None = Field(description="What kept the search from being better.")


class StandardSummary(Shape):
    domain: str
    topic: str
    layer: Layer
    file: str
    title: str
    tags: list[str]
    created_by: str | None
    review: Review
    approved_by: str | None
    last_updated: datetime
    query_count: int
    problem: str | None = Field(description="Why it cannot be searched, or not as it should be.")


class StandardListing(Shape):
    standards: list[StandardSummary]
    total: int
    domains: list[str]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page.")


class StandardText(Shape):
    domain: str
    topic: str
    layer: Layer
    file: str
    text: str = Field(description="The whole file as it is now, front matter included.")
    sha256: str = Field(description="Pass it as `base_sha256` to propose a change.")
    review: Review
    approved_by: str | None


class Statistics(Shape):
    standards: int
    passages: int
    unsearchable: int
    unreviewed: int
    waiting_proposals: int
    not_written: int
    indexed_at: datetime | None
    vectors: str = Field(description="Whether texts are also found by their meaning, or why not.")
    most_queried: list[StandardSummary]
    never_queried: list[StandardSummary]
    recently_changed: list[StandardSummary]


class Skipped(Shape):
    file: str
    reason: str


class IndexReport(Shape):
    """What an index run found and did."""

    files: int
    changed: list[str]
    removed: list[str]
    passages: int
    skipped: list[Skipped]
