"""All keys: functions of `ROTA_SECRETS`, one for each purpose, stored nowhere."""

import hmac
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.domain.api_clients import SecretHash
from app.domain.password_token import PasswordTokenKeys
from app.domain.refresh_token import TokenKeys

_KEY_BYTES: Final = 32
CURSOR_TAG_BYTES: Final = 16


def derive(secret: bytes, purpose: str, length: int = _KEY_BYTES) -> bytes:
    """One key of one secret (HKDF-SHA256, RFC 5869); keys of different purposes tell nothing of each other."""
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=b"rota/1/" + purpose.encode()).derive(secret)


def key_id(secret: bytes) -> int:
    """The byte by which tokens name a secret; it tells nothing of the secret and may be shown."""
    return derive(secret, "key id", 1)[0]


def spell_key_id(number: int) -> str:
    """A key id as people and the trail write it: two hex digits."""
    return f"{number:02x}"


class KeyIdsCollide(ValueError):
    """Two secrets share the byte by which tokens name them; one must be replaced (chance 1 in 256)."""


class Keyring:
    """
    The symmetric keys of every listed secret.

    The first secret mints, all recognise. A key's id is a byte derived from its secret, never its position, so that
    adding and removing secrets changes no other's name.
    """

    def __init__(self, secrets: Sequence[bytes]) -> None:
        if not secrets:
            raise ValueError("at least one secret is needed")
        ids = [key_id(secret) for secret in secrets]
        if len(set(ids)) != len(ids):
            raise KeyIdsCollide("two secrets have the same key id; replace the newer one")
        self.token_keys = {
            name: TokenKeys(name, mint=derive(secret, "refresh mint"), tag=derive(secret, "refresh tag"))
            for name, secret in zip(ids, secrets, strict=True)
        }
        self.minting = self.token_keys[ids[0]]
        self._attempt = {name: derive(secret, "attempt") for name, secret in zip(ids, secrets, strict=True)}
        self.password_token_keys = [
            PasswordTokenKeys(digest=derive(secret, "password token"), tag=derive(secret, "password token tag"))
            for secret in secrets
        ]
        self.device_token_keys = {
            name: derive(secret, "device token") for name, secret in zip(ids, secrets, strict=True)
        }
        self._names = derive(secrets[0], "unknown names")
        self._throttle = derive(secrets[0], "throttle")
        self._cursors = [derive(secret, "cursors") for secret in secrets]
        self._dry_runs = [derive(secret, "dry runs") for secret in secrets]
        self._clients = {name: derive(secret, "client secrets") for name, secret in zip(ids, secrets, strict=True)}

    def attempt(self, key_id: int, *, user_id: UUID, family_id: UUID, generation: int, key: str) -> bytes:
        """
        What a rotation stores of its `Idempotency-Key`: bound to the generation it spends, 32 bytes.

        Keyed by the secret of the presented token, so that a retry of the same request finds the same digest while
        the secrets are being changed.
        """
        message = user_id.bytes + family_id.bytes + generation.to_bytes(4) + key.encode()
        return hmac.digest(self._attempt[key_id], message, "sha256")

    def cursor_tag(self, message: bytes) -> bytes:
        """What makes a cursor ours: 16 bytes."""
        return hmac.digest(self._cursors[0], message, "sha256")[:CURSOR_TAG_BYTES]

    def is_cursor_tag(self, tag: bytes, message: bytes) -> bool:
        """Whether any listed secret made it."""
        mine = [hmac.digest(key, message, "sha256")[:CURSOR_TAG_BYTES] for key in self._cursors]
        return any(hmac.compare_digest(tag, each) for each in mine)

    def dry_run_tag(self, message: bytes) -> bytes:
        """What makes a dry run's fingerprint ours: 32 bytes."""
        return hmac.digest(self._dry_runs[0], message, "sha256")

    def is_dry_run_tag(self, tag: bytes, message: bytes) -> bool:
        """Whether any listed secret made it."""
        return any(hmac.compare_digest(tag, hmac.digest(key, message, "sha256")) for key in self._dry_runs)

    def name_digest(self, username_key: str) -> str:
        """How the trail names somebody we do not know: equal names are seen to be equal, and no more. 32 hex digits."""
        return hmac.digest(self._names, username_key.encode(), "sha256").hex()[:32]

    def throttle_digest(self, *parts: bytes) -> bytes:
        """
        Under which name failures are counted: 32 bytes that tell nothing of the parts.

        Of the first secret alone: when another takes its place, the counts begin anew.
        """
        message = b"".join(len(part).to_bytes(4) + part for part in parts)
        return hmac.digest(self._throttle, message, "sha256")

    def client_secret_hash(self, client: UUID, secret: str) -> SecretHash:
        """How the secret of an API client is stored: bound to its row, under the first secret's key."""
        key_id = self.minting.key_id
        return SecretHash(hmac.digest(self._clients[key_id], client.bytes + secret.encode(), "sha256"), key_id)

    def is_client_secret(self, stored: SecretHash, client: UUID, secret: str) -> bool:
        """Whether a hash is of this secret, in constant time; one made under a secret no longer listed is of none."""
        key = self._clients.get(stored.key_id, self._clients[self.minting.key_id])
        same = hmac.compare_digest(stored.digest, hmac.digest(key, client.bytes + secret.encode(), "sha256"))
        return same and stored.key_id in self._clients
