"""Versions of persona specs, when they were published, and the checks that gate publishing."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"

SCHEMA = "dramatis"
TABLES = ("persona_specs", "spec_publications", "persona_checks")
TEXTS = postgresql.ARRAY(sa.TEXT())
NO_TEXTS = sa.text("'{}'")
VERSION = "major::text || '.' || minor::text || '.' || patch::text"


def upgrade() -> None:
    op.create_table(
        "persona_specs",
        _id(),
        _tenant_id(),
        sa.Column("persona_id", sa.Integer(), nullable=True),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("major", sa.Integer(), nullable=False),
        sa.Column("minor", sa.Integer(), nullable=False),
        sa.Column("patch", sa.Integer(), nullable=False),
        sa.Column("version", sa.Text(), sa.Computed(VERSION, persisted=True), nullable=False),
        sa.Column("status", sa.Text(), server_default="draft", nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), server_default="written", nullable=False),
        sa.Column("sources", TEXTS, server_default=NO_TEXTS, nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        _time("created_at"),
        _tenant_reference("persona_specs"),
        _persona_reference("persona_specs", "SET NULL (persona_id)"),
        sa.CheckConstraint(
            "status IN ('draft', 'active', 'archived')", name=op.f("ck_persona_specs_status")
        ),
        sa.CheckConstraint(
            "origin IN ('written', 'generated')", name=op.f("ck_persona_specs_origin")
        ),
        sa.CheckConstraint(
            "least(major, minor, patch) >= 0", name=op.f("ck_persona_specs_version")
        ),
        sa.PrimaryKeyConstraint("id", name="pk_persona_specs"),
        sa.UniqueConstraint(
            "tenant_id",
            "persona_id",
            "version",
            name="uq_persona_specs_tenant_id_persona_id_version",
        ),
        sa.UniqueConstraint("tenant_id", "id", name="uq_persona_specs_tenant_id_id"),
        sa.Index(
            "uq_persona_specs_active",
            "tenant_id",
            "persona_id",
            unique=True,
            postgresql_where=sa.text("status = 'active'"),
        ),
        sa.Index(
            "ix_persona_specs_tenant_id_persona_id_major_minor_patch",
            "tenant_id",
            "persona_id",
            "major",
            "minor",
            "patch",
        ),
        schema=SCHEMA,
    )
    op.create_table(
        "spec_publications",
        _id(),
        _tenant_id(),
        sa.Column("spec_id", sa.Integer(), nullable=False),
        sa.Column("replaced", sa.Text(), nullable=True),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("confirmed", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("overridden", TEXTS, server_default=NO_TEXTS, nullable=False),
        _time("published_at", "clock_timestamp()"),
        _tenant_reference("spec_publications"),
        sa.ForeignKeyConstraint(
            ["tenant_id", "spec_id"],
            ["dramatis.persona_specs.tenant_id", "dramatis.persona_specs.id"],
            name="fk_spec_publications_tenant_id_spec_id_persona_specs",
            ondelete="RESTRICT",
        ),
        sa.CheckConstraint(
            "confirmed IN ('operator', 'person', 'agent')",
            name=op.f("ck_spec_publications_confirmed"),
        ),
        sa.PrimaryKeyConstraint("id", name="pk_spec_publications"),
        sa.Index("ix_spec_publications_tenant_id_spec_id_id", "tenant_id", "spec_id", "id"),
        schema=SCHEMA,
    )
    op.create_table(
        "persona_checks",
        _id(),
        _tenant_id(),
        sa.Column("persona_id", sa.Integer(), nullable=False),
        sa.Column("checks", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        _time("updated_at"),
        _tenant_reference("persona_checks"),
        _persona_reference("persona_checks", "CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_persona_checks"),
        sa.UniqueConstraint(
            "tenant_id", "persona_id", name="uq_persona_checks_tenant_id_persona_id"
        ),
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


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table, schema=SCHEMA)


def _id() -> sa.Column[int]:
    return sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False)


def _tenant_id() -> sa.Column[int]:
    return sa.Column(
        "tenant_id", sa.Integer(), server_default=sa.text("dramatis.tenant()"), nullable=False
    )


def _time(name: str, default: str = "now()") -> sa.Column[object]:
    return sa.Column(
        name, sa.DateTime(timezone=True), server_default=sa.text(default), nullable=False
    )


def _tenant_reference(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["tenant_id"],
        ["dramatis.tenants.id"],
        name=f"fk_{table}_tenant_id_tenants",
        ondelete="RESTRICT",
    )


def _persona_reference(table: str, ondelete: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["tenant_id", "persona_id"],
        ["dramatis.personas.tenant_id", "dramatis.personas.id"],
        name=f"fk_{table}_tenant_id_persona_id_personas",
        ondelete=ondelete,
    )
