"""One account, guessed at from anywhere."""

import asyncio
import re
from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import httpx2
import pytest

from app.domain.errors import TooBusy, Unavailable
from app.domain.events import NO_CLIENT, SYSTEM
from app.domain.throttling import ACCOUNT, DECAY, LIMIT_OF_ALL_WAYS
from app.domain.users import Credential
from app.services.acting import Acting
from tests.conftest import PASSWORD
from tests.guessing.conftest import WRONG, Town, statements_of

BY_SYSTEM = Acting(SYSTEM, NO_CLIENT)
NEW = "another long enough password"


def seen_by_anybody(answer: httpx2.Response) -> tuple[int, list[tuple[str, str]], str]:
    """Status, headers and body, but for the request's id and moment."""
    headers = [(k, v) for k, v in answer.headers.multi_items() if k not in {"x-request-id", "date"}]
    return answer.status_code, headers, re.sub(r'"request_id":"[^"]+"', "", answer.text)


async def test_ten_are_free_and_then_each_takes_longer(town: Town) -> None:
    """After the tenth failure one second, then two, four and so on up to a quarter of an hour; told truly."""
    town.cheap()
    person = await town.person()
    free = [(await town.log_in(person.username, WRONG)).status_code for _ in range(10)]
    assert free == [401] * 10
    told = []
    for _ in range(13):
        answer = await town.log_in(person.username, WRONG, "198.51.100.9")
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_attempts")
        told.append(wait := int(answer.headers["retry-after"]))
        town.clock.advance(seconds=wait, milliseconds=-1)
        assert (await town.log_in(person.username, PASSWORD)).status_code == 429, "a moment too early"
        town.clock.advance(milliseconds=1)
        assert (await town.log_in(person.username, WRONG)).status_code == 401
    assert told == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]
    assert len(town.verified) == 23


async def test_refused_guesses_do_not_make_it_longer(town: Town) -> None:
    """Whoever hammers on a blocked account moves nothing: the owner's wait stays what it was."""
    town.cheap()
    person = await town.person()
    await town.fail(person.username, 15)
    waits = {(await town.log_in(person.username, WRONG, f"198.51.100.{n}")).headers["retry-after"] for n in range(50)}
    assert waits == {"32"}
    town.clock.advance(seconds=32)
    assert (await town.log_in(person.username)).status_code == 200


async def test_the_last_guess_and_the_decay(town: Town) -> None:
    """Sixty in a row, however patiently, and no more until there was no failure for a day; then all is forgotten."""
    town.cheap()
    person = await town.person()
    await town.fail(person.username, ACCOUNT.most)
    for hours in (0, 1, 22):
        town.clock.advance(hours=hours)
        answer = await town.log_in(person.username)
        assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) == 3600
    assert len(town.verified) == ACCOUNT.most
    town.clock.advance(hours=1)
    assert (await town.log_in(person.username)).status_code == 200
    assert await town.counts() == []


async def test_a_success_clears_what_was_counted(town: Town) -> None:
    """Nine failures, a success, and nine more are free; nothing stays behind, of the address neither."""
    town.cheap()
    person = await town.person()
    for _ in range(3):
        assert await town.fail(person.username, 9, "203.0.113.7") == [401] * 9
        assert (await town.log_in(person.username)).status_code == 200
        assert await town.counts() == []
    used = await town.sql.fetch("SELECT place, full_at FROM address_throttle")
    spent = {row["place"]: row["full_at"] - town.clock.time for row in used}
    assert spent == {"203.0.113.7": 27 * timedelta(seconds=6), "*": 27 * timedelta(seconds=0.1)}


@pytest.mark.case(2)
@pytest.mark.parametrize("name", ["somebody", "nobody"])
async def test_five_hundred_at_once_from_five_hundred_addresses(town: Town, name: str) -> None:
    """Over two servers: no more are hashed than may be together, and far fewer than a hundred."""
    town.count()
    await town.person("somebody")
    answers = await asyncio.gather(
        *(town.log_in(name, WRONG, f"198.51.{n // 250}.{n % 250}", server=n % 2) for n in range(500))
    )
    assert {answer.status_code for answer in answers} <= {401, 429, 503}
    assert all("retry-after" in answer.headers for answer in answers if answer.status_code != 401)
    assert 0 < len(town.verified) <= ACCOUNT.together
    assert len(town.verified) <= LIMIT_OF_ALL_WAYS <= 100
    assert await town.counts() == [("password", 0, len(town.verified))]


async def test_unknown_names_are_like_known_ones_at_each_stage(town: Town) -> None:
    """Free, delayed, used up: the same bytes, headers included, for a known, a disabled and an unknown name."""
    town.cheap()
    known, disabled = await town.person(), await town.person()
    await town.services.users.disable(disabled.user.id, actor=SYSTEM, client=NO_CLIENT)
    names = [known.username, disabled.username, "nobody-at-all", "no canonical form ", "NOBODY-at-all-2"]
    stages = []
    for turn in range(16):
        if turn == 14:
            await town.sql.execute("UPDATE login_throttle SET failures = $1", ACCOUNT.most)
        seen = [seen_by_anybody(await town.log_in(name, WRONG)) for name in names]
        assert all(one == seen[0] for one in seen)
        wait = dict(seen[0][1]).get("retry-after")
        stages.append(wait)
        town.clock.advance(seconds=int(wait or 0) if turn < 14 else 0)
    assert stages == [None] * 10 + ["1", None, "2", None, "86400", "86400"]
    assert len(await town.counts()) == 5


