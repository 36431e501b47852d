"""Passwords: hashed whole, in bounds; and the policy for new ones."""

import asyncio
from collections.abc import Iterator

import pytest
from argon2 import extract_parameters
from passlib.context import CryptContext

from app.domain.errors import PasswordRefused, TooBusy
from app.domain.passwords import check_new_password
from app.security.passwords import PasswordHasher


@pytest.fixture(scope="module")
def hasher() -> Iterator[PasswordHasher]:
    made = PasswordHasher()
    yield made
    made.close()


async def test_parameters_stand_in_the_hash(hasher: PasswordHasher) -> None:
    """Argon2id, 19 MiB, two passes, one lane."""
    parameters = extract_parameters(await hasher.hash("long enough"))
    assert (parameters.type.name, parameters.memory_cost, parameters.time_cost, parameters.parallelism) == (
        "ID",
        19_456,
        2,
        1,
    )


@pytest.mark.case(43)
@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("x" * 72 + "a", "x" * 72 + "b", id="byte 73"),
        pytest.param("x" * 999 + "a", "x" * 999 + "b", id="byte 1,000"),
        pytest.param("Password", "password", id="case"),
        pytest.param("pass word", "pass  word", id="spaces"),
    ],
)
async def test_a_password_counts_whole(hasher: PasswordHasher, one: str, other: str) -> None:
    """Nothing is cut and no case is changed."""
    stored = await hasher.hash(one)
    assert await hasher.verify(one, stored)
    assert not await hasher.verify(other, stored)


async def test_decomposed_letters_sign_in_alike(hasher: PasswordHasher) -> None:
    """NFC: the keyboard that sends e and an accent knows the same password."""
    stored = await hasher.hash("caf\u00e9 au lait")
    assert await hasher.verify("cafe\u0301 au lait", stored)


async def test_nobody_is_verified_and_refused(hasher: PasswordHasher) -> None:
    """An unknown user costs a verification, and is never right."""
    assert not await hasher.verify("anything", None)


@pytest.mark.case(37)
async def test_an_unknown_hash_is_not_guessed_about(hasher: PasswordHasher) -> None:
    """A row with something else in it holds nobody's password: never right, and never an error of the server's."""
    assert not await hasher.verify("not a hash", "not a hash")
    assert hasher.is_outdated("not a hash")


async def test_weaker_parameters_are_seen(hasher: PasswordHasher) -> None:
    """What was hashed cheaper than today is outdated."""
    weak = CryptContext(schemes=["argon2"], argon2__memory_cost=1024, argon2__time_cost=1).hash("x")
    assert hasher.is_outdated(weak)
    assert not hasher.is_outdated(await hasher.hash("x"))


async def test_the_queue_is_bounded_and_drains() -> None:
    """Beyond threads and queue: refused at once. Afterwards there is room again, also for those who left."""
    hasher = PasswordHasher(threads=1, queue_limit=2)
    try:
        waiting = [asyncio.create_task(hasher.hash("x" * 8)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(TooBusy):
            await hasher.hash("one too many")
        waiting[2].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await asyncio.sleep(0)
        assert hasher._pending == 0
        assert await hasher.hash("again")
    finally:
        hasher.close()


@pytest.mark.parametrize(
    "password",
    [
        pytest.param("", id="empty"),
        pytest.param("fourteen lette", id="fourteen"),
        pytest.param("e\u0301xa\u0308o" * 3, id="twelve letters of eighteen code points"),
        pytest.param("x" * 1025, id="1,025 bytes"),
        pytest.param("\u20ac" * 342, id="1,026 bytes in 342 characters"),
        pytest.param("nul\0in the middle", id="NUL"),
        pytest.param("unassigned \U000e0080", id="unassigned"),
    ],
)
def test_refused_passwords(password: str) -> None:
    """Too short, too long, or not the same in every Unicode version."""
    with pytest.raises(PasswordRefused):
        check_new_password(password)


@pytest.mark.parametrize(
    "password",
    ["fifteen letters", "o" + "x" * 1023, "\U0001f469\u200d\U0001f680" * 5, "all spaces are fine"],
    ids=["fifteen", "1,024 bytes", "emoji with joiners", "words"],
)
def test_accepted_passwords(password: str) -> None:
    """No composition rules; any assigned characters."""
    assert check_new_password(password) == password
