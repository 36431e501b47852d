"""Many accounts, guessed at from one address or from thousands."""

import asyncio
from ipaddress import ip_address

import pytest

from app.domain.clients import ClientContext
from app.domain.errors import InvalidCredentials, TooManyAttempts, Unavailable
from app.domain.throttling import ADDRESS
from app.main import create_app
from tests.conftest import PASSWORD, OwnDatabase, client_at, make_settings
from tests.guessing.conftest import WRONG, Town

OFFICE = "198.51.100.200"


async def spend(town: Town, address: str, times: int) -> list[str]:
    """Guess at so many names from an address, at the service itself; what came of each."""
    seen = []
    for n in range(times):
        try:
            await town.services.sign_in.with_password(f"name-{n}", WRONG, client=client_at(address))
        except (InvalidCredentials, TooManyAttempts) as refused:
            seen.append(refused.code)
    return seen


async def test_one_address(town: Town) -> None:
    """Three hundred failures over as many names, then ten a minute; other addresses are not concerned."""
    town.cheap()
    person = await town.person()
    assert set(await spend(town, OFFICE, ADDRESS.burst)) == {"invalid_credentials"}
    answer = await town.log_in("yet-another", WRONG, OFFICE)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "6")
    assert (await town.log_in(person.username, address=OFFICE)).status_code == 429
    assert (await town.log_in(person.username, address="198.51.100.201")).status_code == 200
    town.clock.advance(seconds=6)
    assert (await town.log_in("yet-another", WRONG, OFFICE)).status_code == 401
    assert (await town.log_in("yet-another", WRONG, OFFICE)).status_code == 429
    events = [event for event in await town.events("login.throttled") if event["reason"] == "address_limit"]
    assert {str(event["ip"]) for event in events} == {OFFICE}
    assert {event["subject_id"].int for event in events} == {0}, "whose name it was is nothing of the address"


async def test_an_office_behind_one_address(town: Town) -> None:
    """People sign in from one address, in any number: only failures count."""
    town.cheap()
    people = [await town.person() for _ in range(3)]
    for n in range(ADDRESS.burst + 60):
        await town.services.sign_in.with_password(people[n % 3].username, PASSWORD, client=client_at(OFFICE))
    rows = await town.sql.fetch("SELECT place, full_at FROM address_throttle")
    assert {row["place"]: row["full_at"] <= town.clock.time for row in rows} == {OFFICE: True, "*": True}
    assert await town.counts() == []


async def test_a_household_is_one_address(town: Town) -> None:
    """All of an IPv6 /64 counts together; the next /64 for itself; an IPv4 address alone."""
    town.cheap()
    for n in range(4):
        await town.log_in(f"name-{n}", WRONG, f"2001:db8:0:7::{n:x}")
    await town.log_in("name", WRONG, "2001:db8:0:8::1")
    await town.log_in("name", WRONG, "203.0.113.9")
    rows = await town.sql.fetch("SELECT place, full_at FROM address_throttle WHERE place <> '*'")
    assert {row["place"]: (row["full_at"] - town.clock.time) // ADDRESS.step for row in rows} == {
        "2001:db8:0:7::": 4,
        "2001:db8:0:8::": 1,
        "203.0.113.9": 1,
    }


async def test_no_address(town: Town) -> None:
    """Through a Unix socket there is none: the account counts, and all together."""
    town.cheap()
    for _ in range(11):
        with pytest.raises((InvalidCredentials, TooManyAttempts)) as refused:
            await town.services.sign_in.with_password("nobody", WRONG, client=ClientContext(None, None, None))
    assert isinstance(refused.value, TooManyAttempts)
    assert [row["place"] for row in await town.sql.fetch("SELECT place FROM address_throttle")] == ["*"]


