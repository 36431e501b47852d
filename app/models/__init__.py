"""Tables, one aggregate a file, a reason on each index."""

from app.models.api_clients import ApiClientRow
from app.models.audit_events import AuditEventRow
from app.models.audit_logs import AuditBatchRow, AuditCheckpointRow, AuditLogRow, AuditSaltRow, AuditTileRow
from app.models.base import Base
from app.models.families import FamilyRow
from app.models.jobs import JobCursorRow, JobRunRow
from app.models.notifications import NotificationRow
from app.models.refusals import LoginFailureRow, RefusalRow
from app.models.schema_revisions import SchemaRevisionRow
from app.models.session_revocations import SessionRevocationRow
from app.models.stats import StatCountRow, StatPositionRow, StatSourceRow, StatUserRow
from app.models.throttles import AddressThrottleRow, LoginThrottleRow
from app.models.user_imports import UserImportRow
from app.models.users import PasswordTokenRow, UserRow

__all__ = [
    "AddressThrottleRow",
    "ApiClientRow",
    "AuditBatchRow",
    "AuditCheckpointRow",
    "AuditEventRow",
    "AuditLogRow",
    "AuditSaltRow",
    "AuditTileRow",
    "Base",
    "FamilyRow",
    "JobCursorRow",
    "JobRunRow",
    "LoginFailureRow",
    "LoginThrottleRow",
    "NotificationRow",
    "PasswordTokenRow",
    "RefusalRow",
    "SchemaRevisionRow",
    "SessionRevocationRow",
    "StatCountRow",
    "StatPositionRow",
    "StatSourceRow",
    "StatUserRow",
    "UserImportRow",
    "UserRow",
]
