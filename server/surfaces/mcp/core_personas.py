"""The toolset of core personas: a tool to invoke each of the built-in ones by."""

from typing import Annotated

from mcp.types import CallToolResult

from server.surfaces.mcp.jobs import (
    CANCEL,
    CHECK,
    LIST,
    Invocation,
    Material,
    Task,
    Urgency,
    invoked,
)
from server.surfaces.mcp.personas import BECOME
from server.surfaces.mcp.toolset import INVOKES, Ctx, Tool, Toolset

# Name and summary, as the prompt files have them; those are not read when a server starts.
CORE = {
    "architect": (
        "Architect",
        "For decisions that are hard to reverse, such as boundaries, ownership of data,"
        " concurrency, APIs and load.",
    ),
    "engineer": (
        "Engineer",
        "For code as it is written, such as correctness, thread safety, speed of a hot path,"
        " readability and refactoring.",
    ),
    "data": (
        "Data",
        "For data that is stored or moved, such as schemas, pipelines, streams, ETL, migrations"
        " and quality.",
    ),
    "qa": (
        "QA",
        "For what to test and whether the tests would notice, such as strategy, gaps, edge cases"
        " and flaky tests.",
    ),
    "security": (
        "Security",
        "For what an attacker could do, such as vulnerabilities, threat models, access control,"
        " secrets and OWASP.",
    ),
    "sre": (
        "SRE",
        "For running it, such as production readiness, SLOs, observability, deployment, rollback"
        " and capacity.",
    ),
}


def _invoking(core_id: str, name: str, summary: str) -> Tool:
    async def invoke(
        ctx: Ctx, task: Task, context: Material = "", priority: Urgency = "normal"
    ) -> Annotated[CallToolResult, Invocation]:
        return await invoked(ctx, f"core:{core_id}", task, context, priority)

    invoke.__name__ = f"invoke_{core_id}"
    invoke.__doc__ = (
        f"Use {summary[0].lower()}{summary[1:]} Runs in the background: returns a `job_id` for"
        " check_persona_job."
    )
    return Tool(invoke, f"Invoke {name}", INVOKES)


TOOLSET = Toolset(
    "Invoke the built-in personas, each by a tool of its own.",
    (
        *(_invoking(core_id, *described) for core_id, described in CORE.items()),
        CHECK,
        LIST,
        CANCEL,
        BECOME,
    ),
    instructions="""\
- invoke_architect, invoke_qa and so on put a built-in persona to work in the background; get its \
answer, an opinion to weigh, with check_persona_job.
""",
    starts_jobs=True,
)
