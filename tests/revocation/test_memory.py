"""What is kept in memory, and for how long."""

import tracemalloc
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from app.domain.ended_sessions import KEPT, EndedSessions
from app.domain.errors import AccessTokenRejected
from app.domain.families import Grant
from app.domain.users import Role
from app.security.access_tokens import AccessTokens
from app.security.signing_keys import SigningKeys
from app.security.verified_tokens import VerifiedTokens

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


@given(st.lists(st.tuples(st.uuids(), st.integers(0, 4000)), max_size=60), st.integers(0, 6000), st.integers(1, 10))
def test_nothing_is_forgotten_before_its_time(ends: list[tuple[UUID, int]], later: int, limit: int) -> None:
    """Whatever ended within the last 16 minutes is there; what ended two minutes before that or earlier is not."""
    ended, now = EndedSessions(), NOW + timedelta(seconds=later)
    for session, seconds in ends:
        ended.add(session, NOW + timedelta(seconds=seconds))
    while ended.forget(now, limit=limit):
        pass
    for session in {session for session, _ in ends}:
        newest = max(NOW + timedelta(seconds=seconds) for other, seconds in ends if other == session)
        if newest > now - KEPT:
            assert session in ended
        if newest <= now - KEPT - timedelta(minutes=2):
            assert session not in ended


def test_the_same_end_twice_is_one() -> None:
    """Ends may be read again."""
    ended, session = EndedSessions(), uuid7()
    for _ in range(2):
        ended.add(session, NOW)
    assert (len(ended), session in ended, uuid7() in ended) == (1, True, False)


def test_a_hundred_thousand_ends_take_little() -> None:
    """Some hundred bytes each beside the list; and forgetting gives it back in bounded steps."""
    ids, ended = [uuid7() for _ in range(100_000)], EndedSessions()
    tracemalloc.start()
    for number, session in enumerate(ids):
        ended.add(session, NOW + timedelta(milliseconds=number))
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 150 * len(ids)
    steps = 1
    while ended.forget(NOW + timedelta(hours=1), limit=1000):
        steps += 1
    assert (len(ended), steps >= 100) == (0, True)


def _issuing() -> tuple[AccessTokens, str]:
    tokens = AccessTokens(
        SigningKeys([b"a secret of at least thirty-two bytes"]),
        issuer="http://rota",
        audience="rota",
        lifetime=timedelta(minutes=15),
        new_id=uuid7,
    )
    grant = Grant(
        now=NOW,
        user_id=uuid7(),
        family_id=uuid7(),
        generation=0,
        seed=b"",
        client_id="first-party",
        scope="",
        role=Role.USER,
        authenticated_at=NOW,
        amr="pwd",
        acr=None,
        idle_expires_at=NOW + timedelta(days=7),
        expires_at=NOW + timedelta(days=30),
    )
    return tokens, tokens.issue(grant)[0]


def test_what_was_verified_is_remembered_by_all_its_bytes() -> None:
    """The same token again is the same; one that differs in any place is checked by itself, and refused."""
    tokens, token = _issuing()
    claims = tokens.verify(token, NOW)
    assert tokens.verify(token, NOW) is claims
    for place in range(0, len(token), 7):
        other = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        with pytest.raises(AccessTokenRejected):
            tokens.verify(other, NOW)
    with pytest.raises(AccessTokenRejected):
        tokens.verify(token + " ", NOW)


def test_a_key_that_is_not_published_any_more_verifies_nothing() -> None:
    """Also what it has verified before."""
    tokens, token = _issuing()
    tokens.verify(token, NOW)
    with pytest.raises(AccessTokenRejected):
        tokens.verify(token, NOW + timedelta(days=90))


def test_times_are_compared_each_time() -> None:
    """A remembered token expires like any other."""
    tokens, token = _issuing()
    tokens.verify(token, NOW).check_time(NOW)
    with pytest.raises(AccessTokenRejected):
        tokens.verify(token, NOW).check_time(NOW + timedelta(minutes=15))


def test_what_is_remembered_is_bounded() -> None:
    """However many there are; those that are used stay."""
    verified: VerifiedTokens[int] = VerifiedTokens(size=100)
    for number in range(1000):
        verified.add(number.to_bytes(32), number)
        assert verified.find((0).to_bytes(32)) == 0
        assert len(verified) <= 101
    assert verified.find((5).to_bytes(32)) is None
