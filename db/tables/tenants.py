from datetime import datetime

from sqlalchemy import Identity, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base


class TenantRow(Base):
    """A tenant. The one table without a policy: a name must be found before a tenant can be set."""

    __tablename__ = "tenants"
    __table_args__ = (UniqueConstraint("name"), {"info": {"app_may": "SELECT, INSERT"}})

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
