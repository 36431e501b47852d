"""
How guessing is slowed down: pure decisions on what is counted.

Two kinds of counts. Failures in a row, of an account by each way in which its password can be guessed: some are free,
then each costs a delay that doubles, and there is a last one. And rates, of an address and of all together: a bucket
that failures empty and time fills again (GCRA, the leaky bucket as one time).

A guess is counted before the password is looked at, and taken back when it was right.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from app.domain.clients import ALIKE_FAILURES

DELAY_MAXIMUM: Final = timedelta(minutes=15)
DECAY: Final = timedelta(hours=24)  # without a failure, after which all is forgotten
NOTICEABLE: Final = 5  # failures in a row before a success of which the owner is told

FIRST_DELAY: Final = timedelta(seconds=1)
# A statement waits two seconds for a row, at most, and so much may what it finds be ahead of its beginning. What is
# further ahead than the longest wait and this was written under a clock that was wrong, and holds nobody up.
SLACK: Final = timedelta(seconds=3)


class Way(StrEnum):
    """How a password can be guessed. Each way counts for itself, so that none shuts the others out."""

    PASSWORD = "password"  # noqa: S105 - a sign-in of an unknown device
    DEVICE = "device"  # a sign-in of a device that signed in before
    SESSION = "session"  # a change of the password, from within a session


class Limited(StrEnum):
    """Which limit a guess met; the values are reasons of the trail."""

    ACCOUNT = "account_limit"
    DEVICE = "device_limit"
    SESSION = "session_limit"
    ADDRESS = "address_limit"
    EVERYWHERE = "global_limit"


def told_one_by_one(reason: str) -> int:
    """How many failures of a minute that are alike get an event each; the rest are summed."""
    return 1 if reason == Limited.EVERYWHERE else ALIKE_FAILURES


@dataclass(frozen=True, slots=True)
class InARow:
    """
    A limit of failures in a row.

    Args:
        free: So many cost nothing; the one after them is delayed.
        together: So many may be looked at at once; then each waits for the delay of the one before.
        most: Beyond that no more are looked at until the count decays or is cleared.
    """

    free: int
    together: int
    most: int

    def delay(self, failures: int) -> timedelta:
        """After so many failures, before the next guess: 1, 2, 4 seconds and so on up to a quarter of an hour."""
        if failures < self.free:
            return timedelta(0)
        return min(FIRST_DELAY * (1 << min(failures - self.free, 16)), DELAY_MAXIMUM)


# NIST SP 800-63B-4 section 3.2.2: at most 100 failures in a row on an account. 60 by unknown devices, 20 by known ones
# together, 10 by sessions together. What remains is for the first guess of a known device, which is counted when it has
# failed: one in each serving process at a time.
ACCOUNT: Final = InARow(free=10, together=50, most=60)
DEVICE: Final = InARow(free=5, together=10, most=10)
SESSION: Final = InARow(free=3, together=3, most=5)
DEVICES: Final = InARow(free=20, together=20, most=20)  # of a user; a stolen one does not use up those of the others
SESSIONS: Final = InARow(free=10, together=10, most=10)
LIMIT_OF_ALL_WAYS: Final = ACCOUNT.most + DEVICES.most + SESSIONS.most


@dataclass(frozen=True, slots=True)
class Tally:
    """
    What is counted by one row.

    Args:
        account: Keyed digest of the name.
        holder: Keyed digest of a device or session; empty: of all of them together.
    """

    account: bytes
    way: Way
    holder: bytes
    limit: InARow


@dataclass(frozen=True, slots=True)
class Counted:
    """Failures in a row, with the guesses that are being looked at now."""

    failures: int
    blocked_until: datetime | None
    last_failure_at: datetime

    def is_stale(self, now: datetime) -> bool:
        """Whether it has decayed. A time far ahead is of a clock that was wrong, and holds nobody up."""
        return abs(now - self.last_failure_at) >= DECAY


def wait_in_row(counted: Counted | None, limit: InARow, now: datetime) -> timedelta | None:
    """For how long one more guess is refused; `None`: it may be looked at."""
    if counted is None or counted.is_stale(now):
        return None
    if counted.failures >= limit.most:
        return min(counted.last_failure_at + DECAY - now, DECAY)
    if counted.blocked_until is not None and now < counted.blocked_until <= now + DELAY_MAXIMUM + SLACK:
        return counted.blocked_until - now
    return None


@dataclass(frozen=True, slots=True)
class Rate:
    """
    A limit of failures in time.

    Args:
        burst: So many at once, of a bucket that is full.
        step: In which one comes back.
    """

    burst: int
    step: timedelta

    @property
    def window(self) -> timedelta:
        """In which an empty bucket is full again."""
        return self.burst * self.step


# An office behind one address: a hundred people mistype on a Monday, and no more than ten a minute for hours. As many
# at once as wait for their hashes in two or three processes: those being looked at count too.
ADDRESS: Final = Rate(burst=300, step=timedelta(seconds=6))


def everywhere(failures_per_minute: int) -> Rate:
    """The rate of all together: a minute's worth at once."""
    return Rate(failures_per_minute, timedelta(minutes=1) / failures_per_minute)


def wait_for_rate(full_at: datetime | None, rate: Rate, now: datetime) -> timedelta | None:
    """
    For how long one more guess is refused; `None`: it may be looked at.

    Args:
        full_at: When the bucket is full again. Too far ahead it is of a clock that was wrong.
    """
    if full_at is None or full_at <= now or full_at > now + rate.window + SLACK:
        return None
    wait = full_at + rate.step - now - rate.window
    return wait if wait > timedelta(0) else None


def whole_seconds(wait: timedelta) -> int:
    """As `Retry-After` says it: never too early."""
    return max(1, -(-wait // timedelta(seconds=1)))
