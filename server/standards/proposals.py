"""What goes in and out about proposals, on every surface."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue, StringConstraints

from server.personas.shapes import PAGE_LIMIT, Reference, Shape, one_line, prose
from server.standards.shapes import Digest, DomainName, Review, Tags, TopicName

CONTENT_LENGTH = 50_000
# Of a longer one, nobody reads what stays.
LONGEST_DIFF = 1_000


ProposalStatus = Literal["draft", "approved", "rejected"]


Verdict = Literal["approved", "changes", "rejected"]


Channel = Literal["terminal", "elicitation", "console", "rest"]


Content = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=CONTENT_LENGTH),
    AfterValidator(prose),
]


Reason = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=2_000),
    AfterValidator(prose),
]


Feedback = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=5_000),
    AfterValidator(prose),
]


Confidence = Annotated[float, Field(ge=0, le=1)]


ProposalId = Annotated[int, Field(ge=1, le=2**31 - 1)]


class Evidence(Shape):
    """Where the pattern was seen."""

    file: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=300),
        AfterValidator(one_line),
    ]
    lines: (
        Annotated[
            str, StringConstraints(strip_whitespace=True, max_length=40), AfterValidator(one_line)
        ]
        | None
    ) = Field(default=None, description="Such as `10-14`.")
    note: (
        Annotated[
            str, StringConstraints(strip_whitespace=True, max_length=500), AfterValidator(prose)
        ]
        | None
    ) = None


class ProposedText(Shape):
    """One revision, as its author gives it."""

    content: Content
    reason: Reason
    evidence: Annotated[list[Evidence], Field(max_length=20)]
    confidence: Confidence
    tags: Tags
    base_sha256: Digest | None


class NewProposal(ProposedText):
    domain: DomainName
    topic: TopicName
    persona: Reference | None


class Edited(Shape):
    content: Content


class Said(Shape):
    feedback: Feedback


class Numbered(Shape):
    proposal: ProposalId


class ProposalQuery(Shape):
    status: Literal["draft", "approved", "rejected", "all"]
    limit: Annotated[int, Field(ge=1, le=PAGE_LIMIT)]
    before: ProposalId | None


class Similar(Shape):
    """A standard that says something close to what is proposed."""

    domain: str
    topic: str
    file: str
    relevance: float


class ProposalSummary(Shape):
    id: int
    domain: str
    topic: str
    file: str
    status: ProposalStatus
    waits_for: Literal["person", "persona", "nobody"]
    changes_existing: bool
    revision: int
    reason: str
    created_by: str
    created_at: datetime
    feedback: str | None = Field(description="What a person last asked to be changed, or why not.")
    not_written: bool = Field(description="Approved, and its file still has to be written.")


class ProposalPage(Shape):
    proposals: list[ProposalSummary]
    waiting: int = Field(description="All drafts of the project that wait for a person.")
    next_before: int | None = Field(description="Pass it as `before` for the next page.")


class Decision(Shape):
    revision: int
    verdict: Verdict
    feedback: str | None
    person: str
    channel: Channel
    self_approved: bool
    decided_at: datetime


class RevisionSummary(Shape):
    number: int
    author: str
    created_at: datetime
    digest: str


class ProposalDetail(ProposalSummary):
    """A proposal as a person is to see it: its newest revision against the file as it is now."""

    content: str
    evidence: list[Evidence]
    confidence: float
    tags: list[str]
    digest: str = Field(description="Of exactly this revision. A decision names it.")
    base_sha256: str | None
    current_sha256: str | None
    base_review: Review | None = Field(
        description="Of the file as it is; null where there is none. Unless it is `approved`, a yes"
        " is a yes to all of the text, not only to the change."
    )
    kept: dict[str, JsonValue] = Field(description="Front matter of the file that stays in it.")
    stale: str | None = Field(description="Why it cannot be approved as it is.")
    diff: list[str] = Field(description="Lines of a unified diff against the current file.")
    since_answer: list[str] = Field(
        description="The same against the revision that a person last asked to be changed."
    )
    similar: list[Similar]
    other_proposals: list[int] = Field(description="Other drafts for the same file.")
    revisions: list[RevisionSummary]
    decisions: list[Decision]
    review_command: str

    @property
    def shows_change(self) -> bool:
        """Whether the change is all that a decision is about: the rest was approved before."""
        return self.base_review == "approved" and len(self.diff) <= LONGEST_DIFF


class Proposed(Shape):
    id: int
    revision: int
    file: str
    status: ProposalStatus
    digest: str
    similar: list[Similar] = Field(description="Standards that say something close to it.")
    other_proposals: list[int] = Field(description="Other drafts for the same file.")
    message: str


class Decided(Shape):
    """What a person's answer came to."""

    id: int
    status: ProposalStatus
    verdict: Verdict
    revision: int
    digest: str
    file: str
    path: str | None = Field(description="Absolute path of the written file.")
    created: bool | None = Field(description="Whether the file is new; null where none is written.")
    self_approved: bool
    message: str


Outcome = Literal["approved", "changes_requested", "rejected", "left_open", "cannot_ask"]


class ProposalListing(Shape):
    """A page of proposals, or one of them in full."""

    page: ProposalPage | None = Field(description="Null where one proposal was asked for.")
    detail: ProposalDetail | None


class ApprovalRequested(Shape):
    """What came of asking a person to decide."""

    status: Outcome
    proposal: int
    revision: int
    file: str
    path: str | None = Field(description="Absolute path of the written file.")
    feedback: str | None = Field(description="What the person said.")
    command: str | None = Field(description="What a person runs to decide, while nothing is.")
    message: str
