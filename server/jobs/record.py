"""The record of a run: why a persona said what it said."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from sqlalchemy import Row, text

from db.tables import JobRow
from server.jobs.queries import parsed_id, seconds_of, the_job
from server.jobs.shapes import Budget, ProposalMade, RunRecord, Spent, Step
from server.markdown import size_bytes
from server.work import Work


async def run_record(work: Work, job_id: str) -> RunRecord:
    """Put together what is known of a run, and what became of what it proposed.

    Raises:
        NoSuchJob: there is no such job (any more).
    """
    row = await the_job(work, parsed_id(job_id))
    key = {"id": row.id}
    steps = [_step(step) for step in await work.session.execute(_STEPS, key)]
    made = [number for step in steps if isinstance(number := step.details.get("proposal_id"), int)]
    project = await work.session.scalar(_PROJECT, {"id": row.project_id})
    proposals = await work.session.execute(_PROPOSALS, {"ids": made})
    return RunRecord.model_validate(
        {
            **{name: getattr(row, name) for name in _AS_STORED},
            "job_id": row.id,
            "context_bytes": size_bytes(row.context or ""),
            "attempts": row.attempt,
            "project": project,
            "budget": _budget(row),
            "spent": _spent(row),
            "standards": _standards(steps),
            "steps": steps,
            "proposals": [_proposal(row, one) for one in proposals],
        }
    )


_AS_STORED = (
    "status",
    "persona",
    "persona_name",
    "task",
    "priority",
    "requested_by",
    "created_at",
    "started_at",
    "finished_at",
    "retry_of",
    "trace",
    "runner",
    "model",
    "unsandboxed",
    "error",
    "error_code",
    "prompt",
)


def _budget(row: JobRow) -> Budget:
    usd = float(row.usd_limit) if row.usd_limit is not None else None
    return Budget(tokens=row.tokens_limit, usd=usd, seconds=row.seconds_limit)


def _spent(row: JobRow) -> Spent:
    return Spent(
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        usd=float(row.usd) if row.usd is not None else None,
        estimated=row.spend_estimated,
        seconds=seconds_of(row) if row.started_at is not None else 0,
    )


def _step(row: Row[tuple[Any, ...]]) -> Step:
    return Step.model_validate(row, from_attributes=True)


def _proposal(job: JobRow, row: Row[tuple[Any, ...]]) -> ProposalMade:
    """Name its file from the project's root, as the run was told."""
    file = PurePosixPath(job.standards_root, row.path).as_posix()
    return ProposalMade(proposal_id=row.id, file=file, status=row.status, decided_by=row.decided_by)


def _standards(steps: Sequence[Step]) -> list[str]:
    """List the files of standards that the run was shown, in the order in which it was."""
    files: dict[str, None] = {}
    for step in steps:
        shown = step.details.get("standards")
        for one in shown if isinstance(shown, list) else []:
            if isinstance(one, dict) and isinstance(file := one.get("file"), str):
                files[file] = None
    return [*files]


_STEPS = text("""
SELECT attempt, kind, name, began_at, duration_ms, error, details FROM dramatis.job_steps
WHERE job_id = :id ORDER BY attempt, number
""")
_PROJECT = text("SELECT root FROM dramatis.projects WHERE id = CAST(:id AS int)")
_PROPOSALS = text("""
SELECT proposal.id, proposal.path, proposal.status, (
  SELECT person FROM dramatis.proposal_decisions decision
  WHERE decision.proposal_id = proposal.id AND decision.verdict <> 'changes'
  ORDER BY decision.id DESC LIMIT 1
) AS decided_by
FROM dramatis.proposals proposal WHERE proposal.id = ANY(CAST(:ids AS int[])) ORDER BY proposal.id
""")
