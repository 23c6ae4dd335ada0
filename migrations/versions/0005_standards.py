"""Projects, their standards and the index of them, proposals, and what people decided."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"

SCHEMA = "dramatis"
TABLES = (
    "projects",
    "standards",
    "standard_uses",
    "passages",
    "postings",
    "proposals",
    "proposal_revisions",
    "proposal_decisions",
    "approved_files",
)
TEXTS = postgresql.ARRAY(sa.TEXT())


def upgrade() -> None:
    _projects_and_index()
    _proposals()
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


def _projects_and_index() -> None:
    _table(
        "projects",
        _id(),
        _text("host"),
        _text("root"),
        sa.Column("generation", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        _time("indexed_at", None),
        _time("created_at"),
        _unique("projects", "host", "root"),
        _unique("projects", "id"),
    )
    _table(
        "standards",
        _id(),
        _integer("project_id"),
        _text("layer"),
        _text("path"),
        _text("domain"),
        _text("topic"),
        _text("key"),
        _text("title"),
        sa.Column("tags", TEXTS, server_default=sa.text("'{}'"), nullable=False),
        _text("created_by", nullable=True),
        _text("claimed_by", nullable=True),
        _text("problem", nullable=True),
        _text("sha256"),
        _integer("size_bytes"),
        sa.Column("modified_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("present", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("length", postgresql.REAL[float](), server_default=sa.text("0"), nullable=False),
        sa.Column("passage_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        _time("created_at"),
        _reference("standards", "project_id", "projects", "CASCADE"),
        _check("standards", "layer", "layer IN ('project', 'language', 'universal')"),
        _unique("standards", "project_id", "layer", "path"),
        _unique("standards", "id"),
    )
    _table(
        "standard_uses",
        _integer("standard_id"),
        sa.Column("query_count", sa.BigInteger(), nullable=False),
        _time("last_queried_at"),
        _reference("standard_uses", "standard_id", "standards", "CASCADE"),
        sa.PrimaryKeyConstraint("tenant_id", "standard_id", name="pk_standard_uses"),
    )
    _table(
        "passages",
        _id(sa.BigInteger()),
        _integer("project_id"),
        _integer("standard_id"),
        _integer("line"),
        _text("section"),
        _text("text"),
        sa.Column("embedding", sa.LargeBinary(), nullable=True),
        _text("embedded_by", nullable=True),
        _reference("passages", "standard_id", "standards", "CASCADE"),
        _unique("passages", "id"),
        _index("passages", "standard_id"),
        _index("passages", "project_id"),
    )
    _table(
        "postings",
        _integer("project_id"),
        _text("term"),
        sa.Column("passage_id", sa.BigInteger(), nullable=False),
        _integer("standard_id"),
        sa.Column("tf", postgresql.REAL[float](), nullable=False),
        sa.Column("length", postgresql.REAL[float](), nullable=False),
        sa.PrimaryKeyConstraint(
            "tenant_id",
            "project_id",
            "term",
            "passage_id",
            name="pk_postings",
            postgresql_include=["standard_id", "tf", "length"],
        ),
        _index("postings", "standard_id"),
    )


def _proposals() -> None:
    _table(
        "proposals",
        _id(),
        _integer("project_id"),
        _text("domain"),
        _text("topic"),
        _text("path"),
        sa.Column("status", sa.Text(), server_default="draft", nullable=False),
        sa.Column("persona_id", sa.Integer(), nullable=True),
        _text("created_by"),
        _text("proposer_kind"),
        _text("proposer_name"),
        _time("created_at"),
        _reference("proposals", "project_id", "projects", "RESTRICT"),
        _reference("proposals", "persona_id", "personas", "SET NULL (persona_id)"),
        _check("proposals", "status", "status IN ('draft', 'approved', 'rejected')"),
        _unique("proposals", "id"),
        _index("proposals", "project_id", "status", "id"),
        _index("proposals", "persona_id"),
    )
    _table(
        "proposal_revisions",
        _id(),
        _integer("proposal_id"),
        _integer("number"),
        _text("content"),
        _text("reason"),
        sa.Column("evidence", postgresql.JSONB(), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=False),
        sa.Column("tags", TEXTS, server_default=sa.text("'{}'"), nullable=False),
        _text("base_sha256", nullable=True),
        _text("digest"),
        _text("author_kind"),
        _text("author"),
        _time("created_at"),
        _reference("proposal_revisions", "proposal_id", "proposals", "RESTRICT"),
        _unique("proposal_revisions", "proposal_id", "number"),
    )
    _table(
        "proposal_decisions",
        _id(),
        _integer("proposal_id"),
        _integer("number"),
        _text("digest"),
        _text("verdict"),
        _text("feedback"),
        _text("person"),
        _text("channel"),
        sa.Column("self_approved", sa.Boolean(), server_default=sa.false(), nullable=False),
        _time("decided_at", "clock_timestamp()"),
        _reference("proposal_decisions", "proposal_id", "proposals", "RESTRICT"),
        _check("proposal_decisions", "verdict", "verdict IN ('approved', 'changes', 'rejected')"),
        _unique("proposal_decisions", "id"),
        _index("proposal_decisions", "proposal_id", "id"),
    )
    _table(
        "approved_files",
        _id(),
        _integer("project_id"),
        _integer("proposal_id"),
        _integer("decision_id"),
        _text("path"),
        _text("document"),
        _text("sha256"),
        _text("base_sha256", nullable=True),
        _time("written_at", None),
        _time("abandoned_at", None),
        _reference("approved_files", "decision_id", "proposal_decisions", "RESTRICT"),
        _reference("approved_files", "project_id", "projects", "RESTRICT"),
        _reference("approved_files", "proposal_id", "proposals", "RESTRICT"),
        _unique("approved_files", "decision_id"),
        _index("approved_files", "project_id", "sha256"),
        _index("approved_files", "proposal_id"),
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
    keys = [part for part in parts if isinstance(part, sa.PrimaryKeyConstraint)]
    key = [] if keys else [sa.PrimaryKeyConstraint("id", name=f"pk_{name}")]
    op.create_table(name, tenant_id, *parts, tenant, *key, schema=SCHEMA)


def _id(kind: sa.types.TypeEngine[int] | None = None) -> sa.Column[object]:
    return sa.Column("id", kind or sa.Integer(), sa.Identity(always=True), nullable=False)


def _integer(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.Integer(), nullable=False)


def _text(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.Text(), nullable=nullable)


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


def _unique(table: str, *columns: str) -> sa.UniqueConstraint:
    columns = ("tenant_id", *columns)
    return sa.UniqueConstraint(*columns, name=f"uq_{table}_{'_'.join(columns)}")


def _index(table: str, *columns: str) -> sa.Index:
    columns = ("tenant_id", *columns)
    return sa.Index(f"ix_{table}_{'_'.join(columns)}", *columns)


def _check(table: str, name: str, condition: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(condition, name=op.f(f"ck_{table}_{name}"))
