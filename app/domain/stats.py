"""Numbers over time: the range that is asked for, and what an answer holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from app.domain.errors import InputInvalid

SOURCES_DAYS: Final = 400  # addresses and agents of failures are counted no longer than the longest range

_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(9999, 1, 1, tzinfo=UTC)


class Width(StrEnum):
    """Of a bucket. Hours and days are of UTC."""

    HOUR = "hour"
    DAY = "day"


LENGTH: Final = {Width.HOUR: timedelta(hours=1), Width.DAY: timedelta(days=1)}
MOST: Final = {Width.HOUR: timedelta(days=31), Width.DAY: timedelta(days=400)}
USUAL: Final = {Width.HOUR: timedelta(hours=24), Width.DAY: timedelta(days=30)}


@dataclass(frozen=True, slots=True)
class Span:
    """Whole buckets, one after the other: from `since` to, and without, `until`."""

    since: datetime
    until: datetime
    width: Width

    def starts(self) -> list[datetime]:
        """When each bucket begins."""
        length = LENGTH[self.width]
        return [self.since + number * length for number in range((self.until - self.since) // length)]

    def pieces(self) -> list[tuple[Width, datetime]]:
        """The fewest hours and days that make up the range: whole days, and hours at its edges."""
        hour, day = LENGTH[Width.HOUR], LENGTH[Width.DAY]
        at, found = self.since, []
        while at < self.until:
            width = Width.DAY if at == floor(at, Width.DAY) and at + day <= self.until else Width.HOUR
            found.append((width, at))
            at += day if width is Width.DAY else hour
        return found


def floor(at: datetime, width: Width) -> datetime:
    """When the bucket begins that a moment is in."""
    at = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return at if width is Width.HOUR else at.replace(hour=0)


def read_span(since: datetime | None, until: datetime | None, width: Width, *, now: datetime) -> Span:
    """
    The buckets that hold any moment between two; by default up to now, of the last 24 hours or 30 days.

    Raises:
        InputInvalid: out of order, before 1970, or too long; the message begins with the parameter's name.
    """
    for name, at in (("from", since), ("to", until)):
        if at is not None and not _FIRST <= at <= _LAST:
            raise InputInvalid(f"{name} must be between the years 1970 and 9999.", field=name)
    if since is not None and until is None and since > now:
        raise InputInvalid("from must not be in the future without a to.", field="from")
    end = now if until is None else until
    first = floor(max(end - USUAL[width], _FIRST) + LENGTH[width] if since is None else since, width)
    if since is not None and since > end:
        raise InputInvalid("from must not be after to.", field="from")
    last = max(floor(end, width), first) + LENGTH[width]
    if last - first > MOST[width] + LENGTH[width]:
        days = MOST[width].days
        raise InputInvalid(f"from must be at most {days} days before to, where bucket is {width}.", field="from")
    return Span(first, last, width)


@dataclass(frozen=True, slots=True)
class Active:
    """
    Sessions that are alive, and whose they are.

    Args:
        as_of: All that had happened by then is counted.
        lapsed: Past a limit, their ends not written yet, and not counted as alive.
        is_exact: Whether there can be no further lapsed ones among those counted; if not, the numbers are upper bounds.
        ends_written_until: Whatever lapsed before then has its end written; `None`: the job has never been through.
    """

    as_of: datetime
    sessions: int
    users: int
    lapsed: int
    is_exact: bool
    ends_written_until: datetime | None


@dataclass(frozen=True, slots=True)
class Counts:
    """What happened in one bucket, or in all of them. `failures` includes reuse and sums up `failures_by_action`."""

    sign_ins: int
    refreshes: int
    failures: int
    reuse_detections: int
    failures_by_action: Mapping[str, int]
    ends: Mapping[str, int]  # by reason


@dataclass(frozen=True, slots=True)
class Top:
    """Where most failures came from; `is_exact`: no other can have had more."""

    items: list[tuple[str, int]]
    is_exact: bool


@dataclass(frozen=True, slots=True)
class Numbers:
    """
    One answer, all of one moment.

    Args:
        waiting: Events that have happened and are not counted yet, up to `waiting_limit`.
        sources_since: Addresses and agents of failures before then are not kept.
    """

    as_of: datetime
    waiting: int
    active: Active
    span: Span
    buckets: list[tuple[datetime, Counts]]
    totals: Counts
    addresses: Top
    agents: Top
    sources_since: datetime
