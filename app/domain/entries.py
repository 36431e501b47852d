"""
The form in which an event enters the tree: what exactly is hashed, and how personal data is kept out of it.

    entry      = canonical JSON of the event, with `"k": "rota.event/<version>"`; RFC 8785 without floats
    leaf       = SHA-256(0x00 || entry)                                  RFC 6962 section 2.1
    commitment = SHA-256(0x02 || salt || canonical JSON of {"ip", "user_agent"}), null if there is neither
    salt       = HMAC-SHA256(salt of the person, event id)

The person is the one who acted, if that was a person, else the subject. When somebody is erased, the commitment stays
in the event's row and their salt is deleted: the entry, and with it every proof, is the same as before.
"""

import re
from binascii import b2a_base64
from collections.abc import Mapping
from datetime import date, datetime
from functools import lru_cache
from hashlib import sha256
from json.encoder import encode_basestring
from typing import Final, NamedTuple
from uuid import UUID

from app.domain.canonical_json import JsonValue, encode
from app.domain.events import ActorKind

KIND: Final = "rota.event/"
EPOCH_KIND: Final = "rota.epoch/1"
SALT_BYTES: Final = 32

MOMENT_PATTERN: Final = r"\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d\.\d{6}Z"
_MOMENT: Final = re.compile(MOMENT_PATTERN, re.ASCII).fullmatch
_FIRST_YEAR: Final = 1970
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")

_PEOPLE: Final = frozenset({ActorKind.USER.value, ActorKind.ADMIN.value})
_quote: Final = encode_basestring  # a JSON string with the escapes of RFC 8785 section 3.2.2.2 and no others


class SealedFields(NamedTuple):
    """
    An event as stored, in the order in which the sealer reads it; a tuple, because millions are made.

    `ip` is the address as PostgreSQL's `host()` writes it: that text is what the commitment is made of.
    """

    id: UUID
    occurred_at: datetime
    action: str
    version: int
    outcome: str
    reason: str | None
    actor_kind: str
    actor_id: UUID | None
    subject_id: UUID
    family_id: UUID | None
    family_seq: int | None
    generation: int | None
    request_id: UUID | None
    detail: str | None
    ip: str | None
    user_agent: str | None
    commitment: bytes | None


def person_of(actor_kind: str, actor_id: UUID | None, subject_id: UUID) -> UUID:
    """Whose address and agent an event holds."""
    return actor_id if actor_id is not None and actor_kind in _PEOPLE else subject_id


def personal_data(ip: str | None, user_agent: str | None) -> str:
    """Canonical JSON of what may be erased."""
    return f'{{"ip":{_text(ip)},"user_agent":{_text(user_agent)}}}'


def event_salt(person_salt: bytes, event_id: UUID) -> bytes:
    """HMAC-SHA256 (RFC 2104), written out: through OpenSSL's HMAC it takes three times as long, millions of times."""
    key = person_salt.ljust(64, b"\0")
    return sha256(key.translate(_OUTER) + sha256(key.translate(_INNER) + event_id.bytes).digest()).digest()


def commit(salt: bytes, personal: str) -> bytes:
    """The commitment to personal data under an event's salt."""
    return sha256(b"\x02" + salt + personal.encode()).digest()


def commitment_of(event: SealedFields, salts: Mapping[UUID, bytes]) -> bytes | None:
    """The commitment that stands in the event's entry: stored if the person was erased, else computed."""
    if event.commitment is not None or (event.ip is None and event.user_agent is None):
        return event.commitment
    salt = event_salt(salts[person_of(event.actor_kind, event.actor_id, event.subject_id)], event.id)
    return commit(salt, personal_data(event.ip, event.user_agent))


def entry_of(event: SealedFields, commitment: bytes | None) -> bytes:
    """
    The entry's bytes. Members stand in order, so this is canonical if `detail` is, which was encoded when written.

    Transaction id, sequence and epoch are not in it: they belong to one machine and are no evidence.
    """
    text = (
        f'{{"action":{_quote(event.action)},"actor_id":{_id(event.actor_id)},"actor_kind":{_quote(event.actor_kind)}'
        f',"commitment":{_bytes(commitment)},"detail":{event.detail or "{}"},"family_id":{_id(event.family_id)}'
        f',"family_seq":{_int(event.family_seq)},"generation":{_int(event.generation)},"id":"{event.id}"'
        f',"k":"{KIND}{event.version}","occurred_at":"{moment(event.occurred_at)}","outcome":{_quote(event.outcome)}'
        f',"reason":{_text(event.reason)}'
        f',"request_id":{_id(event.request_id)},"subject_id":"{event.subject_id}"}}'
    )
    return text.encode()


def epoch_entry(*, opened_at: datetime, previous_checkpoint: str, reason: str, removed: bool) -> bytes:
    """
    The first entry of a further incarnation: the newest checkpoint of the one before, and why it was left.

    `removed` tells that retention has removed events before, so that lives may begin within.
    """
    members: dict[str, JsonValue] = {
        "k": EPOCH_KIND,
        "opened_at": moment(opened_at),
        "previous_checkpoint": previous_checkpoint,
        "reason": reason,
        "removed": removed,
    }
    return encode(members).encode()


def moment(at: datetime) -> str:
    """UTC with exactly six decimals. The database's times are UTC already."""
    return f"{at.isoformat(timespec='microseconds')[:26]}Z"


def is_moment(text: str) -> bool:
    """Whether a text is a time in that form, of a day that exists, not before 1970."""
    return _MOMENT(text) is not None and is_day(text[:10])


@lru_cache(maxsize=1024)
def is_day(text: str) -> bool:
    """Whether `YYYY-MM-DD` exists, from 1970 on."""
    try:
        return date.fromisoformat(text).year >= _FIRST_YEAR
    except ValueError:
        return False


def base64url(raw: bytes) -> str:
    """Without padding (RFC 4648 section 5)."""
    return b2a_base64(raw, newline=False).translate(_URL_SAFE).rstrip(b"=").decode("ascii")


def _id(value: UUID | None) -> str:
    return "null" if value is None else f'"{value}"'


def _text(value: str | None) -> str:
    return "null" if value is None else _quote(value)


def _int(value: int | None) -> str:
    return "null" if value is None else str(value)


def _bytes(value: bytes | None) -> str:
    return "null" if value is None else f'"{base64url(value)}"'
