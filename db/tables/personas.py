from datetime import datetime

from sqlalchemy import (
    CheckConstraint,
    Computed,
    ForeignKeyConstraint,
    Identity,
    Index,
    UniqueConstraint,
    func,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.base import OwnedRow


class RoleRow(OwnedRow):
    __tablename__ = "roles"
    __table_args__ = (UniqueConstraint("tenant_id", "name"), UniqueConstraint("tenant_id", "id"))

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    name: Mapped[str]
    label: Mapped[str]
    description: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    personas: Mapped[list["PersonaRow"]] = relationship(back_populates="role", lazy="raise")


class PersonaRow(OwnedRow):
    """A persona.

    `slug` follows from the stem and the key in the insert itself, so no other slug is ever
    visible; the stem is frozen, so a renamed persona keeps it. `name_key` is the name folded for
    comparing, filled in by the service; an index on `lower(name)` would lie idle, because `lower`
    is not leakproof and row-level security lets only such functions through.
    """

    __tablename__ = "personas"
    __table_args__ = (
        UniqueConstraint("tenant_id", "slug"),
        UniqueConstraint("tenant_id", "id"),
        ForeignKeyConstraint(
            ["tenant_id", "role_id"],
            ["dramatis.roles.tenant_id", "dramatis.roles.id"],
            ondelete="RESTRICT",
        ),
        CheckConstraint("status IN ('active', 'archived')", name="status"),
        Index(None, "tenant_id", "role_id", "status", "id"),
        Index(None, "tenant_id", "status", "id"),
        Index(None, "tenant_id", "name_key"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    slug_stem: Mapped[str]
    slug: Mapped[str] = mapped_column(Computed("slug_stem || '-' || id::text", persisted=True))
    name: Mapped[str]
    name_key: Mapped[str] = mapped_column(server_default="")
    description: Mapped[str | None]
    status: Mapped[str] = mapped_column(server_default="active")
    role_id: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())

    role: Mapped[RoleRow] = relationship(back_populates="personas", lazy="raise")


class SkillVersionRow(OwnedRow):
    """A text that a persona's skill.md held at some time. It outlives its persona, as history."""

    __tablename__ = "skill_versions"
    __table_args__ = (
        # Only the reference is emptied: the tenant must stay (PostgreSQL 15 and newer).
        ForeignKeyConstraint(
            ["tenant_id", "persona_id"],
            ["dramatis.personas.tenant_id", "dramatis.personas.id"],
            ondelete="SET NULL (persona_id)",
        ),
        Index(None, "tenant_id", "slug", "id"),
        Index(None, "tenant_id", "persona_id"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    persona_id: Mapped[int | None]
    slug: Mapped[str]
    sha256: Mapped[str]
    content: Mapped[str]
    author: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
