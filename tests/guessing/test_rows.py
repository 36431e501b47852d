"""What becomes of a guess that was counted when something comes between."""

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from app.domain.throttling import ACCOUNT, ADDRESS, LIMIT_OF_ALL_WAYS
from tests.conftest import PASSWORD
from tests.guessing.conftest import WRONG, Town


@pytest.mark.parametrize("known", ["", "known"])
async def test_a_wrong_guess_whose_event_cannot_be_written(town: Town, own_sql: asyncpg.Connection, known: str) -> None:
    """Somebody holds the row of its event for too long: 503, and the guess, which was looked at, stays counted."""
    town.cheap()
    person = await town.person()
    form: Any = {"device_token": await town.device_of(person)} if known else {}
    async with own_sql.transaction():
        await own_sql.execute("LOCK TABLE login_failures")
        assert (await town.log_in(person.username, WRONG, **form)).status_code == 503
    await asyncio.sleep(0.1)
    assert await town.counts() == ([("device", 0, 1), ("device", 32, 1)] if known else [("password", 0, 1)])


async def test_guesses_that_are_looked_at_while_the_owner_comes_in(town: Town) -> None:
    """They were not in a row with those before the success, and are with those after it: none is forgotten."""
    town.cheap()
    person = await town.person()
    go_on, asked = asyncio.Event(), []

    async def verify(password: str, _stored: str | None) -> bool:
        asked.append(password)
        if password == WRONG:
            await go_on.wait()
        return password == PASSWORD

    town.verify_by(verify)
    guesses = [asyncio.create_task(town.log_in(person.username, WRONG)) for _ in range(ACCOUNT.together - 1)]
    while len(asked) < len(guesses):
        await asyncio.sleep(0.01)
    town.clock.advance(seconds=1)
    assert (await town.log_in(person.username)).status_code == 200
    assert await town.counts() == []
    town.clock.advance(seconds=1)
    go_on.set()
    assert {answer.status_code for answer in await asyncio.gather(*guesses)} == {401}
    assert await town.counts() == [("password", 0, len(guesses))]
    await town.fail(person.username, ACCOUNT.most - len(guesses))
    assert len(asked) - 1 <= LIMIT_OF_ALL_WAYS
    assert int((await town.log_in(person.username, WRONG)).headers["retry-after"]) == 86_400


async def test_a_guess_that_took_long_empties_no_bucket(town: Town) -> None:
    """A success that waited in the queue gives back its own place, and not those of the failures since."""
    town.cheap()
    person = await town.person()
    go_on, asked = asyncio.Event(), asyncio.Event()

    async def verify(password: str, _stored: str | None) -> bool:
        if password == PASSWORD:
            asked.set()
            await go_on.wait()
        return password == PASSWORD

    town.verify_by(verify)
    success = asyncio.create_task(town.log_in(person.username, address="198.51.100.1"))
    await asked.wait()
    town.clock.advance(seconds=10)  # in the queue twice, since its hash was outdated
    windows = {"198.51.100.1": ADDRESS.window, "*": timedelta(minutes=1)}
    for place, window in windows.items():
        full_at = town.clock.time + window
        await town.sql.execute("UPDATE address_throttle SET full_at = $2 WHERE place = $1", place, full_at)
    go_on.set()
    assert (await success).status_code == 200
    rows = await town.sql.fetch("SELECT place, full_at FROM address_throttle")
    left = {row["place"]: row["full_at"] - town.clock.time for row in rows}
    assert left == {
        "198.51.100.1": ADDRESS.window - ADDRESS.step,
        "*": timedelta(minutes=1) - timedelta(minutes=1) / 600,
    }
