"""Roles and personas."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

SCHEMA = "dramatis"


def upgrade() -> None:
    op.create_table(
        "roles",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("tenant_id", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name="pk_roles"),
        sa.UniqueConstraint("tenant_id", "name", name="uq_roles_tenant_id_name"),
        sa.UniqueConstraint("tenant_id", "id", name="uq_roles_tenant_id_id"),
        schema=SCHEMA,
    )
    op.create_table(
        "personas",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("tenant_id", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("slug_stem", sa.Text(), nullable=False),
        sa.Column(
            "slug",
            sa.Text(),
            sa.Computed("slug_stem || '-' || id::text", persisted=True),
            nullable=False,
        ),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), server_default="active", nullable=False),
        sa.Column("role_id", sa.Integer(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("status IN ('active', 'archived')", name="ck_personas_status"),
        sa.ForeignKeyConstraint(
            ["tenant_id", "role_id"],
            ["dramatis.roles.tenant_id", "dramatis.roles.id"],
            name="fk_personas_tenant_id_role_id_roles",
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_personas"),
        sa.UniqueConstraint("tenant_id", "slug", name="uq_personas_tenant_id_slug"),
        sa.UniqueConstraint("tenant_id", "id", name="uq_personas_tenant_id_id"),
        schema=SCHEMA,
    )


def downgrade() -> None:
    op.drop_table("personas", schema=SCHEMA)
    op.drop_table("roles", schema=SCHEMA)
