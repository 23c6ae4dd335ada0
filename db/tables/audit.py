from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Identity, Index, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.base import OwnedRow


class AuditRow(OwnedRow):
    """Who did what, when. The application may add and read entries, never change or remove them."""

    __tablename__ = "audit_log"
    __table_args__ = (
        Index(None, "tenant_id", "subject", "id"),
        {"info": {"app_may": "SELECT, INSERT"}},
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    caller_kind: Mapped[str]
    caller_name: Mapped[str]
    action: Mapped[str]
    subject: Mapped[str]
    details: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
