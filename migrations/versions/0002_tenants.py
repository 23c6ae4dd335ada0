"""Tenants, row-level security and the application's role.

Each transaction names its tenant in `app.tenant_id`; without one there are no rows. The setting
reads as an empty string once a transaction-local value has ended, hence the `nullif`.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

SCHEMA = "dramatis"
TABLES = ("roles", "personas")


def upgrade() -> None:
    op.create_table(
        "tenants",
        sa.Column("id", sa.Integer(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name="pk_tenants"),
        sa.UniqueConstraint("name", name="uq_tenants_name"),
        schema=SCHEMA,
    )
    op.execute("INSERT INTO dramatis.tenants (name) VALUES ('default')")
    op.execute(
        "CREATE FUNCTION dramatis.tenant() RETURNS integer LANGUAGE sql STABLE PARALLEL SAFE"
        " RETURN nullif(current_setting('app.tenant_id', true), '')::integer"
    )
    for table in TABLES:
        op.alter_column(
            table, "tenant_id", server_default=sa.text("dramatis.tenant()"), schema=SCHEMA
        )
        op.create_foreign_key(
            f"fk_{table}_tenant_id_tenants",
            table,
            "tenants",
            ["tenant_id"],
            ["id"],
            source_schema=SCHEMA,
            referent_schema=SCHEMA,
            ondelete="RESTRICT",
        )
        op.execute(f"ALTER TABLE dramatis.{table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE dramatis.{table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY tenant_isolation ON dramatis.{table} FOR ALL TO PUBLIC"
            " USING (tenant_id = (SELECT dramatis.tenant()))"
            " WITH CHECK (tenant_id = (SELECT dramatis.tenant()))"
        )


def downgrade() -> None:
    # Without tenants everybody's rows would lie open to everybody.
    others = op.get_bind().scalar(sa.text("SELECT count(*) FROM dramatis.tenants")) - 1
    if others:
        raise RuntimeError(f"There are {others} further tenants: remove them before going back.")
    op.execute(
        "DO $$ BEGIN REVOKE ALL ON ALL TABLES IN SCHEMA dramatis FROM dramatis_app;"
        " EXCEPTION WHEN undefined_object THEN NULL; END $$"
    )
    for table in TABLES:
        op.execute(f"DROP POLICY tenant_isolation ON dramatis.{table}")
        op.execute(f"ALTER TABLE dramatis.{table} NO FORCE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE dramatis.{table} DISABLE ROW LEVEL SECURITY")
        op.drop_constraint(f"fk_{table}_tenant_id_tenants", table, schema=SCHEMA)
        op.alter_column(table, "tenant_id", server_default=sa.text("1"), schema=SCHEMA)
    op.execute("DROP FUNCTION dramatis.tenant()")
    op.drop_table("tenants", schema=SCHEMA)
