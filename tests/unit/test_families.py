"""What a presented token means: the whole table."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import pytest
from uuid_utils.compat import uuid7

from app.domain.clients import same_network
from app.domain.families import (
    EndReason,
    Family,
    FastForward,
    Lapse,
    Lifetimes,
    Misdirected,
    RefreshDecision,
    Refuse,
    Replay,
    Restored,
    Reuse,
    SessionState,
    TryAgain,
    Widened,
    decide_refresh,
    mark_replay,
)
from app.domain.users import Role

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
LIMITS = Lifetimes(
    access=timedelta(minutes=15),
    idle=timedelta(days=7),
    session=timedelta(days=30),
    grace=timedelta(seconds=10),
    retry=timedelta(hours=1),
)
MICROSECOND = timedelta(microseconds=1)
HOME, AWAY = ip_address("203.0.113.7"), ip_address("198.51.100.9")

FAMILY = Family(
    user_id=uuid7(),
    id=uuid7(),
    generation=5,
    event_seq=6,
    client_id="first-party",
    scope="",
    role=Role.USER,
    authenticated_at=NOW - timedelta(days=1),
    amr="pwd",
    acr=None,
    created_at=NOW - timedelta(days=1),
    rotated_at=NOW - timedelta(seconds=5),
    idle_expires_at=NOW + timedelta(days=7),
    expires_at=NOW + timedelta(days=29),
    ended_at=None,
    end_reason=None,
    ended_by=None,
    attempt=b"ours",
    replayed_generation=None,
    ride_along_generation=None,
    ride_along_count=0,
    created_ip=HOME,
    last_ip=HOME,
    user_agent=None,
    device=None,
    browser=None,
    os=None,
    label=None,
)


def rotated(age: timedelta, **more: Any) -> Family:
    return replace(FAMILY, rotated_at=NOW - age, **more)


ENDED = replace(FAMILY, ended_at=NOW, end_reason=EndReason.LOGOUT)
CASES = [
    pytest.param(FAMILY, 5, None, TryAgain(), id="live"),
    pytest.param(FAMILY, 4, None, Replay(by_key=False), id="just spent"),
    pytest.param(rotated(LIMITS.grace - MICROSECOND), 4, None, Replay(by_key=False), id="last moment of grace"),
    pytest.param(rotated(LIMITS.grace), 4, None, Reuse(), id="first moment after grace"),
    pytest.param(rotated(LIMITS.grace), 4, b"ours", Replay(by_key=True), id="late with the key of that rotation"),
    pytest.param(rotated(LIMITS.retry - MICROSECOND), 4, b"ours", Replay(by_key=True), id="last moment of retry"),
    pytest.param(rotated(LIMITS.retry), 4, b"ours", Reuse(), id="first moment after retry"),
    pytest.param(rotated(LIMITS.grace), 4, b"theirs", Reuse(), id="late with another key"),
    pytest.param(rotated(LIMITS.grace, attempt=None), 4, None, Reuse(), id="late, neither sent a key"),
    pytest.param(rotated(LIMITS.grace, attempt=None), 4, b"theirs", Reuse(), id="late with a key the rotation had not"),
    pytest.param(FAMILY, 3, None, Reuse(), id="grandparent within grace"),
    pytest.param(FAMILY, 3, b"ours", Reuse(), id="grandparent with the key"),
    pytest.param(FAMILY, 0, None, Reuse(), id="first token"),
    pytest.param(FAMILY, 6, None, FastForward(1), id="one generation lost"),
    pytest.param(FAMILY, 7, None, FastForward(2), id="two generations lost"),
    pytest.param(FAMILY, 8, None, Restored(3), id="three generations lost"),
    pytest.param(ENDED, 5, None, Refuse(), id="ended, live token"),
    pytest.param(ENDED, 4, b"ours", Refuse(), id="ended, replay"),
    pytest.param(ENDED, 0, None, Refuse(), id="ended, reuse"),
    pytest.param(ENDED, 9, None, Refuse(), id="ended, ahead"),
    pytest.param(replace(FAMILY, idle_expires_at=NOW), 5, None, Lapse(EndReason.IDLE_TIMEOUT), id="idle, at the limit"),
    pytest.param(replace(FAMILY, idle_expires_at=NOW + MICROSECOND), 5, None, TryAgain(), id="idle, just before"),
    pytest.param(replace(FAMILY, expires_at=NOW), 5, None, Lapse(EndReason.ABSOLUTE_TIMEOUT), id="absolute"),
    pytest.param(
        replace(FAMILY, idle_expires_at=NOW, expires_at=NOW), 0, None, Lapse(EndReason.ABSOLUTE_TIMEOUT), id="both"
    ),
    pytest.param(replace(FAMILY, idle_expires_at=NOW), 4, b"ours", Lapse(EndReason.IDLE_TIMEOUT), id="idle replay"),
]


@pytest.mark.parametrize(("family", "presented", "attempt", "expected"), CASES)
def test_decision(family: Family, presented: int, attempt: bytes | None, expected: RefreshDecision) -> None:
    """Each row of the table, and each boundary by a microsecond."""
    decided = decide_refresh(family, presented=presented, attempt=attempt, now=NOW, lifetimes=LIMITS)
    assert decided == expected


def test_grace_of_zero_forgives_nothing() -> None:
    """With grace 0, a second presentation in the same microsecond is reuse, unless its key says otherwise."""
    strict = replace(LIMITS, grace=timedelta(0))
    family = rotated(timedelta(0))
    assert decide_refresh(family, presented=4, attempt=None, now=NOW, lifetimes=strict) == Reuse()
    assert decide_refresh(family, presented=4, attempt=b"ours", now=NOW, lifetimes=strict) == Replay(by_key=True)


@pytest.mark.parametrize(
    ("family", "state"),
    [
        pytest.param(FAMILY, SessionState.ACTIVE, id="active"),
        pytest.param(ENDED, SessionState.ENDED, id="ended"),
        pytest.param(replace(FAMILY, expires_at=NOW), SessionState.LAPSED, id="absolute limit passed"),
        pytest.param(replace(FAMILY, idle_expires_at=NOW), SessionState.LAPSED, id="idle limit passed"),
        pytest.param(replace(ENDED, expires_at=NOW), SessionState.ENDED, id="ended and past its limit"),
    ],
)
def test_state(family: Family, state: SessionState) -> None:
    """Expiry is a fact at read time, and an end outranks it."""
    assert family.state(NOW) == state


def test_a_generation_gets_one_replay_event() -> None:
    """The second replay of a generation is not logged; the next generation's first one is."""
    assert mark_replay(FAMILY, HOME).log_replay
    assert not mark_replay(replace(FAMILY, replayed_generation=5), HOME).log_replay
    assert mark_replay(replace(FAMILY, replayed_generation=4), HOME).log_replay


