"""The actions of the trail, and the shape of one event. What each means and holds is in `vocabulary.py`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from app.domain.canonical_json import JsonValue
from app.domain.clients import ClientContext

NOBODY: Final = UUID(int=0)  # subject of an event that is about no known user


class Action(StrEnum):
    """`noun.verb`; each value is a stable identifier. The version of all is in `EVENT_VERSION`."""

    USER_CREATED = "user.created"
    USER_DISABLED = "user.disabled"
    USER_ENABLED = "user.enabled"
    USER_RENAMED = "user.renamed"
    USER_ROLE_CHANGED = "user.role_changed"
    USER_DELETED = "user.deleted"
    IMPORT_STARTED = "import.started"
    IMPORT_FINISHED = "import.finished"
    LOGIN_FAILED = "login.failed"
    LOGIN_THROTTLED = "login.throttled"
    LOGIN_FLOODED = "login.flooded"
    LOGIN_UNBLOCKED = "login.unblocked"
    PASSWORD_CHANGED = "password.changed"  # noqa: S105 - an action, not a password
    PASSWORD_REHASHED = "password.rehashed"  # noqa: S105 - likewise
    PASSWORD_CHANGE_FAILED = "password.change_failed"  # noqa: S105 - likewise
    PASSWORD_RESET = "password.reset"  # noqa: S105 - likewise
    PASSWORD_FORGOTTEN = "password.forgotten"  # noqa: S105 - likewise
    CREDENTIAL_ISSUED = "credential.issued"
    CREDENTIAL_REFUSED = "credential.refused"
    NOTIFICATION_ACKNOWLEDGED = "notification.acknowledged"
    NOTIFICATION_REMOVED = "notification.removed"
    SESSION_CREATED = "session.created"
    SESSION_REFRESHED = "session.refreshed"
    SESSION_REPLAYED = "session.replayed"
    SESSION_FAST_FORWARDED = "session.fast_forwarded"
    SESSION_RIDE_ALONG_SUSPECTED = "session.ride_along_suspected"
    SESSION_LABELLED = "session.labelled"
    SESSION_ENDED = "session.ended"
    REVOCATION_PREVIEWED = "revocation.previewed"
    REVOCATION_STARTED = "revocation.started"
    REVOCATION_FINISHED = "revocation.finished"
    REVOCATION_CANCELLED = "revocation.cancelled"
    SESSION_REMOVED = "session.removed"
    REFRESH_REFUSED = "refresh.refused"
    REFRESH_FORGED = "refresh.forged"
    REFRESH_REUSED = "refresh.reused"
    REFRESH_MISDIRECTED = "refresh.misdirected"
    CLIENT_CREATED = "client.created"
    CLIENT_SECRET_ROTATED = "client.secret_rotated"  # noqa: S105 - an action, not a secret
    CLIENT_SECRET_REVOKED = "client.secret_revoked"  # noqa: S105 - likewise
    CLIENT_DISABLED = "client.disabled"
    CLIENT_ENABLED = "client.enabled"
    CLIENT_VIEWED = "client.viewed"
    SUBJECT_ERASED = "subject.erased"
    ADMIN_QUERIED = "admin.queried"
    ADMIN_EXPORTED = "admin.exported"
    AUDIT_QUERIED = "audit.queried"
    AUDIT_EXPORTED = "audit.exported"
    AUDIT_HEARTBEAT = "audit.heartbeat"
    AUDIT_ALARM = "audit.alarm"
    AUDIT_EPOCH_OPENED = "audit.epoch_opened"
    AUDIT_RETENTION = "audit.retention"
    SERVER_STARTED = "server.started"
    SERVER_STOPPED = "server.stopped"
    SCHEMA_MIGRATED = "schema.migrated"


EVENT_VERSION: Final = 1
NAME_BYTES: Final = 64  # of an action or a reason
DETAIL_BYTES: Final = 16_384


class Outcome(StrEnum):
    SUCCESS = "success"
    FAILURE = "failure"


class ActorKind(StrEnum):
    USER = "user"
    ADMIN = "admin"
    CLIENT = "client"
    SYSTEM = "system"
    ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who performs the act; the subject is whose session it is."""

    kind: ActorKind
    id: UUID | None = None


SYSTEM: Final = Actor(ActorKind.SYSTEM)
ANONYMOUS: Final = Actor(ActorKind.ANONYMOUS)
NO_CLIENT: Final = ClientContext(ip=None, user_agent=None, request_id=None)


def user_actor(user_id: UUID) -> Actor:
    return Actor(ActorKind.USER, user_id)


@dataclass(frozen=True, slots=True)
class Event:
    """
    One entry of the trail, before the database gives it its place.

    Args:
        family_seq: 1..n without gaps inside a family, from the row that the change has locked; `None` for refusals,
            which never touch the family row.
        generation: The family's generation after the change; for refusals the presented one.
        at: When, if not at the time of the unit of work that writes it.
        detail: Canonical JSON, never personal data, never a secret.
    """

    action: Action
    actor: Actor
    client: ClientContext
    outcome: Outcome = Outcome.SUCCESS
    reason: str | None = None
    subject_id: UUID = NOBODY
    family_id: UUID | None = None
    family_seq: int | None = None
    generation: int | None = None
    at: datetime | None = None
    detail: Mapping[str, JsonValue] = field(default_factory=dict)
