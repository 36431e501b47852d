"""What the feed says of a session's end."""

import base64
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from math import ceil
from typing import Final
from uuid import UUID

from app.domain.ended_sessions import ACCESS_SECONDS_MAXIMUM
from app.domain.families import EndReason

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_ID_BYTES: Final = 16


class ReasonClass(StrEnum):
    """Why, as far as other services are told. The list is closed; the exact reason is for administrators."""

    SIGNED_OUT = "signed_out"
    ADMINISTRATION = "administration"
    SECURITY = "security"
    LIMIT = "limit"
    EXPIRED = "expired"


class Initiator(StrEnum):
    """`initiating_entity` of CAEP 1.0 section 2."""

    ADMIN = "admin"
    USER = "user"
    POLICY = "policy"
    SYSTEM = "system"


CLASSES: Final[dict[EndReason, tuple[ReasonClass, Initiator]]] = {
    EndReason.LOGOUT: (ReasonClass.SIGNED_OUT, Initiator.USER),
    EndReason.LOGOUT_ALL: (ReasonClass.SIGNED_OUT, Initiator.USER),
    EndReason.OAUTH_REVOCATION: (ReasonClass.SIGNED_OUT, Initiator.USER),
    EndReason.ADMIN: (ReasonClass.ADMINISTRATION, Initiator.ADMIN),
    EndReason.BULK_ADMIN: (ReasonClass.ADMINISTRATION, Initiator.ADMIN),
    EndReason.USER_DISABLED: (ReasonClass.ADMINISTRATION, Initiator.ADMIN),
    EndReason.ROLE_CHANGE: (ReasonClass.ADMINISTRATION, Initiator.ADMIN),
    EndReason.PASSWORD_CHANGE: (ReasonClass.SECURITY, Initiator.USER),
    EndReason.REUSE: (ReasonClass.SECURITY, Initiator.POLICY),
    EndReason.RESTORE: (ReasonClass.SECURITY, Initiator.SYSTEM),
    EndReason.EVICTED: (ReasonClass.LIMIT, Initiator.POLICY),
    EndReason.IDLE_TIMEOUT: (ReasonClass.EXPIRED, Initiator.POLICY),
    EndReason.ABSOLUTE_TIMEOUT: (ReasonClass.EXPIRED, Initiator.POLICY),
}

# For people, in the language of RFC 5646 that each is in (CAEP 1.0 section 2): to an administrator, and to the user.
WORDS: Final[dict[ReasonClass, tuple[dict[str, str], dict[str, str]]]] = {
    ReasonClass.SIGNED_OUT: (
        {"en": "The user signed out."},
        {"en": "You have signed out."},
    ),
    ReasonClass.ADMINISTRATION: (
        {"en": "An administrator ended the session."},
        {"en": "An administrator has ended your session."},
    ),
    ReasonClass.SECURITY: (
        {"en": "The session ended to protect the account."},
        {"en": "Your session has ended to protect your account."},
    ),
    ReasonClass.LIMIT: (
        {"en": "The user reached the limit of sessions; the oldest ended."},
        {"en": "You have signed in elsewhere too often; your oldest session has ended."},
    ),
    ReasonClass.EXPIRED: (
        {"en": "The session reached its time limit."},
        {"en": "Your session has expired."},
    ),
}


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """One ended session, as the feed reads it. `xact` is the transaction that ended it."""

    user_id: UUID
    id: UUID
    ended_at: datetime
    reason: EndReason
    xact: int

    @property
    def reason_class(self) -> ReasonClass:
        return CLASSES[self.reason][0]

    @property
    def initiator(self) -> Initiator:
        return CLASSES[self.reason][1]

    @property
    def event_id(self) -> str:
        """The same for this end wherever and however often it is told, so that a second telling is known as one."""
        named = self.user_id.bytes + self.id.bytes + ((self.ended_at - _EPOCH) // _MICROSECOND).to_bytes(8)
        digest = sha256(b"rota/session-revoked/1" + named).digest()[:_ID_BYTES]
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")

    @property
    def forgettable_at(self) -> int:
        """
        From this second on no access token of the session is valid by its own `exp`, and the end may be forgotten.

        By the longest lifetime that can be set, not ours: who shortens it has issued longer ones before.
        """
        return ceil((self.ended_at + timedelta(seconds=ACCESS_SECONDS_MAXIMUM)).timestamp())
