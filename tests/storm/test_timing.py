"""Whether time tells who exists, or how long a password is. Ratios of one run, never the clock by itself."""

import os

import pytest

from app.domain.passwords import canonical_password
from app.security.passwords import PasswordHasher
from tests.conftest import PASSWORD, MakeServices, OwnDatabase
from tests.storm.timing import (
    APART,
    SAMPLES,
    SIGNIFICANT,
    UNLIMITED,
    Try,
    Verdict,
    compare,
    mann_whitney,
    unknown_against_known,
)

# All 2,000 take two minutes and more: they are for the nightly run, `python -m tests.storm.timing`.
FEWER = int(os.environ.get("TIMING_SAMPLES", SAMPLES // 8))


def alike(found: Verdict) -> bool:
    return found.apart <= APART and found.p > SIGNIFICANT


@pytest.mark.alone
@pytest.mark.case(45)
async def test_unknown_names_take_as_long(make_services: MakeServices, own: OwnDatabase) -> None:
    """
    Of pairs side by side the medians lie within 5 %, and the ranks do not tell them apart.

    One try in a hundred would fail by the ranks' chance alone, so each may be repeated once.
    """
    services = make_services(url=own.app, failed_logins_per_minute=UNLIMITED)
    found = await unknown_against_known(services, own.owner, FEWER)
    assert alike(found) or alike(await unknown_against_known(services, own.owner, FEWER)), found


@pytest.mark.alone
@pytest.mark.case(36)
async def test_hash_time_is_flat() -> None:
    """1,024 bytes take as long as eight, and so do letters with 1,008 marks that must be put in order."""
    hasher = PasswordHasher(threads=1)
    try:
        stored = await hasher.hash(PASSWORD)
        marked = "x" * 16 + "\u0301\u0323" * 504
        assert canonical_password(marked) != marked

        def attempt(password: str) -> Try:
            return lambda: hasher.verify(password, stored)

        for long in ("x" * 1024, marked):
            found = await compare(attempt("12345678"), attempt(long), 60)
            assert found.apart <= 0.1, (len(long), found)
    finally:
        hasher.close()


def test_the_ranks_tell_a_difference() -> None:
    """The test that is used can fail: a shift by half a deviation is found, none is not."""
    one = [float(number % 97) for number in range(400)]
    assert mann_whitney(one, [value + 0.5 for value in one]) > SIGNIFICANT
    assert mann_whitney(one, [value + 14 for value in one]) < SIGNIFICANT
