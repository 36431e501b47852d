"""What can be asked of the list of users: a closed list of filters."""

from dataclasses import dataclass
from datetime import datetime

from app.domain.canonical_json import JsonValue, encode
from app.domain.errors import InputInvalid
from app.domain.users import Role


@dataclass(frozen=True, slots=True)
class UserFilter:
    """
    All conditions must hold; those left out do not restrict. Times are inclusive.

    Args:
        prefix: The beginning of a name, in the canonical form; every character stands for itself.
        deleted: Only tombstones, which the list does not show otherwise.
    """

    prefix: str | None = None
    role: Role | None = None
    disabled: bool | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None
    has_active_sessions: bool | None = None
    deleted: bool = False

    def __post_init__(self) -> None:
        """
        Raises:
            InputInvalid: the range ends before it begins.
        """
        if self.created_from and self.created_to and self.created_to < self.created_from:
            raise InputInvalid("created_to must not be before created_from.", field="created_to")

    def described(self, prefix_digest: str | None) -> dict[str, JsonValue]:
        """For the event of the query: a name's beginning only as its keyed hash."""
        members: dict[str, JsonValue] = {
            "prefix": prefix_digest,
            "role": self.role.value if self.role else None,
            "disabled": self.disabled,
            "created_from": self.created_from.isoformat() if self.created_from else None,
            "created_to": self.created_to.isoformat() if self.created_to else None,
            "has_active_sessions": self.has_active_sessions,
            "deleted": self.deleted or None,
        }
        return {name: value for name, value in members.items() if value is not None}

    def fingerprint(self, order: str) -> bytes:
        """What a cursor is bound to."""
        return encode({**self.described(self.prefix), "list": "users", "order": order}).encode()
