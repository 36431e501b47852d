"""People: names, roles."""

import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from precis_i18n import get_profile

from app.domain.errors import UsernameRefused

USERNAME_CHARACTERS: Final = 254  # an e-mail address fits (RFC 5321 section 4.5.3.1.3)

_LAST_CODE_POINT: Final = 0x10FFFF
_FIRST_SURROGATE: Final = 0xD800
_AFTER_SURROGATES: Final = 0xE000
_PROFILE: Final = get_profile("UsernameCaseMapped")
_ASCII: Final = re.compile(r"[!-~]+")


class Role(StrEnum):
    """Each role may do what the one before it may."""

    USER = "user"
    AUDITOR = "auditor"
    ADMIN = "admin"


class Credential(StrEnum):
    """What a new user is handed, to come to a password of their own."""

    ONE_TIME_PASSWORD = "one_time_password"  # noqa: S105 - a kind, not a password
    SET_PASSWORD_TOKEN = "set_password_token"  # noqa: S105 - likewise
    NONE = "none"  # who signs in elsewhere


@dataclass(frozen=True, slots=True)
class User:
    """
    A person, or what is left of one.

    Args:
        password_hash: `None` of whoever signs in elsewhere, or has yet to set a password.
        must_change_password: The password is good for setting another one only; without a password: one is awaited.
        deleted_at: A tombstone since then: disabled for good, and the name is free. So are those of erased people.
        devices_forgotten_at: Device tokens issued until then count for nothing.
    """

    id: UUID
    username: str
    password_hash: str | None
    role: Role
    disabled_at: datetime | None
    created_at: datetime
    password_changed_at: datetime
    must_change_password: bool = False
    deleted_at: datetime | None = None
    devices_forgotten_at: datetime | None = None

    @property
    def is_acting_admin(self) -> bool:
        """Whether this is one of the administrators of whom there must be one."""
        return self.role is Role.ADMIN and self.disabled_at is None and self.deleted_at is None


def username_key(username: str) -> str:
    """
    The form under which a name is unique.

    Raises:
        UsernameRefused: empty, longer than `USERNAME_CHARACTERS`, or outside the PRECIS identifier class (spaces,
            control characters, unassigned code points).
    Source: RFC 8265 section 3.3 (UsernameCaseMapped).
    """
    if not 1 <= len(username) <= USERNAME_CHARACTERS:
        raise UsernameRefused(f"A username has 1 to {USERNAME_CHARACTERS} characters.")
    if _ASCII.fullmatch(username):  # all of these are in the class, and nothing but their case is mapped
        return username.lower()
    try:
        key: str = _PROFILE.enforce(username)
    except UnicodeError as refused:
        raise UsernameRefused("A username has no spaces and no control or unassigned characters.") from refused
    return key


def name_prefix(text: str) -> str:
    """
    The beginning of a name in the form under which names are unique.

    The beginning of a valid name need not be valid by itself (a right-to-left name may not end with a hyphen), so what
    PRECIS refuses is only mapped.
    """
    try:
        return username_key(text)
    except UsernameRefused:
        return unicodedata.normalize("NFC", text.lower())


def prefix_end(prefix: str) -> str | None:
    """The first text, by code points, that is behind all texts with this prefix; `None`: there is none."""
    while prefix:
        last = ord(prefix[-1])
        if last < _LAST_CODE_POINT:
            return prefix[:-1] + chr(_AFTER_SURROGATES if last + 1 == _FIRST_SURROGATE else last + 1)
        prefix = prefix[:-1]
    return None
