"""
The set-password token: its one spelling, its tag, what is stored of it.

    rota_pt_ + base64url(version 1 | user 16 | secret 32 | tag 8)

    tag    = first 8 bytes of HMAC-SHA256(tag key, all bytes before it)   -- refuses noise before any query
    stored = HMAC-SHA256(hash key, all bytes before the tag)

The secret is random and stands in the token alone. The hash is keyed, so that a copy of the database can neither make a
token nor recognise one.
"""

import base64
import binascii
import hmac
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

PREFIX: Final = "rota_pt_"
VERSION: Final = 1
SECRET_BYTES: Final = 32
LIFETIME: Final = timedelta(hours=24)  # also of a one-time password
AT_SIGN_IN: Final = timedelta(minutes=10)  # of the token that a one-time password is exchanged for

_BODY: Final = struct.Struct(">B16s32s")  # 49 bytes; with the tag 57, a multiple of 3: base64 without padding
_TAG_BYTES: Final = 8
_SHAPE: Final = re.compile(re.escape(PREFIX) + r"[A-Za-z0-9_-]{76}", re.ASCII)


@dataclass(frozen=True, slots=True)
class PasswordTokenKeys:
    """Two keys of one secret."""

    digest: bytes
    tag: bytes


@dataclass(frozen=True, slots=True)
class PasswordToken:
    """What a presented token says. Only its tag was checked so far; `digest` is what must be stored if it is good."""

    user_id: UUID
    digest: bytes


def build(keys: PasswordTokenKeys, *, user_id: UUID, secret: bytes) -> tuple[str, bytes]:
    """A token, and what to store of it. `secret`: `SECRET_BYTES` of a cryptographic source."""
    body = _BODY.pack(VERSION, user_id.bytes, secret)
    token = PREFIX + base64.urlsafe_b64encode(body + _tag(keys, body)).decode("ascii")
    return token, hmac.digest(keys.digest, body, "sha256")


def parse(presented: str, keys: Sequence[PasswordTokenKeys]) -> PasswordToken | None:
    """
    Read a token as received; `None` for anything that no server with one of these keys has made.

    76 base64 characters are exactly 57 bytes, no padding and no spare bits, so a token has exactly one spelling.
    """
    if not _SHAPE.fullmatch(presented):
        return None
    try:
        raw = base64.urlsafe_b64decode(presented.removeprefix(PREFIX))
    except binascii.Error:  # pragma: no cover - the shape leaves nothing to refuse
        return None
    body, tag = raw[:-_TAG_BYTES], raw[-_TAG_BYTES:]
    version, user, _ = _BODY.unpack(body)
    for known in keys:
        if hmac.compare_digest(tag, _tag(known, body)) and version == VERSION:
            return PasswordToken(UUID(bytes=user), hmac.digest(known.digest, body, "sha256"))
    return None


def _tag(keys: PasswordTokenKeys, body: bytes) -> bytes:
    return hmac.digest(keys.tag, body, "sha256")[:_TAG_BYTES]
