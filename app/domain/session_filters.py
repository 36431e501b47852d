"""What can be asked of the sessions: a closed list of filters, and two orders."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from app.domain.canonical_json import JsonValue, encode
from app.domain.errors import InputInvalid, UsernameRefused
from app.domain.event_filters import IpNetwork
from app.domain.families import EndReason, SessionState
from app.domain.users import Role, username_key

PREFIX_CHARACTERS_MINIMUM: Final = 2  # of a username: fewer would mean nearly everybody

# Of whom the event of a reading shows only a keyed digest: names and addresses are personal data.
_PERSONAL: Final = frozenset({"username", "username_prefix", "network"})


class AddressScope(StrEnum):
    """Which of a session's addresses must be of the network."""

    FIRST = "first"  # that of the sign-in
    ANY = "any"  # any that it was ever used from, through the trail


class SessionSort(StrEnum):
    CREATED = "created"
    LAST_USED = "last_used"


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """
    All conditions must hold; those left out do not restrict. Both ends of a range belong to it.

    Args:
        username: In its canonical form, as `username_key` makes it; so is `username_prefix`.
        browser: As it is shown ("Chrome 131"), or without the version ("Chrome"); `os` likewise.
        role: That the session was given at sign-in.
        end_reason: As written; a session that has lapsed and whose end is not written has none yet.
    """

    state: SessionState | None = None
    user_id: UUID | None = None
    username: str | None = None
    username_prefix: str | None = None
    client_id: str | None = None
    role: Role | None = None
    network: IpNetwork | None = None
    scope: AddressScope = AddressScope.FIRST
    device: str | None = None
    browser: str | None = None
    os: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None
    last_used_from: datetime | None = None
    last_used_to: datetime | None = None
    end_reason: EndReason | None = None
    ended_by: UUID | None = None

    def __post_init__(self) -> None:
        """
        Raises:
            InputInvalid: a range ends before it begins, or a scope has no network.
        """
        if self.scope is not AddressScope.FIRST and self.network is None:
            raise InputInvalid("ip_scope says nothing without ip.", field="ip_scope")
        for name in ("created", "last_used"):
            start, end = getattr(self, f"{name}_from"), getattr(self, f"{name}_to")
            if start is not None and end is not None and end < start:
                raise InputInvalid(f"{name}_to must not be before {name}_from.", field=f"{name}_to")

    def described(self, digest: Callable[[str], str]) -> dict[str, JsonValue]:
        """
        For the event of the reading, without personal data.

        Args:
            digest: Keyed; of names and addresses only this is shown.
        """
        described: dict[str, JsonValue] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None or (field.name == "scope" and self.network is None):
                continue
            if isinstance(value, datetime):
                value = value.isoformat()
            described[field.name] = digest(str(value)) if field.name in _PERSONAL else str(value)
        return described

    def fingerprint(self, order: str) -> bytes:
        """What a cursor is bound to: the same for equal filters only."""
        return encode({**self.described(str), "order": order}).encode()

    @property
    def is_contradictory(self) -> bool:
        """Whether no session can match: one that has not ended has neither a reason nor somebody who ended it."""
        return self.state in {SessionState.ACTIVE, SessionState.LAPSED} and (
            self.end_reason is not None or self.ended_by is not None
        )


def read_user(text: str) -> tuple[UUID | None, str | None]:
    """
    A user's id, or else the canonical form of a name.

    Raises:
        InputInvalid: neither.
    """
    try:
        return UUID(text), None
    except ValueError:
        pass
    try:
        return None, username_key(text)
    except UsernameRefused:
        raise InputInvalid("user must be an id or a username.") from None


def read_username_prefix(text: str) -> str:
    """
    The canonical form of a name's beginning. Nothing in it is a wildcard.

    Raises:
        InputInvalid: too short, or nothing that a name can begin with.
    """
    try:
        prefix = username_key(text)
    except UsernameRefused:
        raise InputInvalid("username_prefix must be the beginning of a username.") from None
    if len(prefix) < PREFIX_CHARACTERS_MINIMUM:
        raise InputInvalid(f"username_prefix must have at least {PREFIX_CHARACTERS_MINIMUM} characters.")
    return prefix
