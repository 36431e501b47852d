"""Signed notes (C2SP signed-note) with Ed25519: who signs the trail's checkpoints, and how that is checked."""

import secrets
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from app.domain.checkpoints import Malformed, decode_base64, encode_base64, is_origin

KEY_PREFIX: Final = "rota_audit_key_"
_ED25519: Final = b"\x01"
_SEED_BYTES: Final = 32
_NOTE_BYTES: Final = 65_536
_SIGNATURES: Final = 16
_DASH: Final = "— "


class SignatureInvalid(Exception):
    """No signature by a trusted key, or one that is wrong."""


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A public key under a name. Its text form is a *vkey*: `name+id+key`."""

    name: str
    public: bytes

    @property
    def id(self) -> bytes:
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{encode_base64(_ED25519 + self.public)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        From a vkey.

        Raises:
            Malformed: not a vkey, of another kind than Ed25519, or with an id that does not belong to it.
        """
        name, _, rest = text.partition("+")
        key_id, found, encoded = rest.partition("+")
        raw = decode_base64(encoded)
        if not found or not is_origin(name) or raw[:1] != _ED25519 or len(raw) != 1 + _SEED_BYTES:
            raise Malformed("not a verifier key (name+id+base64)")
        key = cls(name, raw[1:])
        if key.id.hex() != key_id:
            raise Malformed("a verifier key whose id does not belong to it")
        return key


class NoteSigner:
    """
    Signs with one Ed25519 key, under the name of the log it signs for.

    Raises:
        Malformed: the text is not a key made by `new_key`.
    """

    def __init__(self, key: str) -> None:
        seed = decode_base64(key.strip().removeprefix(KEY_PREFIX))
        if not key.strip().startswith(KEY_PREFIX) or len(seed) != _SEED_BYTES:
            raise Malformed(f"not an audit key ({KEY_PREFIX}…)")
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._private.public_key().public_bytes_raw()

    def key(self, name: str) -> NoteKey:
        return NoteKey(name, self.public)

    def sign(self, name: str, text: str) -> str:
        """The signed note: deterministic, so the same text never gets a second signature (RFC 8032)."""
        signature = self.key(name).id + self._private.sign(text.encode())
        return f"{text}\n{_DASH}{name} {encode_base64(signature)}\n"


def new_key() -> str:
    """A new private key, as text."""
    return KEY_PREFIX + encode_base64(secrets.token_bytes(_SEED_BYTES))


def open_note(note: str, keys: list[NoteKey]) -> str:
    """
    The text of a checkpoint's note that its log's trusted key has signed.

    Raises:
        Malformed: not a signed note.
        SignatureInvalid: no trusted key has signed it, a trusted key's signature is wrong, or is another log's.
    Source: C2SP signed-note.
    """
    if len(note) > _NOTE_BYTES or any(ord(character) < ord(" ") and character != "\n" for character in note):
        raise Malformed("not a signed note")
    text, found, signatures = note.rpartition("\n\n")
    lines = signatures.split("\n")
    if not found or lines.pop() or not 1 <= len(lines) <= _SIGNATURES:
        raise Malformed("not a signed note")
    text += "\n"
    trusted = {(key.name, key.id): key for key in keys}
    verified = 0
    for line in lines:
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH) or not is_origin(name):
            raise Malformed("not a signature line")
        raw = decode_base64(encoded)
        key = trusted.get((name, raw[:4]))
        if key is None:
            continue  # signatures of unknown keys say nothing
        try:
            Ed25519PublicKey.from_public_bytes(key.public).verify(raw[4:], text.encode())
        except InvalidSignature:
            raise SignatureInvalid(f"the signature of {name} is wrong") from None
        if not text.startswith(f"{name}\n"):
            raise SignatureInvalid(f"the key of {name} does not sign for another log")
        verified += 1
    if not verified:
        raise SignatureInvalid("no trusted key has signed it")
    return text
