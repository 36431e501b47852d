"""What became of a session, told from its row and its events: generation by generation, and in one sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from app.domain.clients import IpAddress
from app.domain.events import Action, ActorKind
from app.domain.families import EndReason, Family, SessionState
from app.domain.revocations import Revocation

_BEGINNINGS: Final = {
    Action.SESSION_CREATED: "sign_in",
    Action.SESSION_REFRESHED: "rotation",
    Action.SESSION_FAST_FORWARDED: "fast_forward",
}


@dataclass(frozen=True, slots=True)
class Told:
    """An event of a session's life, as far as its story needs it."""

    id: UUID
    at: datetime
    action: str
    reason: str | None
    actor_kind: str
    actor_id: UUID | None
    family_seq: int | None
    generation: int | None
    ip: IpAddress | None
    user_agent: str | None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Generation:
    """
    One generation of a family: how it began, and what happened while it was live.

    Args:
        how: `sign_in`, `rotation` or `fast_forward`; `None`: its beginning is not among the events.
    """

    number: int
    how: str | None
    began: Told | None
    replays: tuple[Told, ...]
    others: tuple[Told, ...]  # labels, and the suspicion that somebody rides along


@dataclass(frozen=True, slots=True)
class Reuse:
    """
    Two presentations of one token: somebody has a copy. Which of the two is the owner's is not said by the order.

    Args:
        spent: The rotation in which it was spent; `None`: its event was not found.
        presented: Its presentation afterwards, with which the session ended.
    """

    spent: Told | None
    presented: Told


def by_generation(events: Sequence[Told]) -> list[Generation]:
    """The generations in a stretch of a session's events, newest first. Reuse and end are not of any generation."""
    numbers: dict[int, list[Told]] = {}
    for event in sorted(events, key=lambda event: (event.at, event.family_seq or 0)):
        if event.action not in {Action.SESSION_ENDED, Action.REFRESH_REUSED} and event.generation is not None:
            numbers.setdefault(event.generation, []).append(event)
    return [_generation(number, numbers[number]) for number in sorted(numbers, reverse=True)]


def _generation(number: int, events: Sequence[Told]) -> Generation:
    began = next((event for event in events if event.action in _BEGINNINGS), None)
    return Generation(
        number=number,
        how=_BEGINNINGS[Action(began.action)] if began else None,
        began=began,
        replays=tuple(event for event in events if event.action == Action.SESSION_REPLAYED),
        others=tuple(
            event for event in events if event.action not in _BEGINNINGS and event.action != Action.SESSION_REPLAYED
        ),
    )


@dataclass(frozen=True, slots=True)
class Facts:
    """
    What an explanation is made of.

    Args:
        names: Of the user, and of whoever ended it; as they are today.
        end: The event of the end, if there is one and the trail still has it.
        bulk: The bulk end with which it ended.
    """

    family: Family
    now: datetime
    names: Mapping[UUID, str]
    end: Told | None
    reuse: Reuse | None
    bulk: Revocation | None = None


def explain(facts: Facts) -> str:
    """Why the session is over, or until when it lives: one sentence."""
    family, user = facts.family, facts.names.get(facts.family.user_id, "an unknown user")
    since = f"which began at {_time(family.created_at)}{_from(family.created_ip)}"
    match family.state(facts.now):
        case SessionState.ACTIVE:
            first, last = sorted((family.idle_expires_at, family.expires_at))
            used = f"was last refreshed at {_time(family.rotated_at)}" if family.rotated_at else "was never refreshed"
            limits = (
                f"it is over at {_time(first)} whatever happens"
                if first == last
                else f"it is over at {_time(first)} unless it is refreshed before, and at {_time(last)} in any case"
            )
            return f"The session of {user}, {since}, is alive: it {used}, and {limits}."
        case SessionState.LAPSED:
            return f"The session of {user}, {since}, is over: {_lapse(family, facts.now)}; its end is not written yet."
        case SessionState.ENDED:
            return f"The session of {user}, {since}, is over since {_time(_over_at(family))}: {_why(facts)}."


def _over_at(family: Family) -> datetime:
    """When it was over: a limit counts from when it passed, not from when that was written."""
    ended_at = family.ended_at or family.expires_at
    if family.end_reason is EndReason.IDLE_TIMEOUT:
        return min(family.idle_expires_at, ended_at)
    return min(family.expires_at, ended_at) if family.end_reason is EndReason.ABSOLUTE_TIMEOUT else ended_at


