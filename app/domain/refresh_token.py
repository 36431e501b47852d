"""
The refresh token: its one spelling, its proof, its tag.

    rota_rt_ + base64url(version 1 | key id 1 | user 16 | family 16 | generation 4 | proof 32 | tag 8)

    h(g)     = HMAC-SHA256(mint key, user | family | g)
    proof(g) = SHA-256(seed | h(g))
    tag      = first 8 bytes of HMAC-SHA256(tag key, all bytes before it)

The seed is in the database and the keys are not, so neither alone can mint or recognise a token, nothing is stored
per token, and yet every generation a family ever had can be recognised.
"""

import base64
import binascii
import hmac
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from uuid import UUID

PREFIX: Final = "rota_rt_"
VERSION: Final = 1
GENERATION_LIMIT: Final = 2**31  # generations are PostgreSQL integers

_BODY: Final = struct.Struct(">BB16s16sI32s")  # 70 bytes; with the tag 78, a multiple of 3: base64 without padding
_TAG_BYTES: Final = 8
_SHAPE: Final = re.compile(re.escape(PREFIX) + r"[A-Za-z0-9_-]{104}", re.ASCII)
TOKEN_LENGTH: Final = len(PREFIX) + 104


@dataclass(frozen=True, slots=True)
class TokenKeys:
    """Two keys of one secret, and the byte by which tokens name it."""

    key_id: int
    mint: bytes
    tag: bytes


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """What a presented token says. Only its tag was checked so far, not its proof."""

    key_id: int
    user_id: UUID
    family_id: UUID
    generation: int
    proof: bytes

    @property
    def proof_digest(self) -> bytes:
        """What the database compares with: a statement that is logged holds no token."""
        return sha256(self.proof).digest()


def half_proof(mint_key: bytes, user_id: UUID, family_id: UUID, generation: int) -> bytes:
    """The server's half of a proof, h(g), 32 bytes; worthless without the family's seed."""
    message = user_id.bytes + family_id.bytes + generation.to_bytes(4)
    return hmac.digest(mint_key, message, "sha256")


def proof_of(seed: bytes, half: bytes) -> bytes:
    """Both halves together: what makes a token genuine, 32 bytes."""
    return sha256(seed + half).digest()


def is_proof(token: RefreshToken, seed: bytes, half: bytes) -> bool:
    """Whether a token's proof is the one of its generation, in constant time."""
    return hmac.compare_digest(token.proof, proof_of(seed, half))


def build(keys: TokenKeys, *, user_id: UUID, family_id: UUID, generation: int, seed: bytes) -> str:
    """The one token of this generation under these keys: `TOKEN_LENGTH` ASCII characters."""
    proof = proof_of(seed, half_proof(keys.mint, user_id, family_id, generation))
    body = _BODY.pack(VERSION, keys.key_id, user_id.bytes, family_id.bytes, generation, proof)
    return PREFIX + base64.urlsafe_b64encode(body + _tag(keys.tag, body)).decode("ascii")


def is_spelled(text: str) -> bool:
    """Whether a text has the shape of a token; anybody can make one that does."""
    return _SHAPE.fullmatch(text) is not None


def parse(presented: str, keys: Mapping[int, TokenKeys]) -> RefreshToken | None:
    """
    Read a token as received; `None` for anything that no server with these keys has made.

    Needs no database: whoever lacks the tag key cannot make us ask it anything. 104 base64 characters are exactly
    78 bytes, no padding and no spare bits, so a token has exactly one spelling.
    """
    if not is_spelled(presented):
        return None
    try:
        raw = base64.urlsafe_b64decode(presented.removeprefix(PREFIX))
    except binascii.Error:  # pragma: no cover - the shape leaves nothing to refuse
        return None
    body, tag = raw[:-_TAG_BYTES], raw[-_TAG_BYTES:]
    version, key_id, user, family, generation, proof = _BODY.unpack(body)
    known = keys.get(key_id)
    if known is None or not hmac.compare_digest(tag, _tag(known.tag, body)):
        return None
    if version != VERSION or generation >= GENERATION_LIMIT:
        return None
    return RefreshToken(key_id, UUID(bytes=user), UUID(bytes=family), generation, proof)


def _tag(tag_key: bytes, body: bytes) -> bytes:
    return hmac.digest(tag_key, body, "sha256")[:_TAG_BYTES]