async def test_spellings_of_a_name_count_together(town: Town) -> None:
    """Case and width are no further accounts to guess at."""
    town.cheap()
    await town.person("ada")
    for name in ("ada", "Ada", "ADA", "\uff41da", "aDa") * 2:
        assert (await town.log_in(name, WRONG)).status_code == 401
    assert (await town.log_in("adA", WRONG)).status_code == 429


async def test_ways_to_be_let_in_again(town: Town) -> None:
    """An administrator, the command line's service, and a set-password token each end the wait; the trail says who."""
    town.cheap()
    person = await town.person()
    await town.fail(person.username, 20)
    assert (await town.log_in(person.username)).status_code == 429
    assert await town.services.throttling.unblock(person.user.id, by=BY_SYSTEM)
    assert not await town.services.throttling.unblock(person.user.id, by=BY_SYSTEM), "there is nothing left"
    assert (await town.log_in(person.username)).status_code == 200
    assert [event["actor_kind"] for event in await town.events("login.unblocked")] == ["system"]
    await town.fail(person.username, 20)
    token, _ = await town.services.credentials.reset(person.user.id, forget=False, by=BY_SYSTEM)
    assert (await town.log_in(person.username)).status_code == 429, "handing it out ends nothing"
    body = {"token": token.token, "new_password": NEW}
    assert (await town.request("PUT", "/password", json=body)).status_code == 200
    assert await town.counts() == []


async def test_a_one_time_password_is_guessed_like_any(town: Town) -> None:
    """Its holder is let in after failures, and gets the token; the guesses before are forgotten by it."""
    invited = await town.services.credentials.invite(
        "newcomer", role=(await town.person()).user.role, credential=Credential.ONE_TIME_PASSWORD, by=BY_SYSTEM
    )
    assert invited.one_time_password is not None
    assert [(await town.log_in("newcomer", WRONG)).status_code for _ in range(11)] == [401] * 10 + [429]
    town.clock.advance(seconds=1)
    right = await town.log_in("newcomer", invited.one_time_password)
    assert (right.status_code, right.json()["code"]) == (403, "password_change_required")
    assert "device_token" not in right.json()
    assert await town.counts() == []


async def test_events_of_refused_guesses(town: Town) -> None:
    """Five a minute and a sum, of the account whatever the address; of an unknown name only its digest."""
    town.cheap()
    person = await town.person()
    for name in (person.username, "nobody"):
        await town.fail(name, 20)
    before = len(await town.events("login.throttled"))
    await town.sql.execute("TRUNCATE login_failures")
    for n in range(40):
        assert (await town.log_in("nobody", WRONG, f"198.51.100.{n}")).status_code == 429
    events = (await town.events("login.throttled"))[before:]
    assert len(events) == 5
    assert {event["subject_id"].int for event in events} == {0}
    assert all('"name_digest":"' in event["detail"] and "nobody" not in event["detail"] for event in events)
    town.clock.advance(minutes=2)
    await town.services.housekeeping.sum_up_login_failures()
    (total,) = [event for event in await town.events("login.throttled") if event["reason"] == "rolled_up"][-1:]
    assert '"count":35' in total["detail"]
    assert '"of":"account_limit"' in total["detail"]


async def test_a_refused_guess_writes_nothing_before_it_is_answered(town: Town) -> None:
    """
    A name that somebody has is a kind of refusal of its own, all others are one kind: whoever finds the writer at work
    for the others would else be answered sooner than whoever has to write.
    """
    town.cheap()
    person = await town.person()
    for name in (person.username, "nobody", "nobody-else"):
        await town.fail(name, 20)
    before = len(await town.events("login.throttled"))
    await town.block_all()
    sent = statements_of(town)
    for name in ("nobody", person.username, "nobody-else", person.username):
        assert (await town.log_in(name, WRONG)).status_code == 429
        assert [one.split()[0] for one in sent] == ["SELECT"], name
        sent.clear()
    assert len(await town.events("login.throttled")) > before
    assert len(sent) > 1, "it is written, by and by"


