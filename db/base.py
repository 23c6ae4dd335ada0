"""Declarative base: schema and constraint names are fixed here, so errors and migrations agree."""

from datetime import datetime

from sqlalchemy import DateTime, ForeignKey, MetaData, Text, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA = "dramatis"

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    metadata = MetaData(schema=SCHEMA, naming_convention=NAMING)
    type_annotation_map = {datetime: DateTime(timezone=True), str: Text}
    # What the database fills in comes back with the statement: loading it later would be I/O in
    # the middle of an attribute access.
    __mapper_args__ = {"eager_defaults": True}


class OwnedRow(Base):
    """A row of one tenant.

    Nothing in Python sets or filters `tenant_id`: the database fills it from the transaction's
    tenant and its policies hide everybody else's rows (see `db.session`).
    """

    __abstract__ = True

    tenant_id: Mapped[int] = mapped_column(
        ForeignKey("dramatis.tenants.id", ondelete="RESTRICT"),
        server_default=text("dramatis.tenant()"),
    )
