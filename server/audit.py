"""The append-only record of who did what, written in the transaction of the act itself."""

from collections.abc import Mapping

from pydantic import JsonValue

from db.tables import AuditRow
from server.work import Work


def record(
    work: Work, action: str, subject: str, details: Mapping[str, JsonValue] | None = None
) -> None:
    """Add an entry; it stands or falls with the transaction.

    Args:
        action: `<thing>.<past participle>`, e.g. `persona.registered`.
        subject: what was acted upon, by its public name (a slug).
    """
    work.session.add(
        AuditRow(
            caller_kind=work.caller.kind,
            caller_name=work.caller.name,
            action=action,
            subject=subject,
            details=dict(details or {}),
        )
    )
