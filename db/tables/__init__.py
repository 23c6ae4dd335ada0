"""All tables, imported here so that `metadata` is complete."""

from db.base import Base
from db.tables.audit import AuditRow
from db.tables.personas import PersonaRow, RoleRow, SkillVersionRow
from db.tables.specs import ChecksRow, PersonaSpecRow, PublicationRow
from db.tables.tenants import TenantRow

metadata = Base.metadata

__all__ = [
    "AuditRow",
    "ChecksRow",
    "PersonaRow",
    "PersonaSpecRow",
    "PublicationRow",
    "RoleRow",
    "SkillVersionRow",
    "TenantRow",
    "metadata",
]