async def test_refusals_of_many_kinds(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a moment are written together, in bounded transactions; beyond so many kinds they are only counted."""
    monkeypatch.setattr("app.services.refusal_notes.KINDS_TOGETHER", 3)
    monkeypatch.setattr("app.services.refusal_notes.KINDS_MAXIMUM", 8)
    town.cheap()
    people = [await town.person() for _ in range(10)]
    for person in people:
        await town.fail(person.username, 20)
    before = len(await town.events("login.throttled"))
    await town.sql.execute("TRUNCATE login_failures")
    await town.block_all()
    for person in people:
        for _ in range(7):
            assert (await town.log_in(person.username, WRONG)).status_code == 429
    events = (await town.events("login.throttled"))[before:]
    assert Counter(event["subject_id"] for event in events) == {person.user.id: 5 for person in people[:8]}
    rows = await town.sql.fetch("SELECT subject_id, count FROM login_failures WHERE reason = 'account_limit'")
    assert {row["subject_id"]: row["count"] for row in rows} == {
        **{person.user.id: 7 for person in people[:8]},
        UUID(int=0): 14,
    }


@pytest.mark.parametrize("closing", [False, True])
async def test_refusals_while_the_database_is_away(town: Town, *, closing: bool) -> None:
    """They are written when it is back, none twice; a server that ends meanwhile does not wait for that."""
    town.cheap()
    person = await town.person()
    await town.fail(person.username, 20)
    before = len(await town.events("login.throttled"))
    await town.sql.execute("TRUNCATE login_failures")
    await town.block_all()
    notes: Any = town.services.throttling._notes
    write, tried = notes._write, asyncio.Event()

    async def away(together: Any) -> None:
        tried.set()
        if not closing:
            notes._write = write
        raise Unavailable(why="away")

    notes._write = away
    for _ in range(2):
        assert (await town.log_in(person.username, WRONG)).status_code == 429
    await tried.wait()
    assert (await town.log_in(person.username, WRONG)).status_code == 429
    if closing:
        await asyncio.wait_for(notes.close(), 20)
    events = (await town.events("login.throttled"))[before:]
    assert len(events) == (0 if closing else 3)
    assert await town.sql.fetchval("SELECT sum(count) FROM login_failures") == (None if closing else 3)


async def test_the_owner_is_told_of_a_success_after_failures(town: Town) -> None:
    """Five failures before it: one row in the outbox; four: none."""
    town.cheap()
    person = await town.person()
    await town.fail(person.username, 4)
    assert (await town.log_in(person.username)).status_code == 200
    assert await town.sql.fetchval("SELECT count(*) FROM notifications") == 0
    await town.fail(person.username, 5)
    assert (await town.log_in(person.username)).status_code == 200
    rows = await town.sql.fetch("SELECT user_id, kind FROM notifications")
    assert [tuple(row) for row in rows] == [(person.user.id, "signed_in_after_failures")]


async def test_a_cut_connection_leaves_the_guess_counted(town: Town, own_sql: asyncpg.Connection) -> None:
    """A server that dies between counting and answering gives nobody a guess for free."""
    person = await town.person()
    hashing, go_on = asyncio.Event(), asyncio.Event()

    async def verify(_password: str, _stored: str | None) -> bool:
        hashing.set()
        await go_on.wait()
        return False

    town.verify_by(verify)
    guess = asyncio.create_task(town.log_in(person.username, WRONG))
    await hashing.wait()
    assert await town.counts() == [("password", 0, 1)]
    open_transactions = await own_sql.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL"
        " AND pid <> pg_backend_pid()"
    )
    assert open_transactions == 0, "no connection is held while a password is hashed"
    await own_sql.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    guess.cancel()
    await asyncio.gather(guess, return_exceptions=True)
    assert await town.counts() == [("password", 0, 1)]


async def test_guesses_that_were_not_looked_at_are_given_back(town: Town) -> None:
    """A full queue is no failure of the user's: 503, and nothing stays counted."""
    person = await town.person()

    async def verify(_password: str, _stored: str | None) -> bool:
        raise TooBusy(why="hash queue full")

    town.verify_by(verify)
    for _ in range(ACCOUNT.most + 5):
        assert (await town.log_in(person.username)).status_code == 503
    assert await town.counts() == []
    left = await town.sql.fetch("SELECT full_at FROM address_throttle")
    assert all(row["full_at"] <= town.clock.time for row in left)


async def test_made_up_names_are_forgotten(town: Town) -> None:
    """A day after the last failure the rows are removed, those of addresses as soon as they say nothing."""
    town.cheap()
    for n in range(50):
        await town.log_in(f"made-up-{n}", WRONG, f"198.51.100.{n}")
    town.clock.advance(minutes=1)
    await town.services.housekeeping.remove_old_throttles()
    assert await town.sql.fetchval("SELECT count(*) FROM address_throttle WHERE place <> '*'") == 0
    assert len(await town.counts()) == 50
    town.clock.advance(seconds=DECAY.total_seconds())
    await town.services.housekeeping.remove_old_throttles()
    assert await town.counts() == []


async def test_a_wrong_clock_locks_nobody_out(town: Town) -> None:
    """Counts from a time that has not come hold up nobody: a clock that went forth and back is no failure of theirs."""
    town.cheap()
    person = await town.person()
    town.clock.advance(days=30)
    await town.fail(person.username, ACCOUNT.most)
    assert (await town.log_in(person.username)).status_code == 429
    town.clock.advance(days=-31)
    assert (await town.log_in(person.username)).status_code == 200
