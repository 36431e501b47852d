"""
The device token: that somebody has signed in here before. It opens nothing, and no attack on the account shuts it out.

    rota_dt_ + base64url(version 1 | key id 1 | user 16 | device 16 | issued 4 | tag 16)

    tag = first 16 bytes of HMAC-SHA256(key, all bytes before it)

Nothing is stored of it: the tag alone makes it genuine, so it is twice as long as the tags that only refuse noise.

A browser that several people use keeps one of each, joined by a `.`: none of them is a stranger for the others.
"""

import base64
import binascii
import hmac
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

PREFIX: Final = "rota_dt_"
VERSION: Final = 1
LIFETIME: Final = timedelta(days=180)
RENEWED_AFTER: Final = timedelta(days=90)  # at a sign-in: who comes twice in half a year stays known
CLOCKS_APART: Final = timedelta(hours=1)  # by which a database that took over may be behind

_BODY: Final = struct.Struct(">BB16s16sI")  # 38 bytes; with the tag 54, a multiple of 3: base64 without padding
_TAG_BYTES: Final = 16
_SHAPE: Final = re.compile(re.escape(PREFIX) + r"[A-Za-z0-9_-]{72}", re.ASCII)
JOINT: Final = "."
HELD: Final = 4
TOKEN_LENGTH: Final = len(PREFIX) + 72


@dataclass(frozen=True, slots=True)
class DeviceToken:
    """Genuine: one of our servers made it at a sign-in of this user."""

    user_id: UUID
    device_id: UUID
    issued_at: datetime

    def is_of(self, user_id: UUID, *, now: datetime, forgotten_at: datetime | None) -> bool:
        """
        Whether it counts for this user.

        Args:
            forgotten_at: When somebody ordered all of the user's devices to be forgotten.
        """
        if forgotten_at is not None and self.issued_at <= forgotten_at:
            return False
        return self.user_id == user_id and -CLOCKS_APART <= now - self.issued_at < LIFETIME

    def is_due(self, now: datetime) -> bool:
        """Whether it is time for another one with the same id."""
        return now - self.issued_at >= RENEWED_AFTER


def build(key_id: int, key: bytes, token: DeviceToken) -> str:
    """The one spelling of it under this key: `TOKEN_LENGTH` ASCII characters. The time is cut to seconds."""
    issued = int(token.issued_at.timestamp())
    body = _BODY.pack(VERSION, key_id, token.user_id.bytes, token.device_id.bytes, issued)
    return PREFIX + base64.urlsafe_b64encode(body + _tag(key, body)).decode("ascii")


def parse(presented: str, keys: Mapping[int, bytes]) -> DeviceToken | None:
    """
    Read a token as received; `None` for anything that no server with these keys has made.

    72 base64 characters are exactly 54 bytes, no padding and no spare bits, so a token has exactly one spelling.
    """
    if len(presented) != TOKEN_LENGTH or not _SHAPE.fullmatch(presented):
        return None
    try:
        raw = base64.urlsafe_b64decode(presented.removeprefix(PREFIX))
    except binascii.Error:  # pragma: no cover - the shape leaves nothing to refuse
        return None
    body, tag = raw[:-_TAG_BYTES], raw[-_TAG_BYTES:]
    version, key_id, user, device, issued = _BODY.unpack(body)
    key = keys.get(key_id)
    if key is None or not hmac.compare_digest(tag, _tag(key, body)) or version != VERSION:
        return None
    return DeviceToken(UUID(bytes=user), UUID(bytes=device), datetime.fromtimestamp(issued, UTC))


def is_spelled(held: str) -> bool:
    """Whether it has the shape of a token, or of at most `HELD` that are joined."""
    given = held.split(JOINT, HELD)
    return len(given) <= HELD and all(map(_SHAPE.fullmatch, given))


def parse_all(presented: str, keys: Mapping[int, bytes]) -> list[DeviceToken]:
    """The genuine ones of a token, or of at most `HELD` that are joined."""
    given = presented.split(JOINT, HELD)[:HELD]
    return [token for token in (parse(each, keys) for each in given) if token is not None]


def join(token: str, held: str) -> str:
    """
    A new token with those that were held before, newest first, at most `HELD`: without an older one of the same user,
    and without what is none.
    """
    others = [each for each in held.split(JOINT, HELD)[:HELD] if _SHAPE.fullmatch(each) and _user(each) != _user(token)]
    return JOINT.join([token, *others][:HELD])


def _user(token: str) -> str:
    """Where the user stands in it, as it is spelled: base64 characters 4 to 23 are of bytes 3 to 17."""
    return token.removeprefix(PREFIX)[4:24]


def _tag(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, body, "sha256")[:_TAG_BYTES]