def test_three_strangers_in_a_row_raise_suspicion() -> None:
    """Replays from another network in three generations running, and not before."""
    family = FAMILY
    suspected = []
    for generation in range(5, 12):
        family = replace(family, generation=generation)
        mark = mark_replay(family, AWAY)
        suspected.append(mark.suspected)
        family = replace(
            family, ride_along_generation=mark.ride_along_generation, ride_along_count=mark.ride_along_count
        )
    assert suspected == [False, False, True, False, False, True, False]


def test_a_generation_without_a_stranger_ends_the_row() -> None:
    """Two strangers, a gap, a stranger: no suspicion."""
    family = replace(FAMILY, generation=9, ride_along_generation=7, ride_along_count=2)
    assert mark_replay(family, AWAY).ride_along_count == 1


def test_one_generation_counts_once() -> None:
    """A stranger who replays the same generation again adds nothing."""
    family = replace(FAMILY, ride_along_generation=5, ride_along_count=2)
    mark = mark_replay(family, AWAY)
    assert (mark.ride_along_count, mark.suspected) == (2, False)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("203.0.113.7", "203.0.113.200", True),
        ("203.0.113.7", "203.0.114.7", False),
        ("2001:db8:1::1", "2001:db8:1:ffff::1", True),
        ("2001:db8:1::1", "2001:db8:2::1", False),
        ("203.0.113.7", "2001:db8::1", False),
    ],
)
def test_same_network(one: str, other: str, same: bool) -> None:  # noqa: FBT001 - a case
    """A /24 of IPv4, a /48 of IPv6."""
    assert same_network(ip_address(one), ip_address(other)) is same
    assert not same_network(None, ip_address(one))


THEIRS = replace(FAMILY, client_id="billing", scope="read write")


@pytest.mark.parametrize("presented", range(10))
@pytest.mark.parametrize("family", [FAMILY, ENDED, replace(FAMILY, expires_at=NOW), rotated(LIMITS.retry)])
def test_a_family_says_nothing_to_another_client(family: Family, presented: int) -> None:
    """Whatever its state and whatever the token: nothing is written, so that no stranger can end it."""
    for owner, asking in (("first-party", "billing"), ("billing", "first-party"), ("billing", "Billing")):
        decision = decide_refresh(
            replace(family, client_id=owner),
            presented=presented,
            attempt=b"ours",
            now=NOW,
            lifetimes=LIMITS,
            client_id=asking,
        )
        assert decision == Misdirected()


WIDE = [
    pytest.param(THEIRS, 5, Widened(), id="live"),
    pytest.param(THEIRS, 4, Widened(), id="just spent"),
    pytest.param(replace(THEIRS, rotated_at=NOW - LIMITS.grace), 4, Widened(), id="late with the key of that rotation"),
    pytest.param(THEIRS, 6, Widened(), id="one generation lost"),
    pytest.param(THEIRS, 3, Reuse(), id="reuse"),
    pytest.param(THEIRS, 8, Restored(3), id="three generations lost"),
    pytest.param(replace(THEIRS, ended_at=NOW, end_reason=EndReason.LOGOUT), 5, Refuse(), id="ended"),
    pytest.param(replace(THEIRS, expires_at=NOW), 5, Lapse(EndReason.ABSOLUTE_TIMEOUT), id="expired"),
]


@pytest.mark.parametrize(("family", "presented", "expected"), WIDE)
def test_asking_for_more_than_was_granted(family: Family, presented: int, expected: RefreshDecision) -> None:
    """Nothing is spent or replayed; but what would end the session whatever was asked for still does."""
    for scope in (("admin",), ("read", "admin"), ("READ",)):
        decision = decide_refresh(
            family,
            presented=presented,
            attempt=b"ours",
            now=NOW,
            lifetimes=LIMITS,
            client_id="billing",
            scope=scope,
        )
        assert decision == expected


@pytest.mark.parametrize("scope", [(), ("read",), ("write", "read")])
def test_asking_for_a_part_is_as_asking_for_all(scope: tuple[str, ...]) -> None:
    """Narrowing changes no decision."""
    for presented, expected in ((5, TryAgain()), (4, Replay(by_key=False)), (6, FastForward(1)), (3, Reuse())):
        decision = decide_refresh(
            THEIRS,
            presented=presented,
            attempt=None,
            now=NOW,
            lifetimes=LIMITS,
            client_id="billing",
            scope=scope,
        )
        assert decision == expected
