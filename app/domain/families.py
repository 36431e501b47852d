"""A session is its refresh-token family: its states, and what each presented token means."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from app.domain.clients import IpAddress, same_network
from app.domain.users import Role

FIRST_PARTY_CLIENT: Final = "first-party"  # the client of our own sign-in routes
LABEL_CHARACTERS: Final = 100

FAST_FORWARD_LIMIT: Final = 2  # generations a failover may have lost; a longer lead is a restored old copy
RIDE_ALONG_GENERATIONS: Final = 3


class EndReason(StrEnum):
    """Why a session is over. The list is closed; the table repeats it as a CHECK."""

    LOGOUT = "logout"
    LOGOUT_ALL = "logout_all"
    ADMIN = "admin"
    BULK_ADMIN = "bulk_admin"
    REUSE = "reuse"
    PASSWORD_CHANGE = "password_change"  # noqa: S105 - a reason, not a password
    USER_DISABLED = "user_disabled"
    ROLE_CHANGE = "role_change"
    RESTORE = "restore"
    EVICTED = "evicted"
    IDLE_TIMEOUT = "idle_timeout"
    ABSOLUTE_TIMEOUT = "absolute_timeout"
    OAUTH_REVOCATION = "oauth_revocation"


class SessionState(StrEnum):
    ACTIVE = "active"
    LAPSED = "lapsed"  # past an expiry; the job has not written the end yet
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """The settings that govern a family's time."""

    access: timedelta
    idle: timedelta
    session: timedelta
    grace: timedelta
    retry: timedelta


@dataclass(frozen=True, slots=True)
class Family:
    """One row of `families`, but for the seed (see `Grant`)."""

    user_id: UUID
    id: UUID
    generation: int
    event_seq: int
    client_id: str
    scope: str
    role: Role
    authenticated_at: datetime
    amr: str
    acr: str | None
    created_at: datetime
    rotated_at: datetime | None
    idle_expires_at: datetime
    expires_at: datetime
    ended_at: datetime | None
    end_reason: EndReason | None
    ended_by: UUID | None
    attempt: bytes | None
    replayed_generation: int | None
    ride_along_generation: int | None
    ride_along_count: int
    created_ip: IpAddress | None
    last_ip: IpAddress | None
    user_agent: str | None
    device: str | None
    browser: str | None
    os: str | None
    label: str | None

    def expiry(self, now: datetime) -> EndReason | None:
        """Which limit has passed at `now`, the absolute one first. The limit itself is already past."""
        if now >= self.expires_at:
            return EndReason.ABSOLUTE_TIMEOUT
        if now >= self.idle_expires_at:
            return EndReason.IDLE_TIMEOUT
        return None

    def state(self, now: datetime) -> SessionState:
        """Expiry is a fact at read time, whether or not the job has come by."""
        if self.ended_at is not None:
            return SessionState.ENDED
        return SessionState.LAPSED if self.expiry(now) else SessionState.ACTIVE


@dataclass(frozen=True, slots=True)
class Grant:
    """What a pair of tokens is made of: the part of a family that rotation returns."""

    now: datetime
    user_id: UUID
    family_id: UUID
    generation: int
    seed: bytes
    client_id: str
    scope: str
    role: Role
    authenticated_at: datetime
    amr: str
    acr: str | None
    idle_expires_at: datetime
    expires_at: datetime


# What to do with a presented token whose proof is right. One class each, so that a `match` must name them all.


@dataclass(frozen=True, slots=True)
class Refuse:
    """The family has ended."""


@dataclass(frozen=True, slots=True)
class Lapse:
    """The family is past an expiry: write its end."""

    reason: EndReason


@dataclass(frozen=True, slots=True)
class TryAgain:
    """The token is live after all: somebody was between the statement and the look."""


@dataclass(frozen=True, slots=True)
class Replay:
    """A harmless second presentation: the same successor again."""

    by_key: bool  # the retry window held, not the grace


@dataclass(frozen=True, slots=True)
class Reuse:
    """A spent token: somebody has a copy."""


@dataclass(frozen=True, slots=True)
class FastForward:
    """The database lost its tail; the token proves the generations that are missing."""

    lost: int


@dataclass(frozen=True, slots=True)
class Misdirected:
    """The family is another client's: refused, and it lives on."""


@dataclass(frozen=True, slots=True)
class Widened:
    """More is asked for than was granted: nothing is spent."""


@dataclass(frozen=True, slots=True)
class Restored:
    """The token is further ahead than a failover explains: this is an old copy of the database."""

    ahead: int


RefreshDecision = Refuse | Lapse | TryAgain | Replay | Reuse | FastForward | Restored | Misdirected | Widened


def decide_refresh(
    family: Family,
    *,
    presented: int,
    attempt: bytes | None,
    now: datetime,
    lifetimes: Lifetimes,
    client_id: str = FIRST_PARTY_CLIENT,
    scope: tuple[str, ...] = (),
) -> RefreshDecision:
    """
    What a token with a right proof means for the family as locked.

    Args:
        presented: The token's generation.
        attempt: Keyed digest of this request's `Idempotency-Key` for that generation, if one was sent.
        now: The database's time, read after the lock was won.
        client_id: Who presents it. A family says nothing to another client, not even that it is over, and no other
            client can end it.
        scope: What is asked for. A token that would be refused is refused whatever is asked for: reuse is noticed.
    Source: RFC 9700 section 4.14.2 (rotation and reuse), RFC 6749 section 6 (client and scope).
    """
    if family.client_id != client_id:
        return Misdirected()
    if family.ended_at is not None:
        return Refuse()
    if (expired := family.expiry(now)) is not None:
        return Lapse(expired)
    ahead = presented - family.generation
    if ahead > FAST_FORWARD_LIMIT:
        return Restored(ahead)
    wide = not set(scope) <= set(family.scope.split())
    if ahead == 0:
        return Widened() if wide else TryAgain()
    if ahead > 0:
        return Widened() if wide else FastForward(ahead)
    if ahead == -1 and family.rotated_at is not None:
        age = now - family.rotated_at
        if age < lifetimes.grace:
            return Widened() if wide else Replay(by_key=False)
        # The family's own attempt first: without one, no key of anybody's matches.
        if family.attempt is not None and attempt == family.attempt and age < lifetimes.retry:
            return Widened() if wide else Replay(by_key=True)
    return Reuse()


@dataclass(frozen=True, slots=True)
class ReplayMark:
    """What a replay leaves on the family row: at most one event a generation, and the count of strangers' rides."""

    log_replay: bool
    ride_along_generation: int | None
    ride_along_count: int
    suspected: bool

    def changes(self, family: "Family") -> bool:
        """Whether there is anything to write; a storm of retries need not write the row each time."""
        return self.log_replay or self.suspected or self.ride_along_generation != family.ride_along_generation


def mark_replay(family: Family, ip: IpAddress | None) -> ReplayMark:
    """
    Note a replay of the family's newest rotation.

    A thief who presents every token within the grace window of its owner shows as replays from another network than
    the rotation's in generation after generation; the third in a row raises the suspicion, and every third after it.
    """
    live = family.generation
    log_replay = family.replayed_generation != live
    stranger = not same_network(ip, family.last_ip)
    if not stranger or family.ride_along_generation == live:
        return ReplayMark(log_replay, family.ride_along_generation, family.ride_along_count, suspected=False)
    running = family.ride_along_generation == live - 1
    count = family.ride_along_count + 1 if running else 1
    return ReplayMark(log_replay, live, count, suspected=count % RIDE_ALONG_GENERATIONS == 0)