def _lapse(family: Family, now: datetime) -> str:
    if family.expiry(now) is EndReason.ABSOLUTE_TIMEOUT:
        return f"it reached the longest time that it might live at {_time(family.expires_at)}"
    last = family.rotated_at or family.created_at
    used = "last refreshed" if family.rotated_at else "never refreshed; it began"
    return (
        f"it was not refreshed in time ({used} at {_time(last)}, the limit passed at {_time(family.idle_expires_at)})"
    )


# Who did it, and where they were.
_ACTS: Final[Mapping[EndReason, str]] = {
    EndReason.LOGOUT: "{who} signed out of it{where}",
    EndReason.LOGOUT_ALL: "{who} ended all their other sessions{where}",
    EndReason.ADMIN: "{who} ended it{where}",
    EndReason.BULK_ADMIN: "{who} ended it together with others{where}",
    EndReason.PASSWORD_CHANGE: "the password was changed by {who}{where}, which ended all other sessions",
    EndReason.USER_DISABLED: "the user was disabled or removed by {who}{where}",
    EndReason.ROLE_CHANGE: "the user was given another role by {who}{where}",
    EndReason.EVICTED: "the user signed in once more{where} and had too many sessions, of which this was the oldest",
    EndReason.OAUTH_REVOCATION: "{who} revoked it (RFC 7009){where}",
    EndReason.RESTORE: "a token of it{where} was further ahead than the database, which is therefore an older copy: "
    "what happened to the session meanwhile is not known",
}


def _why(facts: Facts) -> str:
    family, reason = facts.family, facts.family.end_reason
    if reason is EndReason.REUSE:
        return _reuse(facts.reuse)
    if reason in {EndReason.IDLE_TIMEOUT, EndReason.ABSOLUTE_TIMEOUT}:
        at = family.expires_at if reason is EndReason.ABSOLUTE_TIMEOUT else family.idle_expires_at
        return f"{_lapse(family, at)}, which was written down at {_time(family.ended_at)}"
    if facts.bulk is not None:
        return _in_bulk(facts, facts.bulk)
    where = f"{_from(facts.end.ip)}{_with(facts.end)}" if facts.end else ""
    return _ACTS[reason].format(who=_who(facts), where=where) if reason else "the reason is not known"


def _in_bulk(facts: Facts, bulk: Revocation) -> str:
    """With which others, and what whoever ordered it has said of it."""
    before = bulk.shown.get("issued_before")
    which = (
        "together with others"
        if before is None
        else f"with all that began before {_time(datetime.fromisoformat(before))}, after a restore"
    )
    return f"{_who(facts)} ended it {which} (bulk end {bulk.id}: {' '.join(bulk.why.split())})"


def _reuse(reuse: Reuse | None) -> str:
    """Both presenters, as far as the trail has them."""
    words = "a spent refresh token was presented again, so somebody has a copy"
    if reuse is None:
        return f"{words} (the trail does not have the event any more)"
    spent = (
        f"spent at {_time(reuse.spent.at)}{_from(reuse.spent.ip)}{_with(reuse.spent)}"
        if reuse.spent
        else "spent before; the event of that is not in the trail"
    )
    presented = f"presented again at {_time(reuse.presented.at)}{_from(reuse.presented.ip)}{_with(reuse.presented)}"
    return f"{words} (the token of generation {reuse.presented.generation} was {spent}, and {presented})"


def _who(facts: Facts) -> str:
    """Who ended it: as its event says, or else as far as the row does."""
    family, end = facts.family, facts.end
    kind = end.actor_kind if end else ActorKind.USER if family.ended_by == family.user_id else None
    actor = end.actor_id if end else family.ended_by
    name = facts.names.get(actor) if actor else None
    match kind:
        case ActorKind.USER:
            return "the user"
        case ActorKind.ADMIN:
            return f"the administrator {name or actor or '(not known)'}"
        case ActorKind.CLIENT:
            return f"the client {actor or family.client_id}"
        case ActorKind.SYSTEM:
            return "an operator on the command line"
        case ActorKind.ANONYMOUS:
            return "somebody who presented a token"
    return name or (str(actor) if actor else "the server, or an operator on the command line")


def _from(ip: IpAddress | None) -> str:
    return f" from {ip}" if ip else ""


def _with(event: Told) -> str:
    return f" with {event.user_agent}" if event.user_agent else ""


def _time(at: datetime | None) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if at else "a time not known"
