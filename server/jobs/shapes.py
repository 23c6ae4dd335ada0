"""What goes in and out of this room, on every surface."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, Field, JsonValue, StringConstraints

from server.markdown import size_bytes
from server.personas.shapes import Reference, Shape, storable
from server.specs.trace import Trace

CONTEXT_BYTES = 100_000
TASK_LENGTH = 20_000
LIST_LIMIT = 100

Priority = Literal["low", "normal", "high"]
State = Literal["pending", "running", "complete", "failed", "cancelled"]
Phase = Literal["initializing", "searching", "analyzing", "generating"]
RunnerKind = Literal["model", "command"]
# In front of its id, this means a core persona, whatever others are called.
CORE = "core:"
Recommendation = Literal["healthy", "schedule soon", "recommended", "urgent"]

_UNKEPT = re.compile("[\0\ud800-\udfff]")


def keepable(text: str) -> str:
    """Make of what a model or a program said a text that Postgres can hold.

    Halves of a character that follow one another become that character; what is left of NUL and of
    halves is replaced.
    """
    if not _UNKEPT.search(text):
        return text
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return whole.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _keepable(value: JsonValue) -> JsonValue:
    match value:
        case str():
            return keepable(value)
        case list():
            return [_keepable(one) for one in value]
        case dict():
            return _keepable_fields(value)
        case _:
            return value


def _keepable_fields(fields: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {keepable(name): _keepable(one) for name, one in fields.items()}


def _context(text: str) -> str:
    if (size := size_bytes(text)) > CONTEXT_BYTES:
        raise ValueError(
            f"must be at most {CONTEXT_BYTES:,} bytes, and has {size:,}; name files instead, which"
            " the persona can read"
        )
    return text


JobTask = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=TASK_LENGTH),
    AfterValidator(storable),
]
JobContext = Annotated[str, AfterValidator(storable), AfterValidator(_context)]
KeepableText = Annotated[str, AfterValidator(keepable)]
KeepableFields = Annotated[Mapping[str, JsonValue], AfterValidator(_keepable_fields)]
ListLimit = Annotated[int, Field(ge=1, le=LIST_LIMIT)]


class NewJob(Shape):
    persona: Reference
    task: JobTask
    context: JobContext | None
    priority: Priority


class JobQuery(Shape):
    status: State | None
    persona: Reference | None
    limit: ListLimit


class TokensUsed(Shape):
    input: int
    output: int


class Progress(Shape):
    phase: Phase
    percent_complete: int = Field(description="0 to 100; never falls while the job runs.")
    message: str
    eta_seconds: int | None
    tool_calls_completed: int


class JobStarted(Shape):
    status: Literal["started"] = "started"
    job_id: UUID
    persona: str
    estimated_duration_seconds: int
    poll_command: str
    message: str
    trace: Trace


class JobPending(Shape):
    status: Literal["pending"] = "pending"
    job_id: UUID
    persona: str
    position: int = Field(description="In the queue; 1 is next.")
    elapsed_seconds: float
    message: str


class JobRunning(Shape):
    status: Literal["running"] = "running"
    job_id: UUID
    persona: str
    progress: Progress
    elapsed_seconds: float
    partial_result: str


class JobComplete(Shape):
    status: Literal["complete"] = "complete"
    job_id: UUID
    persona: str
    result: str
    duration_seconds: float
    tool_calls_made: int
    tokens_used: TokensUsed
    trace: Trace


class JobFailed(Shape):
    status: Literal["failed"] = "failed"
    job_id: UUID
    persona: str
    error: str
    partial_result: str | None
    elapsed_seconds: float


class JobCancelled(Shape):
    status: Literal["cancelled"] = "cancelled"
    job_id: UUID
    persona: str
    partial_result: str | None
    elapsed_seconds: float


class JobNotFound(Shape):
    """`persona` is empty: who it was is not known any more."""

    status: Literal["not_found"] = "not_found"
    job_id: str
    persona: str = ""
    message: str


JobStatus = JobPending | JobRunning | JobComplete | JobFailed | JobCancelled | JobNotFound


class ListedJob(Shape):
    job_id: UUID
    persona: str
    status: State
    task: str
    created_at: datetime
    duration_seconds: float | None = Field(description="Null until it has begun.")


class JobListing(Shape):
    jobs: list[ListedJob]
    total_count: int
    filtered_count: int


class Cancellation(Shape):
    status: Literal["cancelled", "already_finished", "not_found"]
    job_id: str
    partial_result: str | None
    message: str


class Statistics(Shape):
    database_size_mb: float
    total_jobs: int
    jobs_by_status: Mapping[State, int]
    oldest_job_days: float | None
    next_cleanup: datetime
    cleanup_recommendation: Recommendation


class Cleaned(Shape):
    jobs_deleted: int
    next_cleanup: datetime


class Reset(Shape):
    status: Literal["reset", "confirmation_needed"]
    jobs_deleted: int
    space_freed_mb: float
    message: str


class Step(Shape):
    """Something that a run did.

    Attributes:
        kind: `tool` is a call that the model asked for; `model` is a request to the model; `note`
            is what the record has to say about the run.
        details: for a tool its arguments, shortened, and what it found: `standards` (files, with
            `review`), `file`, `proposal_id`; for a model `input_tokens` and `output_tokens`.
        error: why it failed, as the model was told.
    """

    attempt: int
    kind: Literal["tool", "model", "note"]
    name: KeepableText
    began_at: datetime
    duration_ms: float
    error: KeepableText | None = None
    details: KeepableFields = {}


class ProposalMade(Shape):
    proposal_id: int
    file: str
    status: str
    decided_by: str | None


class RunRecord(Shape):
    """Why a persona said what it said."""

    job_id: UUID
    status: State
    persona: str
    persona_name: str
    task: str
    context_bytes: int
    priority: Priority
    requested_by: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempts: int
    retry_of: UUID | None
    trace: Trace
    runner: RunnerKind
    model: str
    unsandboxed: bool
    project: str | None
    budget: "Budget"
    spent: "Spent"
    standards: list[str] = Field(description="Files of the standards it was shown.")
    steps: list[Step]
    proposals: list[ProposalMade]
    error: str | None
    error_code: str | None = Field(description="Which of the known reasons the error is.")
    prompt: str


class Budget(Shape):
    """What a run may spend; `None` is no limit."""

    tokens: int
    usd: float | None
    seconds: float = Field(description="Of each attempt; tokens and money are those of all.")


class Spent(Shape):
    input_tokens: int
    output_tokens: int
    usd: float | None = Field(description="Null where the price of the model is not known.")
    estimated: bool = Field(description="The provider did not say; counted from the texts.")
    seconds: float


class PersonaUsage(Shape):
    """What a persona spent on a day (UTC), and what its running jobs have reserved."""

    persona: str
    day: str
    runs: int
    input_tokens: int
    output_tokens: int
    usd: float | None = Field(description="Null where no price is known.")
    unpriced: bool = Field(description="Runs without a known price are left out of `usd`.")
    reserved_tokens: int
    reserved_usd: float
    tokens_limit: int | None
    usd_limit: float | None
