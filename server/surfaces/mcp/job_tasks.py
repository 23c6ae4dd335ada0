"""Jobs of personas as tasks, which ask the person in front of the client about proposed standards.

The persona never waits for the answer: it goes on, and when its job has ended nothing is asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from secrets import token_urlsafe
from typing import TYPE_CHECKING

from mcp.server.elicitation import render_elicitation_schema
from mcp.server.mcpserver import (
    AcceptedElicitation,
    CancelledElicitation,
    DeclinedElicitation,
    Elicit,
)
from mcp.types import (
    CallToolResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequest,
    TextContent,
)
from pydantic import JsonValue, ValidationError

from server.errors import Conflict, DramatisError
from server.jobs.shapes import (
    JobComplete,
    JobFailed,
    JobPending,
    JobRunning,
    JobStatus,
)
from server.late import Late
from server.standards.proposals import ProposalDetail
from server.surfaces.mcp.jobs import told
from server.surfaces.mcp.notices import standard_uri, standards_changed
from server.surfaces.mcp.standard_approval import Answer, Reply, carried_out, form
from server.surfaces.mcp.tasks import TaskState, TaskStatus
from server.surfaces.mcp.toolset import Request, acting, can_ask, use_case

if TYPE_CHECKING:
    from server.jobs import following, service
    from server.jobs.following import FollowedJob
else:
    following = Late("server.jobs.following")
    service = Late("server.jobs.service")

# Every job can be asked for at least so long, however it ends.
TTL = timedelta(days=7)
POLL = timedelta(seconds=2)


class AnswerNotTaken(Conflict):
    code = "answer_not_taken"


@dataclass
class _Question:
    """A form that has gone out.

    Attributes:
        prospect: what it shows. An answer is one to exactly this revision.
        answered: whether an answer came, of whatever kind. Its key is not used again then.
        reply: the answer that was taken.
    """

    prospect: ProposalDetail
    text: str
    answered: bool = False
    reply: Reply | None = None

    def is_about(self, prospect: ProposalDetail) -> bool:
        return (self.prospect.id, self.prospect.digest) == (prospect.id, prospect.digest)


class JobTasks:
    """Serves the caller's jobs as tasks, by their ids.

    What was asked is remembered as long as this lives: only an answer to that counts, also when the
    job has ended meanwhile, and nobody who left a proposal open is asked about it twice.
    """

    def __init__(self) -> None:
        self._asked: dict[str, dict[str, _Question]] = {}

    async def get(self, ctx: Request, task_id: str) -> TaskState | None:
        """Say how a job is, and what a person may decide meanwhile."""
        job = await following.followed_job(*await acting(ctx), task_id)
        if job is None:
            return None
        asked = self._requests(ctx, job)
        status, message, result = _standing(job.status)
        return TaskState(
            task_id=_id(job),
            status="input_required" if asked else status,
            created_at=job.created_at,
            last_updated_at=job.updated_at,
            ttl_ms=_ms(TTL),
            poll_interval_ms=_ms(POLL),
            status_message=message,
            result=result,
            input_requests=asked,
        )

    async def answer(self, ctx: Request, task_id: str, answers: Mapping[str, JsonValue]) -> bool:
        """Carry out what a person decided, however the job is by now.

        Raises:
            AnswerNotTaken: some of it cannot be carried out; all the rest is.
        """
        job = await following.followed_job(*await acting(ctx), task_id)
        if job is None:
            return False
        asked = self._asked.get(_id(job), {})
        refused: list[str] = []
        for key, question in asked.items():
            if key in answers and (refusal := await _take(ctx, question, answers[key])):
                # An error has no paths of the machine, as the whole command does.
                review = f"dramatis standards review {question.prospect.id}"
                refused.append(f"{refusal} `{review}` shows it.")
        if refused:
            raise AnswerNotTaken(" ".join(refused))
        return True

    async def cancel(self, ctx: Request, task_id: str) -> bool:
        """Stop a job; one that has ended stays as it is."""
        async with use_case(ctx) as work:
            cancelled = await service.cancel_job(work, task_id)
        return cancelled.status != "not_found"

    def _requests(self, ctx: Request, job: "FollowedJob") -> dict[str, InputRequest]:
        """Ask what is to be decided, and has not been left open before."""
        if not can_ask(ctx):
            return {}
        asked = self._asked.setdefault(_id(job), {})
        return {
            _key(asked, prospect, asking.message): _request(asking)
            for prospect in job.proposals
            if (asking := form(prospect)) is not None
            and not any(one.reply and one.is_about(prospect) for one in asked.values())
        }


def _key(asked: dict[str, _Question], prospect: ProposalDetail, text: str) -> str:
    """Return the key under which this very text is open already, or one that nobody can guess."""
    for key, one in asked.items():
        if one.is_about(prospect) and one.text == text and not one.answered:
            return key
    key = f"proposal-{prospect.id}-{token_urlsafe(16)}"
    asked[key] = _Question(prospect, text)
    return key


async def _take(ctx: Request, question: _Question, answer: JsonValue) -> str | None:
    """Do what the answer says; else return why that cannot be."""
    question.answered = True
    reply = _reply(answer)
    if reply is None:
        return f"That is no answer to the form about proposal {question.prospect.id}."
    if reply == question.reply:
        # Clients send again what they heard no acknowledgement of.
        return None
    if isinstance(reply, AcceptedElicitation):
        try:
            refusal = await _decide(ctx, question.prospect, reply)
        except DramatisError as error:
            # The answers to other questions are to be carried out all the same.
            refusal = str(error)
        if refusal is not None:
            return refusal
    question.reply = reply
    return None


async def _decide(ctx: Request, prospect: ProposalDetail, reply: Reply) -> str | None:
    requested = await carried_out(ctx, prospect, reply)
    if requested.status == "left_open":
        return requested.message
    if requested.status == "approved":
        uri = standard_uri(prospect.domain, prospect.topic)
        await standards_changed(ctx.lifespan_context.audience, [uri])
    return None


def _id(job: "FollowedJob") -> str:
    """Write its id as the store does, however the client did."""
    return str(job.status.job_id)


def _standing(status: JobStatus) -> tuple[TaskStatus, str | None, CallToolResult | None]:
    match status:
        case JobPending(message=message):
            return "working", message, None
        case JobRunning(progress=progress):
            return "working", progress.message, None
        case JobComplete():
            return "completed", None, told(status)
        case JobFailed():
            return "completed", None, _failure(status)
        case _:
            return "cancelled", None, None


def _failure(failed: JobFailed) -> CallToolResult:
    texts = [
        f"{failed.persona} failed: {failed.error}\nIts job_id is {failed.job_id}: retry_persona_job"
        " runs it again, get_persona_run says why it failed."
    ]
    if failed.partial_result:
        texts.append(f"What it wrote until then:\n\n{failed.partial_result}")
    content = [TextContent(type="text", text=text) for text in texts]
    return CallToolResult(content=[*content], is_error=True)


def _request(asking: Elicit[Answer]) -> InputRequest:
    schema = render_elicitation_schema(asking.schema)
    return ElicitRequest(
        params=ElicitRequestFormParams(message=asking.message, requested_schema=schema)
    )


def _reply(answer: JsonValue) -> Reply | None:
    """Read an answer; `None` when it is none to this form."""
    try:
        given = ElicitResult.model_validate(answer)
        match given.action:
            case "accept":
                return AcceptedElicitation(data=Answer.model_validate(given.content))
            case "decline":
                return DeclinedElicitation()
            case _:
                return CancelledElicitation()
    except ValidationError:
        return None


def _ms(time: timedelta) -> int:
    return round(time.total_seconds() * 1000)
