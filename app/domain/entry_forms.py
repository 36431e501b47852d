"""Reading an entry of the tree: only what this program could have written is taken."""

import json
import re
from typing import Final, NoReturn

from app.domain.entries import EPOCH_KIND, KIND, MOMENT_PATTERN, is_day, is_moment
from app.domain.lives import Members
from app.domain.vocabulary import VERSIONS
from app.domain.vocabulary_check import fault

_UUID_TEXT: Final = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_COMMITMENT_TEXT: Final = r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]"  # 32 bytes as base64url, in its only spelling
_NUMBER_TEXT: Final = r"0|[1-9]\d{0,14}"

_UUID: Final = re.compile(_UUID_TEXT, re.ASCII).fullmatch
_COMMITMENT: Final = re.compile(_COMMITMENT_TEXT, re.ASCII).fullmatch
_USUAL: Final = re.compile(
    (
        rf'{{"action":"(?P<action>[a-z_.]+)","actor_id":(?:null|"(?P<actor_id>{_UUID_TEXT})")'
        rf',"actor_kind":"(?P<actor_kind>[a-z]+)","commitment":(?:null|"(?P<commitment>{_COMMITMENT_TEXT})")'
        rf',"detail":(?P<detail>{{.*}}),"family_id":(?:null|"(?P<family_id>{_UUID_TEXT})")'
        rf',"family_seq":(?:null|(?P<family_seq>{_NUMBER_TEXT})),"generation":(?:null|(?P<generation>{_NUMBER_TEXT}))'
        rf',"id":"(?P<id>{_UUID_TEXT})","k":"{KIND}(?:{"|".join(map(str, VERSIONS))})"'
        rf',"occurred_at":"(?P<occurred_at>{MOMENT_PATTERN})","outcome":"(?P<outcome>[a-z]+)"'
        rf',"reason":(?:null|"(?P<reason>[a-z_]+)"),"request_id":(?:null|"(?P<request_id>{_UUID_TEXT})")'
        rf',"subject_id":"(?P<subject_id>{_UUID_TEXT})"}}'
    ),
    re.DOTALL | re.ASCII,
).fullmatch
_MEMBERS: Final = frozenset(
    {
        *("action", "actor_id", "actor_kind", "commitment", "detail", "family_id", "family_seq", "generation", "id"),
        *("k", "occurred_at", "outcome", "reason", "request_id", "subject_id"),
    }
)
_STRINGS: Final = ("action", "actor_kind", "id", "occurred_at", "outcome", "subject_id")
_KINDS: Final = frozenset(f"{KIND}{version}" for version in VERSIONS)
_OPENING: Final = frozenset({"k", "opened_at", "previous_checkpoint", "reason", "removed"})
_INTEGER_LIMIT: Final = 2**53


class UnknownForm(ValueError):
    """An entry of another form or version. The message says what is wrong with it."""


def read_entry(entry: bytes) -> Members:
    """
    The members of an event's entry.

    Raises:
        UnknownForm: it is no event, not canonical, or not of the vocabulary.
    """
    event = _read_usual(entry)
    if event is None:
        event = _read(entry)
        if event.get("k") not in _KINDS:
            raise UnknownForm("is of a kind or version that this program does not know")
        if (wrong := _misshapen(event)) is not None:
            raise UnknownForm(wrong)
    if (wrong := fault(event)) is not None:
        raise UnknownForm(wrong)
    if not is_day(event["occurred_at"][:10]):
        raise UnknownForm("is of a day that does not exist")
    return event


def read_opening(entry: bytes) -> Members:
    """
    The members of the first entry of a further incarnation.

    Raises:
        UnknownForm: it is none.
    """
    members = _read(entry)
    texts = [members.get(name) for name in ("opened_at", "previous_checkpoint", "reason")]
    if members.get("k") != EPOCH_KIND or members.keys() != _OPENING or not all(isinstance(t, str) for t in texts):
        raise UnknownForm("is not the opening of an incarnation")
    if not is_moment(members["opened_at"]) or not isinstance(members["removed"], bool):
        raise UnknownForm("is not the opening of an incarnation")
    return members


def _read_usual(entry: bytes) -> Members | None:
    """
    The members, if the entry has just the spelling that canonical JSON gives to an event; `None`: look closer.

    One expression for the whole entry: parsing it, writing it again and comparing takes three times as long, and an
    auditor has a hundred million of them.
    """
    try:
        found = _USUAL(entry.decode())
    except UnicodeDecodeError:
        return None
    if found is None:
        return None
    members: Members = found.groupdict()
    if members["family_seq"] is not None:
        members["family_seq"] = int(members["family_seq"])
    if members["generation"] is not None:
        members["generation"] = int(members["generation"])
    members["detail"] = {} if members["detail"] == "{}" else _read(members["detail"].encode())
    return members


def _read(entry: bytes) -> Members:
    try:
        members: Members = _DECODE(entry.decode())
        canonical = _ENCODE(members).encode() == entry
    except (ValueError, RecursionError):
        raise UnknownForm("is not JSON that could be written here") from None
    if not canonical or not isinstance(members, dict):
        raise UnknownForm("is not in canonical form")
    return members


def _refuse(_: str) -> NoReturn:
    raise ValueError("not an integer")


_DECODE: Final = json.JSONDecoder(parse_float=_refuse, parse_constant=_refuse).decode
_ENCODE: Final = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def _misshapen(event: Members) -> str | None:
    """What is wrong with the form of an entry's members, or `None`."""
    if event.keys() != _MEMBERS:
        return "has other members than an event"
    if not all(isinstance(event[name], str) for name in _STRINGS) or not isinstance(event["reason"], str | None):
        return "has a member of another type"
    if not (_UUID(event["id"]) and _UUID(event["subject_id"]) and is_moment(event["occurred_at"])):
        return "has an id or a time in another form"
    for name in ("actor_id", "family_id", "request_id"):
        value = event[name]
        if value is not None and not (isinstance(value, str) and _UUID(value)):
            return "has an id in another form"
    for name in ("family_seq", "generation"):
        value = event[name]
        if value is not None and (type(value) is not int or abs(value) > _INTEGER_LIMIT):
            return "has a number in another form"
    commitment, detail = event["commitment"], event["detail"]
    if not (commitment is None or (isinstance(commitment, str) and _COMMITMENT(commitment))):
        return "has a commitment in another form"
    if not isinstance(detail, dict):
        return "has a detail in another form"
    return None
