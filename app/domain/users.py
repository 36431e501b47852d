"""People: names, roles."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from precis_i18n import get_profile

from app.domain.errors import UsernameRefused

USERNAME_CHARACTERS: Final = 254  # an e-mail address fits (RFC 5321 section 4.5.3.1.3)

_PROFILE: Final = get_profile("UsernameCaseMapped")


class Role(StrEnum):
    """Each role may do what the one before it may."""

    USER = "user"
    AUDITOR = "auditor"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class User:
    id: UUID
    username: str
    password_hash: str
    role: Role
    disabled_at: datetime | None
    created_at: datetime
    password_changed_at: datetime


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
    try:
        key: str = _PROFILE.enforce(username)
    except UnicodeError as refused:
        raise UsernameRefused("A username has no spaces and no control or unassigned characters.") from refused
    return key
