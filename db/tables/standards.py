from datetime import datetime
from typing import Any

from sqlalchemy import (
    REAL,
    BigInteger,
    CheckConstraint,
    ForeignKeyConstraint,
    Identity,
    Index,
    PrimaryKeyConstraint,
    UniqueConstraint,
    false,
    func,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TEXT
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.base import OwnedRow


class ProjectRow(OwnedRow):
    """A checkout whose standards these are.

    `host` is empty on the embedded server, which serves one machine. `generation` rises with every
    change of the index, so that what was found before it is never shown after it.
    """

    __tablename__ = "projects"
    __table_args__ = (
        UniqueConstraint("tenant_id", "host", "root"),
        UniqueConstraint("tenant_id", "id"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    host: Mapped[str]
    root: Mapped[str]
    generation: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    indexed_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class StandardRow(OwnedRow):
    """A file of standards as it was indexed. One that is gone keeps its counts, in case it returns.

    `key` is domain and topic, folded for comparing by the service. `claimed_by` is who approved the
    text according to the file itself, which proves nothing.
    """

    __tablename__ = "standards"
    __table_args__ = (
        UniqueConstraint("tenant_id", "project_id", "layer", "path"),
        UniqueConstraint("tenant_id", "id"),
        ForeignKeyConstraint(
            ["tenant_id", "project_id"],
            ["dramatis.projects.tenant_id", "dramatis.projects.id"],
            ondelete="CASCADE",
        ),
        CheckConstraint("layer IN ('project', 'language', 'universal')", name="layer"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    project_id: Mapped[int]
    layer: Mapped[str]
    path: Mapped[str]
    domain: Mapped[str]
    topic: Mapped[str]
    key: Mapped[str]
    title: Mapped[str]
    tags: Mapped[list[str]] = mapped_column(ARRAY(TEXT), server_default=text("'{}'"))
    created_by: Mapped[str | None]
    claimed_by: Mapped[str | None]
    problem: Mapped[str | None]
    sha256: Mapped[str]
    size_bytes: Mapped[int]
    modified_at: Mapped[datetime]
    present: Mapped[bool] = mapped_column(server_default=true())
    length: Mapped[float] = mapped_column(REAL, server_default=text("0"))
    passage_count: Mapped[int] = mapped_column(server_default=text("0"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class StandardUseRow(OwnedRow):
    """How often searches returned a standard. Apart from it, so that no search waits for indexing."""

    __tablename__ = "standard_uses"
    __table_args__ = (
        PrimaryKeyConstraint("tenant_id", "standard_id"),
        ForeignKeyConstraint(
            ["tenant_id", "standard_id"],
            ["dramatis.standards.tenant_id", "dramatis.standards.id"],
            ondelete="CASCADE",
        ),
    )

    standard_id: Mapped[int]
    query_count: Mapped[int] = mapped_column(BigInteger)
    last_queried_at: Mapped[datetime] = mapped_column(server_default=func.now())


class PassageRow(OwnedRow):
    """A part of a standard that a search can find. `line` counts in the file, from 1."""

    __tablename__ = "passages"
    __table_args__ = (
        UniqueConstraint("tenant_id", "id"),
        ForeignKeyConstraint(
            ["tenant_id", "standard_id"],
            ["dramatis.standards.tenant_id", "dramatis.standards.id"],
            ondelete="CASCADE",
        ),
        Index(None, "tenant_id", "standard_id"),
        Index(None, "tenant_id", "project_id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    project_id: Mapped[int]
    standard_id: Mapped[int]
    line: Mapped[int]
    section: Mapped[str]
    text: Mapped[str]
    embedding: Mapped[bytes | None]
    embedded_by: Mapped[str | None]


class PostingRow(OwnedRow):
    """How often a term stands in a passage, for BM25.

    The key is the index that a search reads, and the rest of the row is in it: under row-level
    security an index on a tsvector would lie idle, because `@@` is not leakproof. There is no foreign
    key: to check it for each of a file's thousand words took a quarter of indexing it, and only the
    indexer writes here, with the passages in one transaction.
    """

    __tablename__ = "postings"
    __table_args__ = (
        PrimaryKeyConstraint(
            "tenant_id",
            "project_id",
            "term",
            "passage_id",
            postgresql_include=["standard_id", "tf", "length"],
        ),
        Index(None, "tenant_id", "standard_id"),
    )

    project_id: Mapped[int]
    term: Mapped[str]
    passage_id: Mapped[int] = mapped_column(BigInteger)
    standard_id: Mapped[int]
    tf: Mapped[float] = mapped_column(REAL)
    length: Mapped[float] = mapped_column(REAL)


class ProposalRow(OwnedRow):
    """The question whether something may become a standard, in the file `path`."""

    __tablename__ = "proposals"
    __table_args__ = (
        UniqueConstraint("tenant_id", "id"),
        ForeignKeyConstraint(
            ["tenant_id", "project_id"],
            ["dramatis.projects.tenant_id", "dramatis.projects.id"],
            ondelete="RESTRICT",
        ),
        # Only the reference is emptied: the tenant must stay (PostgreSQL 15 and newer).
        ForeignKeyConstraint(
            ["tenant_id", "persona_id"],
            ["dramatis.personas.tenant_id", "dramatis.personas.id"],
            ondelete="SET NULL (persona_id)",
        ),
        CheckConstraint("status IN ('draft', 'approved', 'rejected')", name="status"),
        Index(None, "tenant_id", "project_id", "status", "id"),
        Index(None, "tenant_id", "persona_id"),
        {"info": {"app_may": "SELECT, INSERT, UPDATE (status)"}},
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    project_id: Mapped[int]
    domain: Mapped[str]
    topic: Mapped[str]
    path: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="draft")
    persona_id: Mapped[int | None]
    created_by: Mapped[str]
    proposer_kind: Mapped[str]
    proposer_name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class RevisionRow(OwnedRow):
    """A text that was proposed. Never changed: a decision is about exactly one of them.

    `base_sha256` is of the file that it is to replace; without one it is to be a new file.
    """

    __tablename__ = "proposal_revisions"
    __table_args__ = (
        UniqueConstraint("tenant_id", "proposal_id", "number"),
        ForeignKeyConstraint(
            ["tenant_id", "proposal_id"],
            ["dramatis.proposals.tenant_id", "dramatis.proposals.id"],
            ondelete="RESTRICT",
        ),
        {"info": {"app_may": "SELECT, INSERT"}},
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    proposal_id: Mapped[int]
    number: Mapped[int]
    content: Mapped[str]
    reason: Mapped[str]
    evidence: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    confidence: Mapped[float]
    tags: Mapped[list[str]] = mapped_column(ARRAY(TEXT), server_default=text("'{}'"))
    base_sha256: Mapped[str | None]
    digest: Mapped[str]
    author_kind: Mapped[str]
    author: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    proposal: Mapped[ProposalRow] = relationship(lazy="raise")


class DecisionRow(OwnedRow):
    """What a person said to a revision. Never changed."""

    __tablename__ = "proposal_decisions"
    __table_args__ = (
        UniqueConstraint("tenant_id", "id"),
        ForeignKeyConstraint(
            ["tenant_id", "proposal_id"],
            ["dramatis.proposals.tenant_id", "dramatis.proposals.id"],
            ondelete="RESTRICT",
        ),
        CheckConstraint("verdict IN ('approved', 'changes', 'rejected')", name="verdict"),
        Index(None, "tenant_id", "proposal_id", "id"),
        {"info": {"app_may": "SELECT, INSERT"}},
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    proposal_id: Mapped[int]
    number: Mapped[int]
    digest: Mapped[str]
    verdict: Mapped[str]
    feedback: Mapped[str]
    person: Mapped[str]
    channel: Mapped[str]
    self_approved: Mapped[bool] = mapped_column(server_default=false())
    # Not now(), the beginning of the transaction: who waited for another one comes after it.
    decided_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class ApprovedFileRow(OwnedRow):
    """The file that an approval makes, whole, so that it can be written again if that failed.

    A file with this hash was approved; any other text is not. Only the last two columns ever change:
    it was written, or given up because another approval for the same file took its place.
    """

    __tablename__ = "approved_files"
    __table_args__ = (
        UniqueConstraint("tenant_id", "decision_id"),
        ForeignKeyConstraint(
            ["tenant_id", "decision_id"],
            ["dramatis.proposal_decisions.tenant_id", "dramatis.proposal_decisions.id"],
            ondelete="RESTRICT",
        ),
        ForeignKeyConstraint(
            ["tenant_id", "project_id"],
            ["dramatis.projects.tenant_id", "dramatis.projects.id"],
            ondelete="RESTRICT",
        ),
        ForeignKeyConstraint(
            ["tenant_id", "proposal_id"],
            ["dramatis.proposals.tenant_id", "dramatis.proposals.id"],
            ondelete="RESTRICT",
        ),
        Index(None, "tenant_id", "project_id", "sha256"),
        Index(None, "tenant_id", "proposal_id"),
        {"info": {"app_may": "SELECT, INSERT, UPDATE (written_at, abandoned_at)"}},
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    project_id: Mapped[int]
    proposal_id: Mapped[int]
    decision_id: Mapped[int]
    path: Mapped[str]
    document: Mapped[str]
    sha256: Mapped[str]
    base_sha256: Mapped[str | None]
    written_at: Mapped[datetime | None]
    abandoned_at: Mapped[datetime | None]

    decision: Mapped[DecisionRow] = relationship(lazy="raise")
