"""The audit log, earlier versions of skills, and the columns and indexes that lookups need."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"

SCHEMA = "dramatis"
TABLES = ("audit_log", "skill_versions")


def upgrade() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        _tenant_id(),
        sa.Column(
            "at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("caller_kind", sa.Text(), nullable=False),
        sa.Column("caller_name", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column(
            "details", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        _tenant_reference("audit_log"),
        sa.PrimaryKeyConstraint("id", name="pk_audit_log"),
        sa.Index("ix_audit_log_tenant_id_subject_id", "tenant_id", "subject", "id"),
        schema=SCHEMA,
    )
    op.create_table(
        "skill_versions",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        _tenant_id(),
        sa.Column("persona_id", sa.Integer(), nullable=True),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        _tenant_reference("skill_versions"),
        sa.ForeignKeyConstraint(
            ["tenant_id", "persona_id"],
            ["dramatis.personas.tenant_id", "dramatis.personas.id"],
            name="fk_skill_versions_tenant_id_persona_id_personas",
            ondelete="SET NULL (persona_id)",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_skill_versions"),
        sa.Index("ix_skill_versions_tenant_id_slug_id", "tenant_id", "slug", "id"),
        sa.Index("ix_skill_versions_tenant_id_persona_id", "tenant_id", "persona_id"),
        schema=SCHEMA,
    )
    for table in TABLES:
        op.execute(f"ALTER TABLE dramatis.{table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE dramatis.{table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant_isolation ON dramatis.{table} FOR ALL TO PUBLIC"
            " USING (tenant_id = (SELECT dramatis.tenant()))"
            " WITH CHECK (tenant_id = (SELECT dramatis.tenant()))"
        )
    op.add_column(
        "personas",
        sa.Column("name_key", sa.Text(), server_default="", nullable=False),
        schema=SCHEMA,
    )
    # Forced row-level security blinds the owner too; it is lifted within this transaction only.
    op.execute("ALTER TABLE dramatis.personas NO FORCE ROW LEVEL SECURITY")
    op.execute("UPDATE dramatis.personas SET name_key = lower(name)")
    op.execute("ALTER TABLE dramatis.personas FORCE ROW LEVEL SECURITY")
    _index("tenant_id", "name_key")
    _index("tenant_id", "role_id", "status", "id")
    _index("tenant_id", "status", "id")


def downgrade() -> None:
    op.drop_index("ix_personas_tenant_id_status_id", "personas", schema=SCHEMA)
    op.drop_index("ix_personas_tenant_id_role_id_status_id", "personas", schema=SCHEMA)
    op.drop_column("personas", "name_key", schema=SCHEMA)
    op.drop_table("skill_versions", schema=SCHEMA)
    op.drop_table("audit_log", schema=SCHEMA)


def _index(*columns: str) -> None:
    op.create_index(f"ix_personas_{'_'.join(columns)}", "personas", columns, schema=SCHEMA)


def _tenant_id() -> sa.Column[int]:
    return sa.Column(
        "tenant_id", sa.Integer(), server_default=sa.text("dramatis.tenant()"), nullable=False
    )


def _tenant_reference(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["tenant_id"],
        ["dramatis.tenants.id"],
        name=f"fk_{table}_tenant_id_tenants",
        ondelete="RESTRICT",
    )
