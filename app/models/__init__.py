"""Tables, one aggregate a file, a reason on each index."""

from app.models.audit_events import AuditEventRow
from app.models.base import Base
from app.models.families import FamilyRow
from app.models.jobs import JobCursorRow
from app.models.refusals import RefusalRow
from app.models.users import UserRow

__all__ = ["AuditEventRow", "Base", "FamilyRow", "JobCursorRow", "RefusalRow", "UserRow"]
