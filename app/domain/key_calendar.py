"""The calendar of keys: which secret mints, which only verify, which key signs, and who still depends on what."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from app.domain.families import Lifetimes


class SecretState(StrEnum):
    MINTS = "mints"  # the first: all new tokens are made with it
    WAITING = "waiting"  # verifies, and no server has minted with it yet
    FORMER = "former"  # verifies, and servers have minted with it before
    VERIFIES = "verifies"  # one of the two; without the trail it cannot be told which


class KeyState(StrEnum):
    SIGNS = "signs"
    NEXT = "next"  # signs when its period begins
    PUBLISHED = "published"  # of a secret that does not mint: verifiers have it, nobody signs with it
    PAST = "past"  # its period is over; still published


@dataclass(frozen=True, slots=True)
class SecretLine:
    """
    A secret by its id.

    Args:
        listed_since: The first start of a server that knew it, as far as the trail goes back.
        minted_since: The first start with it at the front since the last start with another one there.
        clients: API clients whose secrets are hashed under it; `None`: not counted.
    """

    id: str
    state: SecretState
    listed_since: datetime | None
    minted_since: datetime | None
    clients: int | None


@dataclass(frozen=True, slots=True)
class KeyLine:
    """`needed_until`: when the last token signed with it has expired; `None`: that is open, or it has signed none."""

    secret: str
    kid: str
    starts_at: datetime
    ends_at: datetime
    state: KeyState
    published_until: datetime
    needed_until: datetime | None


@dataclass(frozen=True, slots=True)
class Depending:
    """
    What still depends on former secrets, all of them together: a session does not say which one its token is of.

    Args:
        since: Every process mints with the first secret since then.
        sessions: Live ones that were not refreshed since; `None`: counting took too long.
        password_tokens: Set-password tokens made before.
        then_wait: Once there are none: the time in which a client that lost the answer to its last refresh may present
            the former token again, and in which access tokens signed before expire.
        until: By then nothing depends on them, whatever happens.
    """

    since: datetime
    sessions: int | None
    password_tokens: int
    then_wait: timedelta
    until: datetime


@dataclass(frozen=True, slots=True)
class Calendar:
    """`missing`: sentences on what is not as it must be. `unseen`: why the database did not take part."""

    now: datetime
    unseen: str | None
    secrets: tuple[SecretLine, ...]
    keys: tuple[KeyLine, ...]
    depending: Depending | None
    missing: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Start:
    """A start of a server: which secrets it knew, the minting one first."""

    at: datetime
    key_ids: tuple[str, ...]


def state_of(key_id: str, *, first: bool, starts: Sequence[Start]) -> SecretState:
    """What a listed secret is for. `starts`: the newest first; none: the trail does not tell."""
    if first:
        return SecretState.MINTS
    if not starts:
        return SecretState.VERIFIES
    return SecretState.FORMER if any(start.key_ids[:1] == (key_id,) for start in starts) else SecretState.WAITING


def minted_since(key_id: str, starts: Sequence[Start]) -> datetime | None:
    """The first start with the secret at the front after the last one with another there; `None`: there is none."""
    found = None
    for start in starts:
        if start.key_ids[:1] != (key_id,):
            break
        found = start.at
    return found


def listed_since(key_id: str, starts: Sequence[Start]) -> datetime | None:
    return min((start.at for start in starts if key_id in start.key_ids), default=None)


def state_of_key(now: datetime, starts_at: datetime, ends_at: datetime, *, mints: bool) -> KeyState:
    if ends_at <= now:
        return KeyState.PAST
    if not mints:
        return KeyState.PUBLISHED
    return KeyState.SIGNS if starts_at <= now else KeyState.NEXT


def pause_of(lifetimes: Lifetimes) -> timedelta:
    """How long a token may be presented after the one that succeeds it was made; see `Depending`."""
    return max(lifetimes.grace, lifetimes.retry, lifetimes.access)


def longest_dependence(since: datetime, lifetimes: Lifetimes, password_token: timedelta) -> datetime:
    """Whoever has not refreshed within the idle limit is signed out anyhow, so nothing older than this is in use."""
    return since + max(min(lifetimes.idle, lifetimes.session), password_token) + pause_of(lifetimes)


def missing_of(listed: Sequence[str], starts: Sequence[Start], client_ids: Collection[str]) -> list[str]:
    """What the trail and the tables name, and this environment does not have."""
    said = []
    if starts and (lost := [key_id for key_id in starts[0].key_ids if key_id not in listed]):
        said.append(
            f"The server that started last, at {starts[0].at:%Y-%m-%d %H:%M:%S} UTC, knew the secret "
            f"{', '.join(lost)}, which is not listed here."
        )
    if starts and (new := [key_id for key_id in listed if key_id not in starts[0].key_ids]):
        said.append(
            f"The secret {', '.join(new)} is listed here, and the server that started last, at "
            f"{starts[0].at:%Y-%m-%d %H:%M:%S} UTC, did not know it: restart the servers with this environment."
        )
    if unknown := sorted(set(client_ids) - set(listed)):
        said.append(
            f"Secrets of API clients are hashed under {', '.join(unknown)}, which is not listed: those clients cannot "
            "authenticate until it is, or until they get new secrets."
        )
    return said