@pytest.mark.case(48)
async def test_one_password_over_ten_thousand_accounts(town: Town) -> None:
    """
    From as many addresses: all together are limited, with an alarm in the trail; who has a session, or a device that
    signed in before, notices nothing; a new device gets in when it is over.
    """
    town.cheap()
    victim = await town.person()
    device = await town.device_of(victim)
    session = (await town.log_in(victim.username, device_token=device)).json()
    town.verified.clear()
    codes: list[str] = []
    troubles: list[int] = []

    async def stuff(n: int) -> None:
        client = client_at(str(ip_address("10.0.0.0") + n))
        while True:
            try:
                await town.at(n % 2).sign_in.with_password(f"somebody-{n}", WRONG, client=client)
            except Unavailable:  # on a machine with much else to do
                troubles.append(n)
                continue
            except (InvalidCredentials, TooManyAttempts) as refused:
                codes.append(refused.code)
            return

    for start in range(0, 10_000, 25):
        await asyncio.gather(*(stuff(n) for n in range(start, start + 25)))
    assert len(codes) == 10_000
    assert 600 - len(troubles) <= len(town.verified) <= 600
    assert await town.sql.fetchval("SELECT count(*) FROM login_throttle") <= 600, "what is refused leaves no rows"

    form = {"grant_type": "refresh_token", "refresh_token": session["refresh_token"]}
    assert (await town.request("POST", "/token", data=form)).status_code == 200
    assert (await town.log_in(victim.username, device_token=device)).status_code == 200
    strange = await town.log_in(victim.username, address="192.0.2.200")
    assert (strange.status_code, strange.headers["retry-after"]) == (429, "1")
    bearer = {"Authorization": f"Bearer {session['access_token']}"}
    assert (await town.request("POST", "/logout", headers=bearer)).status_code == 200
    town.clock.advance(seconds=1)
    assert (await town.log_in(victim.username, address="192.0.2.200")).status_code == 200

    (alarm,) = await town.events("login.flooded")
    assert (alarm["outcome"], alarm["reason"], alarm["ip"]) == ("failure", "global_limit", None)
    for server in (0, 1):
        await town.at(server).throttling.close()
    town.clock.advance(minutes=2)
    await town.services.housekeeping.sum_up_login_failures()
    sums = [event["detail"] for event in await town.events("login.flooded") if event["reason"] == "rolled_up"]
    assert len(sums) == 1
    assert troubles or '"count":9400' in sums[0], "each refusal is counted: one was told, these were not"


async def test_the_limit_of_all_is_a_setting(own: OwnDatabase, town: Town) -> None:
    """ROTA_FAILED_LOGINS_PER_MINUTE bounds all together; successes give back what they took."""
    small = create_app(make_settings(own.app, failed_logins_per_minute=10), town.clock)
    town.apps.append(small)
    town.cheap()
    person = await town.person()
    for n in range(30):
        answer = await town.log_in(person.username, address=f"192.0.2.{n}", server=2)
        assert answer.status_code == 200
    statuses = [(await town.log_in(f"n-{n}", WRONG, f"192.0.2.{n}", server=2)).status_code for n in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    assert int((await town.log_in("n", WRONG, "192.0.2.99", server=2)).headers["retry-after"]) == 6


async def test_nobody_waits_for_each_other_in_a_circle(town: Town) -> None:
    """Right and wrong, of the same accounts and addresses and others, at two servers at once: no deadlock, no 503."""
    town.cheap()
    people = [await town.person() for _ in range(4)]
    devices = [await town.device_of(one) for one in people]
    statuses = []

    async def go(n: int) -> None:
        who, form = people[n % 4], {"device_token": devices[n % 4]} if n % 3 == 0 else {}
        password = WRONG if n % 5 == 0 else PASSWORD
        answer = await town.log_in(who.username, password, f"192.0.2.{n % 3}", server=n % 2, **form)
        statuses.append(answer.status_code)

    for start in range(0, 160, 32):
        await asyncio.gather(*(go(n) for n in range(start, start + 32)))
        town.clock.advance(minutes=15)
    assert set(statuses) <= {200, 401, 429}
    assert await town.sql.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0


async def test_registering_tells_no_more_names_than_an_address_may_ask(town: Town) -> None:
    """A name that is taken counts for the address; a new account, or a password that is refused, does not."""
    await town.person("ada")
    taken = {"username": "ada", "password": PASSWORD}
    await town.sql.execute(
        "INSERT INTO address_throttle VALUES ($1, $2)", OFFICE, town.clock.time + (ADDRESS.burst - 1) * ADDRESS.step
    )
    new = await town.request("POST", "/register", OFFICE, json={"username": "grace", "password": PASSWORD})
    assert new.status_code == 201
    short = await town.request("POST", "/register", OFFICE, json={"username": "grace", "password": "x"})
    assert short.status_code == 422
    assert (await town.request("POST", "/register", OFFICE, json=taken)).status_code == 409
    refused = await town.request("POST", "/register", OFFICE, json=taken)
    assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (
        429,
        "too_many_attempts",
        "6",
    )


async def test_an_unlogged_table_that_is_empty_after_a_crash(town: Town) -> None:
    """What the crash of a database leaves of it: the accounts' counts hold, the rates begin anew."""
    town.cheap()
    await town.fail("ada", 12)
    await town.sql.execute("TRUNCATE address_throttle")
    assert (await town.log_in("ada", WRONG)).status_code == 429
    rows = await town.sql.fetch(
        "SELECT relname, relpersistence::text FROM pg_class WHERE relname IN ('login_throttle', 'address_throttle')"
    )
    assert {row["relname"]: row["relpersistence"] for row in rows} == {"login_throttle": "p", "address_throttle": "u"}
