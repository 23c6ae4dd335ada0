"""Jobs of personas, the steps of their runs, what personas spend, and the queue that delivers."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from db import queue

revision = "0006"
down_revision = "0005"

SCHEMA = "dramatis"
TABLES = ("persona_jobs", "job_steps", "persona_spending", "job_cleanups")
MONEY = sa.Numeric(14, 6)


def upgrade() -> None:
    _jobs()
    _steps()
    _spending()
    for table in TABLES:
        op.execute(f"ALTER TABLE dramatis.{table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE dramatis.{table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant_isolation ON dramatis.{table} FOR ALL TO PUBLIC"
            " USING (tenant_id = (SELECT dramatis.tenant()))"
            " WITH CHECK (tenant_id = (SELECT dramatis.tenant()))"
        )
    queue.install(op.get_bind())


def downgrade() -> None:
    op.execute(f"DROP SCHEMA {queue.QUEUE_SCHEMA} CASCADE")
    for table in reversed(TABLES):
        op.drop_table(table, schema=SCHEMA)


def _jobs() -> None:
    _table(
        "persona_jobs",
        sa.Column("id", sa.Uuid(), nullable=False),
        _text("persona"),
        _text("persona_name"),
        sa.Column("persona_id", sa.Integer(), nullable=True),
        sa.Column("project_id", sa.Integer(), nullable=True),
        _text("standards_root", default=""),
        _text("task"),
        _text("context", nullable=True),
        _text("priority"),
        _text("prompt"),
        sa.Column("trace", postgresql.JSONB(), nullable=False),
        _text("runner"),
        _text("model"),
        _text("model_url", nullable=True),
        _text("requested_by"),
        _text("queue"),
        sa.Column("spent_on", sa.Date(), nullable=False),
        sa.Column("retry_of", sa.Uuid(), nullable=True),
        _text("status", default="pending"),
        _count("attempt"),
        _count("losses"),
        _count("throttles"),
        sa.Column("delivery_id", sa.BigInteger(), nullable=True),
        _time("run_after", None),
        _time("lease_until", None),
        _text("worker", nullable=True),
        _text("phase", default="initializing"),
        _count("percent"),
        _text("message", default=""),
        _text("partial", default=""),
        _count("tool_calls"),
        _text("result", nullable=True),
        _text("error", nullable=True),
        _text("error_code", nullable=True),
        _flag("unsandboxed"),
        sa.Column("tokens_limit", sa.Integer(), nullable=False),
        sa.Column("usd_limit", MONEY, nullable=True),
        sa.Column("seconds_limit", sa.Float(), nullable=False),
        _count("input_tokens", sa.BigInteger()),
        _count("output_tokens", sa.BigInteger()),
        sa.Column("usd", MONEY, nullable=True),
        _flag("spend_estimated"),
        _time("created_at", "clock_timestamp()"),
        _time("started_at", None),
        _time("finished_at", None),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_persona_jobs"),
        _reference("persona_jobs", "persona_id", "personas", "SET NULL (persona_id)"),
        _reference("persona_jobs", "project_id", "projects", "SET NULL (project_id)"),
        _check(
            "persona_jobs",
            "status",
            "status IN ('pending', 'running', 'complete', 'failed', 'cancelled')",
        ),
        _check("persona_jobs", "priority", "priority IN ('low', 'normal', 'high')"),
        _check("persona_jobs", "percent", "percent BETWEEN 0 AND 100"),
        _check("persona_jobs", "lease", "(status = 'running') = (lease_until IS NOT NULL)"),
        _check(
            "persona_jobs",
            "finished",
            "(status IN ('complete', 'failed', 'cancelled')) = (finished_at IS NOT NULL)",
        ),
        _index("persona_jobs", "created_at"),
        _index("persona_jobs", "project_id", "created_at"),
        _index("persona_jobs", "persona", "created_at"),
        _index("persona_jobs", "persona_id"),
        sa.Index(
            "ix_persona_jobs_turn",
            "tenant_id",
            "queue",
            sa.text("array_position(ARRAY['high', 'normal', 'low'], priority)"),
            "created_at",
            "id",
            postgresql_where=sa.text("status = 'pending'"),
        ),
        sa.Index(
            "ix_persona_jobs_delivery",
            "tenant_id",
            "delivery_id",
            postgresql_where=sa.text("status = 'pending'"),
        ),
        sa.Index(
            "ix_persona_jobs_running",
            "tenant_id",
            "persona",
            postgresql_where=sa.text("status = 'running'"),
        ),
    )
    op.execute("ALTER TABLE dramatis.persona_jobs SET (fillfactor = 70)")


def _steps() -> None:
    _table(
        "job_steps",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        _text("kind"),
        _text("name"),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("duration_ms", sa.Float(), nullable=False),
        _text("error", nullable=True),
        sa.Column(
            "details", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.PrimaryKeyConstraint("tenant_id", "job_id", "attempt", "number", name="pk_job_steps"),
        _reference("job_steps", "job_id", "persona_jobs", "CASCADE"),
        _check("job_steps", "kind", "kind IN ('tool', 'model', 'note')"),
    )


def _spending() -> None:
    _table(
        "persona_spending",
        _text("persona"),
        sa.Column("day", sa.Date(), nullable=False),
        _count("runs"),
        _count("input_tokens", sa.BigInteger()),
        _count("output_tokens", sa.BigInteger()),
        sa.Column("usd", MONEY, server_default=sa.text("0"), nullable=False),
        _flag("unpriced"),
        _count("reserved_tokens", sa.BigInteger()),
        sa.Column("reserved_usd", MONEY, server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "persona", "day", name="pk_persona_spending"),
    )
    _table(
        "job_cleanups",
        _time("cleaned_at"),
        sa.PrimaryKeyConstraint("tenant_id", name="pk_job_cleanups"),
    )


def _table(name: str, *parts: sa.Column[object] | sa.Constraint | sa.Index) -> None:
    tenant_id = sa.Column(
        "tenant_id", sa.Integer(), server_default=sa.text("dramatis.tenant()"), nullable=False
    )
    tenant = sa.ForeignKeyConstraint(
        ["tenant_id"],
        ["dramatis.tenants.id"],
        name=f"fk_{name}_tenant_id_tenants",
        ondelete="RESTRICT",
    )
    op.create_table(name, tenant_id, *parts, tenant, schema=SCHEMA)


def _text(name: str, *, nullable: bool = False, default: str | None = None) -> sa.Column[object]:
    return sa.Column(name, sa.Text(), nullable=nullable, server_default=default)


def _count(name: str, kind: sa.types.TypeEngine[int] | None = None) -> sa.Column[object]:
    return sa.Column(name, kind or sa.Integer(), server_default=sa.text("0"), nullable=False)


def _flag(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.Boolean(), server_default=sa.false(), nullable=False)


def _time(name: str, default: str | None = "now()") -> sa.Column[object]:
    server_default = sa.text(default) if default else None
    return sa.Column(
        name, sa.DateTime(timezone=True), server_default=server_default, nullable=not default
    )


def _reference(table: str, column: str, to: str, ondelete: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["tenant_id", column],
        [f"dramatis.{to}.tenant_id", f"dramatis.{to}.id"],
        name=f"fk_{table}_tenant_id_{column}_{to}",
        ondelete=ondelete,
    )


def _index(table: str, *columns: str) -> sa.Index:
    columns = ("tenant_id", *columns)
    return sa.Index(f"ix_{table}_{'_'.join(columns)}", *columns)


def _check(table: str, name: str, condition: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(condition, name=op.f(f"ck_{table}_{name}"))
