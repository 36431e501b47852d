"""What is decided, by itself and as the statements do it."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.domain.throttling import (
    ACCOUNT,
    ADDRESS,
    DECAY,
    DELAY_MAXIMUM,
    DEVICE,
    DEVICES,
    LIMIT_OF_ALL_WAYS,
    SESSION,
    SESSIONS,
    SLACK,
    Counted,
    InARow,
    Rate,
    Tally,
    Way,
    everywhere,
    wait_for_rate,
    wait_in_row,
    whole_seconds,
)
from app.repositories.throttles import Buckets
from tests.guessing.conftest import Town

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
LIMITS = [ACCOUNT, DEVICE, SESSION, DEVICES, SESSIONS]

moments = st.one_of(
    st.integers(-3 * 86_400, 3 * 86_400),
    st.sampled_from([0, 1, 899, 900, 901, 903, 904, -86_399, -86_400, -86_401, 86_399, 86_400]),
).map(lambda seconds: NOW + timedelta(seconds=seconds))
counts = st.builds(Counted, st.integers(1, 70), st.none() | moments, moments)


def test_never_more_than_a_hundred() -> None:
    """All ways of guessing together, with room for what known devices may be ahead (NIST SP 800-63B-4 3.2.2)."""
    assert LIMIT_OF_ALL_WAYS == 90
    assert DEVICE.most < DEVICES.most
    assert SESSION.most < SESSIONS.most


@pytest.mark.parametrize("limit", LIMITS)
def test_delays_grow_and_end(limit: InARow) -> None:
    """Nothing at first, then each at least as long as the one before, never more than a quarter of an hour."""
    delays = [limit.delay(n) for n in range(2000)]
    assert delays == sorted(delays)
    assert not any(delays[: limit.free])
    assert delays[limit.free] == timedelta(seconds=1)
    assert delays[-1] == DELAY_MAXIMUM


@given(st.none() | counts, st.sampled_from(LIMITS))
def test_no_wait_is_for_ever(counted: Counted | None, limit: InARow) -> None:
    """Whatever is stored: a wait is positive, at most a day, and when it is over the guess may be looked at."""
    wait = wait_in_row(counted, limit, NOW)
    if wait is None:
        return
    assert timedelta(0) < wait <= DECAY
    later = NOW + timedelta(seconds=whole_seconds(wait))
    again = wait_in_row(counted, limit, later)
    # Where a clock was wrong the count may become believable on the way; then it is believed once.
    assert again is None or (counted is not None and counted.last_failure_at > NOW)


@given(st.none() | moments, st.integers(1, 1000), st.integers(1, 60))
def test_no_rate_is_for_ever(full_at: datetime | None, burst: int, step: int) -> None:
    """Likewise for a bucket: `Retry-After` is true, and no longer than a window."""
    rate = Rate(burst, timedelta(seconds=step))
    wait = wait_for_rate(full_at, rate, NOW)
    if wait is not None:
        assert timedelta(0) < wait <= rate.step + SLACK
        assert wait_for_rate(full_at, rate, NOW + timedelta(seconds=whole_seconds(wait))) is None


@given(st.floats(0.000001, 100_000))
def test_retry_after_is_never_too_early(seconds: float) -> None:
    """Whole seconds, rounded up."""
    wait = timedelta(seconds=seconds)
    assert wait <= timedelta(seconds=whole_seconds(wait)) < wait + timedelta(seconds=1) or whole_seconds(wait) == 1


@given(st.none() | counts, st.sampled_from(LIMITS))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_the_statement_decides_as_the_function(town: Town, counted: Counted | None, limit: InARow) -> None:
    """On any stored state, a guess is reserved exactly if the function lets it; what is refused changes nothing."""
    await _same_decision(town, counted, limit)


async def _same_decision(town: Town, counted: Counted | None, limit: InARow) -> None:
    tally = Tally(bytes(32), Way.PASSWORD, b"", limit)
    await town.sql.execute("DELETE FROM login_throttle")
    if counted is not None:
        await town.sql.execute(
            "INSERT INTO login_throttle VALUES ($1, 'password', '', $2, $4, $3, $4)",
            tally.account,
            counted.failures,
            counted.blocked_until,
            counted.last_failure_at,
        )
    async with town.services.database.begin() as db:
        reserved = await db.throttles.reserve(tally, NOW)
        await db.commit()
    assert reserved == (wait_in_row(counted, limit, NOW) is None)
    (row,) = await town.sql.fetch("SELECT failures, blocked_until, last_failure_at FROM login_throttle")
    if not reserved:
        assert counted is not None
        assert tuple(row) == (counted.failures, counted.blocked_until, counted.last_failure_at)
        return
    begins = counted is None or counted.is_stale(NOW)
    failures = 1 if begins or counted is None else counted.failures + 1
    waits = None if begins or failures < limit.together else NOW + limit.delay(failures)
    assert tuple(row) == (failures, waits, NOW)
    async with town.services.database.begin() as db:
        await db.throttles.note_failure(tally, NOW, counted=True, reserved_at=NOW)
        await db.commit()
    (row,) = await town.sql.fetch("SELECT failures, blocked_until FROM login_throttle")
    blocked = NOW + limit.delay(failures) if failures >= limit.free else waits
    assert tuple(row) == (failures, blocked)


@given(st.none() | moments, st.none() | moments)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_the_rates_are_taken_as_the_function_says(
    town: Town, address: datetime | None, all_together: datetime | None
) -> None:
    """Both or none; what one of them refuses is rolled back; what is put back is as if it had not been."""
    rate = everywhere(600)
    buckets = Buckets("192.0.2.1", ADDRESS, rate)
    await town.sql.execute("DELETE FROM address_throttle")
    for place, full_at in (("192.0.2.1", address), ("*", all_together)):
        if full_at is not None:
            await town.sql.execute("INSERT INTO address_throttle VALUES ($1, $2)", place, full_at)
    before = await town.sql.fetch("SELECT * FROM address_throttle ORDER BY place")
    async with town.services.database.begin() as db:
        taken = await db.throttles.take(buckets, NOW)
        if taken:
            await db.commit()
    wanted = wait_for_rate(address, ADDRESS, NOW) is None and wait_for_rate(all_together, rate, NOW) is None
    assert taken == wanted
    after = await town.sql.fetch("SELECT * FROM address_throttle ORDER BY place")
    if not taken:
        assert after == before
        return
    async with town.services.database.begin() as db:
        await db.throttles.put_back(buckets, NOW)
        await db.commit()
    believed = {
        "192.0.2.1": address if address and NOW <= address <= NOW + ADDRESS.window + SLACK else NOW,
        "*": all_together if all_together and NOW <= all_together <= NOW + rate.window + SLACK else NOW,
    }
    rows = await town.sql.fetch("SELECT place, full_at FROM address_throttle")
    assert {row["place"]: row["full_at"] for row in rows} == believed
