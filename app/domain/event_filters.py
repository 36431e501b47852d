"""What can be asked of the trail: a closed list of filters."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final
from uuid import UUID

from app.domain.canonical_json import JsonValue, encode
from app.domain.errors import InputInvalid
from app.domain.events import Action, Outcome

IpNetwork = IPv4Network | IPv6Network

BEFORE_REQUEST: Final = timedelta(seconds=10)  # by which a host's clock may be ahead of the database's
AFTER_REQUEST: Final = timedelta(seconds=40)  # the same the other way, and the longest request

_UUIDV7: Final = 7
_LATEST_MILLISECOND: Final = 253_370_764_800_000  # the beginning of the year 9999: there is room behind it


class Bucket(StrEnum):
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"


@dataclass(frozen=True, slots=True)
class EventFilter:
    """All conditions must hold; those left out do not restrict. `since` and `until` are inclusive."""

    actions: tuple[Action, ...] = ()
    outcome: Outcome | None = None
    actor_id: UUID | None = None
    subject_id: UUID | None = None
    family_id: UUID | None = None
    network: IpNetwork | None = None
    request_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        """
        Raises:
            InputInvalid: the range ends before it begins.
        """
        if self.since and self.until and self.until < self.since:
            raise InputInvalid("to must not be before from.", field="to")

    def described(self, network_digest: str | None) -> dict[str, JsonValue]:
        """For the event of the query: ids as they are, an address only as its keyed hash."""
        members: dict[str, JsonValue] = {
            "action": list(self.actions) or None,
            "outcome": self.outcome,
            "actor": _text(self.actor_id),
            "subject": _text(self.subject_id),
            "session": _text(self.family_id),
            "ip": network_digest,
            "request": _text(self.request_id),
            "from": self.since.isoformat() if self.since else None,
            "to": self.until.isoformat() if self.until else None,
        }
        return {name: value for name, value in members.items() if value is not None}

    def fingerprint(self, order: str) -> bytes:
        """What a cursor is bound to."""
        return encode({**self.described(str(self.network)), "order": order}).encode()


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)


def read_actions(patterns: Sequence[str]) -> tuple[Action, ...]:
    """
    Actions by name, or by the noun they share: `session.*`.

    Raises:
        InputInvalid: no action has that name.
    """
    found: list[Action] = []
    for pattern in patterns:
        noun = pattern.removesuffix("*")
        matching = [
            action for action in Action if (action.startswith(noun) if pattern.endswith(".*") else action == pattern)
        ]
        if not matching:
            raise InputInvalid("action must name an action of the vocabulary, or a noun with .* (session.*).")
        found += [action for action in matching if action not in found]
    return tuple(found)


def read_network(text: str) -> IpNetwork:
    """
    An address or a network in CIDR form.

    Raises:
        InputInvalid: neither.
    """
    try:
        network = ip_network(text, strict=False)
        if "%" not in text:  # a scope (RFC 4007) has a meaning on one host only, and any text may follow it
            return network
    except ValueError:
        pass
    raise InputInvalid("ip must be an address or a network such as 203.0.113.0/24.")


def read_moment(text: str) -> datetime:
    """
    A time in ISO 8601; without an offset it is UTC.

    Raises:
        InputInvalid: not a time.
    """
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InputInvalid("A time must be in ISO 8601, such as 2026-11-23T10:00:00Z.") from None


def time_of(made: UUID) -> datetime | None:
    """The time that an id begins with (RFC 9562, version 7); `None` if that is no time that a row of ours can have."""
    milliseconds = made.int >> 80
    return None if milliseconds > _LATEST_MILLISECOND else datetime.fromtimestamp(milliseconds / 1000, UTC)


def request_window(request_id: UUID) -> tuple[datetime, datetime] | None:
    """When the events of a request can have happened: its id begins with its time. `None`: it is no id of ours."""
    began = time_of(request_id)
    if request_id.version != _UUIDV7 or began is None:
        return None
    return began - BEFORE_REQUEST, began + AFTER_REQUEST
