from datetime import datetime

from sqlalchemy import (
    CheckConstraint,
    Computed,
    ForeignKeyConstraint,
    Identity,
    Index,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, TEXT
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.base import OwnedRow


class PersonaSpecRow(OwnedRow):
    """A version of a persona's spec. It outlives its persona, as history.

    Only the status ever changes: the application has no right to any other column. `document` is
    text and no JSONB, which would write numbers anew and so give other bytes than were hashed.
    """

    __tablename__ = "persona_specs"
    __table_args__ = (
        UniqueConstraint("tenant_id", "persona_id", "version"),
        UniqueConstraint("tenant_id", "id"),
        # Only the reference is emptied: the tenant must stay (PostgreSQL 15 and newer).
        ForeignKeyConstraint(
            ["tenant_id", "persona_id"],
            ["dramatis.personas.tenant_id", "dramatis.personas.id"],
            ondelete="SET NULL (persona_id)",
        ),
        CheckConstraint("status IN ('draft', 'active', 'archived')", name="status"),
        CheckConstraint("origin IN ('written', 'generated')", name="origin"),
        CheckConstraint("least(major, minor, patch) >= 0", name="version"),
        Index(
            "uq_persona_specs_active",
            "tenant_id",
            "persona_id",
            unique=True,
            postgresql_where=text("status = 'active'"),
        ),
        Index(None, "tenant_id", "persona_id", "major", "minor", "patch"),
        {"info": {"app_may": "SELECT, INSERT, UPDATE (status)"}},
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    persona_id: Mapped[int | None]
    slug: Mapped[str]
    major: Mapped[int]
    minor: Mapped[int]
    patch: Mapped[int]
    version: Mapped[str] = mapped_column(
        Computed("major::text || '.' || minor::text || '.' || patch::text", persisted=True)
    )
    status: Mapped[str] = mapped_column(server_default="draft")
    document: Mapped[str]
    digest: Mapped[str]
    origin: Mapped[str] = mapped_column(server_default="written")
    sources: Mapped[list[str]] = mapped_column(ARRAY(TEXT), server_default=text("'{}'"))
    author: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class PublicationRow(OwnedRow):
    """That a version was made the active one: by whom, when and why. Never changed."""

    __tablename__ = "spec_publications"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "spec_id"],
            ["dramatis.persona_specs.tenant_id", "dramatis.persona_specs.id"],
            ondelete="RESTRICT",
        ),
        CheckConstraint("confirmed IN ('operator', 'person', 'agent')", name="confirmed"),
        Index(None, "tenant_id", "spec_id", "id"),
        {"info": {"app_may": "SELECT, INSERT"}},
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    spec_id: Mapped[int]
    replaced: Mapped[str | None]
    author: Mapped[str]
    confirmed: Mapped[str]
    note: Mapped[str]
    overridden: Mapped[list[str]] = mapped_column(ARRAY(TEXT), server_default=text("'{}'"))
    # Not now(), the beginning of the transaction: who waited for another publisher comes after it.
    published_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())

    spec: Mapped[PersonaSpecRow] = relationship(lazy="raise")


class ChecksRow(OwnedRow):
    """What every version of a persona's spec must pass before it is published."""

    __tablename__ = "persona_checks"
    __table_args__ = (
        UniqueConstraint("tenant_id", "persona_id"),
        ForeignKeyConstraint(
            ["tenant_id", "persona_id"],
            ["dramatis.personas.tenant_id", "dramatis.personas.id"],
            ondelete="CASCADE",
        ),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    persona_id: Mapped[int]
    checks: Mapped[str]
    author: Mapped[str]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
