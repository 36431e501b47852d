"""Bulk ends of sessions: what is ordered, how far it has come, and the form in which it is written down."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from ipaddress import ip_network
from typing import Any, Final
from uuid import UUID

from app.domain.canonical_json import JsonValue, encode
from app.domain.errors import FingerprintExpired, FingerprintRefused, InputInvalid, StoredStateInvalid
from app.domain.families import EndReason, SessionState
from app.domain.session_filters import AddressScope, SessionFilter
from app.domain.users import Role

WHY_CHARACTERS: Final = range(3, 201)
DRY_RUN_LIFETIME: Final = timedelta(minutes=10)
# A sign-in that began before the cut has ended by then, one way or the other: each of its statements has a deadline.
SETTLE_AT_MOST: Final = timedelta(seconds=60)
SAMPLE: Final = 10

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_LATEST: Final = 253_402_300_799_999_999  # the last microsecond of the year 9999
_NUMBER_BYTES: Final = 8
_FIRST_UUIDV7_RANDOM: Final = 0x7000_8000_0000_0000_0000


class RevocationState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Order:
    """
    Which sessions a bulk end is for.

    Args:
        issued_before: Instead of a filter: everything that is older, after a restore.
    """

    wanted: SessionFilter
    issued_before: datetime | None = None

    def __post_init__(self) -> None:
        """
        Raises:
            InputInvalid: both a filter and a moment.
        """
        if self.issued_before is not None and self.wanted != SessionFilter():
            raise InputInvalid(
                "issued_before ends everything that is older: give it without other filters.", field="issued_before"
            )

    @property
    def end_reason(self) -> EndReason:
        return EndReason.BULK_ADMIN if self.issued_before is None else EndReason.RESTORE

    def described(self, digest: Callable[[str], str]) -> dict[str, JsonValue]:
        """As `SessionFilter.described`."""
        if self.issued_before is not None:
            return {"issued_before": self.issued_before.isoformat()}
        return self.wanted.described(digest)

    def text(self) -> str:
        """The one spelling: equal for equal orders only. Holds what was asked, addresses too."""
        return encode(self.described(str))


@dataclass(frozen=True, slots=True)
class Revocation:
    """
    A bulk end.

    Args:
        shown: The order, with addresses and names as keyed hashes.
        cut: Sessions created later live.
        requested_by: `None`: the command line.
        spared: The session of whoever ordered it, which stays.
        expected: How many matched when it was ordered.
        ended: Sessions that this has ended.
        looked_at: Live sessions that it has walked past, those left alone too.
    """

    id: UUID
    state: RevocationState
    shown: Mapping[str, Any]
    cut: datetime
    end_reason: EndReason
    why: str
    requested_by: UUID | None
    spared: UUID | None
    expected: int
    ended: int
    looked_at: int
    created_at: datetime
    started_at: datetime | None
    worked_at: datetime | None
    finished_at: datetime | None

    @property
    def is_open(self) -> bool:
        return self.state in {RevocationState.QUEUED, RevocationState.RUNNING}


def read_order(text: str) -> Order:
    """
    The order that `Order.text` wrote.

    Raises:
        StoredStateInvalid: it did not.
    """
    try:
        members = json.loads(text)
        if "issued_before" in members:
            return Order(SessionFilter(), datetime.fromisoformat(members["issued_before"]))
        return Order(SessionFilter(**{name: _READERS[name](value) for name, value in members.items()}))
    except (ValueError, KeyError, TypeError, InputInvalid):
        raise StoredStateInvalid(why="filter of a revocation") from None


_READERS: Final[dict[str, Callable[[str], Any]]] = {
    "state": SessionState,
    "user_id": UUID,
    "username": str,
    "username_prefix": str,
    "client_id": str,
    "role": Role,
    "network": ip_network,
    "scope": AddressScope,
    "device": str,
    "browser": str,
    "os": str,
    "created_from": datetime.fromisoformat,
    "created_to": datetime.fromisoformat,
    "last_used_from": datetime.fromisoformat,
    "last_used_to": datetime.fromisoformat,
    "end_reason": EndReason,
    "ended_by": UUID,
}


def id_before(at: datetime) -> UUID:
    """The smallest UUIDv7 of a moment: ids made at it or later are not smaller."""
    return UUID(int=((at - _EPOCH) // timedelta(milliseconds=1) << 80) | _FIRST_UUIDV7_RANDOM)


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a fingerprint vouches for besides filter and caller: the moment that was looked at, and the finding."""

    cut: datetime
    count: int

    def packed(self) -> bytes:
        micros = (self.cut - _EPOCH) // _MICROSECOND
        return micros.to_bytes(_NUMBER_BYTES) + self.count.to_bytes(_NUMBER_BYTES)

    def signed_message(self, order: Order, caller: UUID) -> bytes:
        return self.packed() + caller.bytes + order.text().encode()

    def check_age(self, now: datetime) -> None:
        """
        Raises:
            FingerprintExpired: older than `DRY_RUN_LIFETIME`.
        """
        if now - self.cut > DRY_RUN_LIFETIME:
            raise FingerprintExpired


def unpack_dry_run(raw: bytes) -> tuple[DryRun, bytes]:
    """
    A dry run, and the tag that vouches for it; nothing is believed before that is checked.

    Raises:
        FingerprintRefused: not of this form.
    """
    packed, tag = raw[: 2 * _NUMBER_BYTES], raw[2 * _NUMBER_BYTES :]
    micros = int.from_bytes(packed[:_NUMBER_BYTES])
    if not tag or micros > _LATEST:
        raise FingerprintRefused(why="form")
    return DryRun(_EPOCH + micros * _MICROSECOND, int.from_bytes(packed[_NUMBER_BYTES:])), tag
