from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    Numeric,
    PrimaryKeyConstraint,
    false,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.base import OwnedRow

Money = Numeric(14, 6)


class JobRow(OwnedRow):
    """An invocation of a persona, and all that is known of it.

    It is the truth; the queue only delivers. `attempt` fences: whoever runs the job writes it with
    every change, so that a worker that was given up changes nothing any more. `delivery_id` is the
    queue's job that will bring this one to a worker, or did. `queue` is that of the workers that may
    run it, and `spent_on` the day (UTC) whose budget it spends. `lease_until` says until when the
    worker that runs it counts as alive.
    """

    __tablename__ = "persona_jobs"
    __table_args__ = (
        PrimaryKeyConstraint("tenant_id", "id"),
        ForeignKeyConstraint(
            ["tenant_id", "persona_id"],
            ["dramatis.personas.tenant_id", "dramatis.personas.id"],
            ondelete="SET NULL (persona_id)",
        ),
        ForeignKeyConstraint(
            ["tenant_id", "project_id"],
            ["dramatis.projects.tenant_id", "dramatis.projects.id"],
            ondelete="SET NULL (project_id)",
        ),
        CheckConstraint(
            "status IN ('pending', 'running', 'complete', 'failed', 'cancelled')", name="status"
        ),
        CheckConstraint("priority IN ('low', 'normal', 'high')", name="priority"),
        CheckConstraint("percent BETWEEN 0 AND 100", name="percent"),
        CheckConstraint("(status = 'running') = (lease_until IS NOT NULL)", name="lease"),
        CheckConstraint(
            "(status IN ('complete', 'failed', 'cancelled')) = (finished_at IS NOT NULL)",
            name="finished",
        ),
        Index(None, "tenant_id", "created_at"),
        Index(None, "tenant_id", "project_id", "created_at"),
        Index(None, "tenant_id", "persona", "created_at"),
        Index(None, "tenant_id", "persona_id"),
        # Whose turn it is, as `server.jobs.delivering.TURN` orders them.
        Index(
            "ix_persona_jobs_turn",
            "tenant_id",
            "queue",
            text("array_position(ARRAY['high', 'normal', 'low'], priority)"),
            "created_at",
            "id",
            postgresql_where=text("status = 'pending'"),
        ),
        Index(
            "ix_persona_jobs_delivery",
            "tenant_id",
            "delivery_id",
            postgresql_where=text("status = 'pending'"),
        ),
        Index(
            "ix_persona_jobs_running",
            "tenant_id",
            "persona",
            postgresql_where=text("status = 'running'"),
        ),
        # Progress is written every moment, and then finds room on the row's own page.
        {"postgresql_with": {"fillfactor": "70"}},
    )

    id: Mapped[UUID] = mapped_column()
    persona: Mapped[str]
    persona_name: Mapped[str]
    persona_id: Mapped[int | None]
    project_id: Mapped[int | None]
    standards_root: Mapped[str] = mapped_column(server_default="")
    task: Mapped[str]
    context: Mapped[str | None]
    priority: Mapped[str]
    prompt: Mapped[str]
    trace: Mapped[dict[str, Any]] = mapped_column(JSONB)
    runner: Mapped[str]
    model: Mapped[str]
    model_url: Mapped[str | None]
    requested_by: Mapped[str]
    queue: Mapped[str]
    spent_on: Mapped[date]
    retry_of: Mapped[UUID | None]

    status: Mapped[str] = mapped_column(server_default="pending")
    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    losses: Mapped[int] = mapped_column(server_default=text("0"))
    throttles: Mapped[int] = mapped_column(server_default=text("0"))
    delivery_id: Mapped[int | None] = mapped_column(BigInteger)
    run_after: Mapped[datetime | None]
    lease_until: Mapped[datetime | None]
    worker: Mapped[str | None]

    phase: Mapped[str] = mapped_column(server_default="initializing")
    percent: Mapped[int] = mapped_column(server_default=text("0"))
    message: Mapped[str] = mapped_column(server_default="")
    partial: Mapped[str] = mapped_column(server_default="")
    tool_calls: Mapped[int] = mapped_column(server_default=text("0"))
    result: Mapped[str | None]
    error: Mapped[str | None]
    error_code: Mapped[str | None]
    unsandboxed: Mapped[bool] = mapped_column(server_default=false())

    tokens_limit: Mapped[int]
    usd_limit: Mapped[Decimal | None] = mapped_column(Money)
    seconds_limit: Mapped[float]
    input_tokens: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    output_tokens: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    usd: Mapped[Decimal | None] = mapped_column(Money)
    spend_estimated: Mapped[bool] = mapped_column(server_default=false())

    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class JobStepRow(OwnedRow):
    """Something that a run did: a call of a tool, a request to the model, a note on the run.

    `number` counts those of the attempt, so that one that is written twice is kept once.
    """

    __tablename__ = "job_steps"
    __table_args__ = (
        PrimaryKeyConstraint("tenant_id", "job_id", "attempt", "number"),
        ForeignKeyConstraint(
            ["tenant_id", "job_id"],
            ["dramatis.persona_jobs.tenant_id", "dramatis.persona_jobs.id"],
            ondelete="CASCADE",
        ),
        CheckConstraint("kind IN ('tool', 'model', 'note')", name="kind"),
        {"info": {"app_may": "SELECT, INSERT, DELETE"}},
    )

    job_id: Mapped[UUID]
    attempt: Mapped[int]
    number: Mapped[int]
    kind: Mapped[str]
    name: Mapped[str]
    began_at: Mapped[datetime]
    duration_ms: Mapped[float]
    error: Mapped[str | None]
    details: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))


class SpendingRow(OwnedRow):
    """What a persona spent on a day (UTC), and what is set aside for runs that are not over.

    It outlives the jobs, so that removing those does not give anybody a new budget. Where a run of
    a model without a known price is among them, `unpriced`, `usd` is the least that was spent.
    """

    __tablename__ = "persona_spending"
    __table_args__ = (PrimaryKeyConstraint("tenant_id", "persona", "day"),)

    persona: Mapped[str]
    day: Mapped[date]
    runs: Mapped[int] = mapped_column(server_default=text("0"))
    input_tokens: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    output_tokens: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    usd: Mapped[Decimal] = mapped_column(Money, server_default=text("0"))
    unpriced: Mapped[bool] = mapped_column(server_default=false())
    reserved_tokens: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    reserved_usd: Mapped[Decimal] = mapped_column(Money, server_default=text("0"))


class JobCleanupRow(OwnedRow):
    """When old jobs were last removed."""

    __tablename__ = "job_cleanups"
    __table_args__ = (PrimaryKeyConstraint("tenant_id"),)

    cleaned_at: Mapped[datetime] = mapped_column(server_default=func.now())
