"""What the owner of an account is to be told; somebody else's mailer tells them, Rota keeps the outbox."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

ACKNOWLEDGE_MAXIMUM: Final = 500  # at once
KEPT: Final = timedelta(days=30)  # whatever nobody has fetched by then is no news any more


class NotificationKind(StrEnum):
    """Closed; the table repeats it as a CHECK."""

    PASSWORD_CHANGED = "password_changed"  # noqa: S105 - a kind, not a password
    USERNAME_CHANGED = "username_changed"
    SIGNED_IN_AFTER_FAILURES = "signed_in_after_failures"


@dataclass(frozen=True, slots=True)
class Notification:
    """
    One thing to be told to one person.

    Args:
        username: As it is now, of people who still have an account: it is read with the notification, not kept in it.
    """

    id: UUID
    user_id: UUID
    username: str
    kind: NotificationKind
    created_at: datetime
