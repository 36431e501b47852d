"""Tables, one aggregate a file, a reason on each index."""

from app.models.audit_events import AuditEventRow
from app.models.audit_logs import AuditBatchRow, AuditCheckpointRow, AuditLogRow, AuditSaltRow, AuditTileRow
from app.models.base import Base
from app.models.families import FamilyRow
from app.models.jobs import JobCursorRow
from app.models.refusals import LoginFailureRow, RefusalRow
from app.models.schema_revisions import SchemaRevisionRow
from app.models.users import UserRow

__all__ = [
    "AuditBatchRow",
    "AuditCheckpointRow",
    "AuditEventRow",
    "AuditLogRow",
    "AuditSaltRow",
    "AuditTileRow",
    "Base",
    "FamilyRow",
    "JobCursorRow",
    "LoginFailureRow",
    "RefusalRow",
    "SchemaRevisionRow",
    "UserRow",
]
