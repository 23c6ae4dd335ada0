"""All tables, imported here so that `metadata` is complete."""

from db.base import Base
from db.tables.audit import AuditRow
from db.tables.jobs import JobCleanupRow, JobRow, JobStepRow, SpendingRow
from db.tables.personas import PersonaRow, RoleRow, SkillVersionRow
from db.tables.specs import ChecksRow, PersonaSpecRow, PublicationRow
from db.tables.standards import (
    ApprovedFileRow,
    DecisionRow,
    PassageRow,
    PostingRow,
    ProjectRow,
    ProposalRow,
    RevisionRow,
    StandardRow,
    StandardUseRow,
)
from db.tables.tenants import TenantRow

metadata = Base.metadata

__all__ = [
    "ApprovedFileRow",
    "AuditRow",
    "ChecksRow",
    "DecisionRow",
    "JobCleanupRow",
    "JobRow",
    "JobStepRow",
    "PassageRow",
    "PersonaRow",
    "PersonaSpecRow",
    "PostingRow",
    "ProjectRow",
    "ProposalRow",
    "PublicationRow",
    "RevisionRow",
    "RoleRow",
    "SkillVersionRow",
    "SpendingRow",
    "StandardRow",
    "StandardUseRow",
    "TenantRow",
    "metadata",
]
