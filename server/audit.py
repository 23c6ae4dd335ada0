"""The append-only record of who did what, written in the transaction of the act itself."""

from collections.abc import Mapping

from pydantic import JsonValue
from sqlalchemy import Table

from db.tables import AuditRow
from server.work import Work

# Nobody reads an entry back in the transaction that writes it, so it is never an object of the
# session: that would cost as much again as the statement.
_TABLE = AuditRow.__table__
assert isinstance(_TABLE, Table)
_INSERT = _TABLE.insert().inline()


async def record(
    work: Work, action: str, subject: str, details: Mapping[str, JsonValue] | None = None
) -> None:
    """Write an entry; it stands or falls with the transaction.

    Args:
        action: `<thing>.<past participle>`, e.g. `persona.registered`.
        subject: what was acted upon, by its public name (a slug).
    """
    await work.session.execute(
        _INSERT,
        {
            "caller_kind": work.caller.kind,
            "caller_name": work.caller.name,
            "action": action,
            "subject": subject,
            "details": dict(details or {}),
        },
    )
