"""Devices that signed in before: nobody else's failures keep them out, and a stolen token is no key."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain import device_token
from app.domain.device_token import LIFETIME, PREFIX, RENEWED_AFTER, TOKEN_LENGTH, DeviceToken
from app.domain.events import NO_CLIENT, SYSTEM
from app.domain.throttling import ACCOUNT, DEVICE, DEVICES, everywhere
from app.services.acting import Acting
from tests.conftest import PASSWORD
from tests.guessing.conftest import WRONG, Town, statements_of

BY_SYSTEM = Acting(SYSTEM, NO_CLIENT)
KEY, OTHER = bytes(range(32)), bytes(32)
AT = datetime(2026, 11, 28, 12, tzinfo=UTC)
ADDRESS = "198.51.100.44"


@given(st.uuids(), st.uuids(), st.integers(0, 255))
def test_one_spelling(user: UUID, device: UUID, key_id: int) -> None:
    """What is built is read again; no other text of that length is, whatever single character is changed."""
    token = DeviceToken(user, device, AT)
    text = device_token.build(key_id, KEY, token)
    assert len(text) == TOKEN_LENGTH
    assert device_token.parse(text, {key_id: KEY}) == token
    assert device_token.parse(text, {key_id: OTHER}) is None
    assert device_token.parse(text, {}) is None
    for at in range(len(text)):
        other = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        assert device_token.parse(other, dict.fromkeys(range(256), KEY)) is None


@pytest.mark.parametrize(
    "noise",
    [
        "",
        PREFIX,
        "rota_rt_" + "A" * 72,
        PREFIX + "A" * 72,
        PREFIX + "A" * 71 + "=",
        PREFIX + "A" * 100_000,
        "\u0660" * 80,
    ],
)
def test_noise(noise: str) -> None:
    """Anything else is nothing, however long."""
    assert device_token.parse(noise, dict.fromkeys(range(256), KEY)) is None


def test_of_whom_and_when() -> None:
    """Of its user only, for half a year, and not from before all devices were forgotten."""
    token = DeviceToken(uuid4(), uuid4(), AT)
    assert token.is_of(token.user_id, now=AT, forgotten_at=None)
    assert not token.is_of(uuid4(), now=AT, forgotten_at=None)
    assert token.is_of(token.user_id, now=AT + LIFETIME - timedelta(seconds=1), forgotten_at=None)
    assert not token.is_of(token.user_id, now=AT + LIFETIME, forgotten_at=None)
    assert not token.is_of(token.user_id, now=AT - timedelta(days=1), forgotten_at=None)
    assert not token.is_of(token.user_id, now=AT, forgotten_at=AT)
    assert token.is_of(token.user_id, now=AT, forgotten_at=AT - timedelta(seconds=1))
    assert (token.is_due(AT + RENEWED_AFTER - timedelta(seconds=1)), token.is_due(AT + RENEWED_AFTER)) == (False, True)


async def test_a_known_device_signs_in_under_attack(town: Town) -> None:
    """The account used up, its address too, all together flooded: in at once, and the strangers still wait."""
    town.cheap()
    person = await town.person()
    device = await town.device_of(person)
    await town.fail(person.username, ACCOUNT.most, ADDRESS)
    hour = town.clock.time + timedelta(minutes=1)
    await town.sql.execute("UPDATE address_throttle SET full_at = $1 WHERE place = '*'", hour)
    await town.sql.execute(
        "INSERT INTO address_throttle VALUES ($1, $2) ON CONFLICT (place) DO UPDATE SET full_at = $2",
        ADDRESS,
        town.clock.time + timedelta(minutes=30),
    )
    assert (await town.log_in(person.username, address=ADDRESS)).status_code == 429
    assert (await town.log_in("somebody-else", address="192.0.2.77")).status_code == 429, "all together"
    answer = await town.log_in(person.username, address=ADDRESS, device_token=device)
    assert answer.status_code == 200
    assert "device_token" not in answer.json(), "it has one"
    kinds = await town.sql.fetch("SELECT kind FROM notifications")
    assert [row["kind"] for row in kinds] == ["signed_in_after_failures"]
    await town.sql.execute("DELETE FROM address_throttle")
    assert (await town.log_in(person.username, address="192.0.2.78")).status_code == 200, (
        "the owner came: others may again"
    )


async def test_nothing_is_written_for_a_known_device(town: Town) -> None:
    """The same statements as before there were limits: one read, then the sign-in itself; nothing is counted."""
    person = await town.person()
    device = await town.device_of(person)
    sent = statements_of(town)
    assert (await town.log_in(person.username, device_token=device)).status_code == 200
    assert not [one for one in sent if "throttle" in one and not one.lstrip().startswith("SELECT")]
    assert len([one for one in sent if "throttle" in one]) == 1
    verbs = [one.split()[0] for one in sent]
    # find; lock the user; the session with its event
    assert verbs == ["SELECT", "WITH", "WITH"], sent


async def test_own_failures_of_a_known_device(town: Town) -> None:
    """Five are free, then it waits like anybody; after ten it is a device like any other. A success clears them."""
    town.cheap()
    person = await town.person()
    device = await town.device_of(person)
    statuses = [(await town.log_in(person.username, WRONG, device_token=device)).status_code for _ in range(6)]
    assert statuses == [401] * 5 + [429]
    town.clock.advance(seconds=1)
    assert (await town.log_in(person.username, device_token=device)).status_code == 200
    assert await town.counts() == []
    looked_at = 0
    while looked_at < DEVICE.most:
        answer = await town.log_in(person.username, WRONG, device_token=device)
        looked_at += answer.status_code == 401
        town.clock.advance(seconds=int(answer.headers.get("retry-after", 0)))
    assert await town.counts() == [("device", 0, DEVICE.most), ("device", 32, DEVICE.most)]
    assert (await town.log_in(person.username, WRONG, device_token=device)).status_code == 401, "like any other"
    assert ("password", 0, 1) in await town.counts()


async def test_failures_of_one_device_do_not_shut_out_another(town: Town) -> None:
    """Whoever has stolen one token uses up its own guesses only."""
    town.cheap()
    person = await town.person()
    stolen, own = await town.device_of(person), await town.device_of(person)
    for _ in range(3 * DEVICE.most):
        answer = await town.log_in(person.username, WRONG, ADDRESS, device_token=stolen)
        town.clock.advance(seconds=min(int(answer.headers.get("retry-after", 0)), 900))
    assert (await town.log_in(person.username, device_token=own)).status_code == 200


@pytest.mark.parametrize("tokens", [1, 4, 12])
async def test_parallel_guesses_with_stolen_tokens(town: Town, tokens: int) -> None:
    """Hundreds at once, with the tokens of one or several devices and without: never more than a hundred looked at."""
    town.count()
    person = await town.person()
    stolen = [await town.device_of(person) for _ in range(tokens)]
    town.verified.clear()
    forms: list[dict[str, str]] = [{"device_token": token} for token in stolen for _ in range(120 // tokens)]
    forms += [{} for _ in range(80)]
    answers = await asyncio.gather(
        *(town.log_in(person.username, WRONG, f"198.51.100.{n}", server=n % 2, **form) for n, form in enumerate(forms))
    )
    assert {answer.status_code for answer in answers} <= {401, 429, 503}
    assert len(town.verified) <= ACCOUNT.together + DEVICES.most + len(town.apps), "a server is one guess ahead"


async def test_stolen_tokens_after_most_guesses_are_used_up(town: Town) -> None:
    """What is left is left for all known devices together, however many come at once at several servers."""
    town.cheap()
    person = await town.person()
    stolen = [await town.device_of(person) for _ in range(12)]
    for n in range(18):
        answer = await town.log_in(person.username, WRONG, device_token=stolen[n % 4])
        assert answer.status_code == 401
    before = len(town.verified)
    guesses = (
        town.log_in(person.username, WRONG, server=n % 2, device_token=stolen[n % 12], address=f"198.51.100.{n}")
        for n in range(180)
    )
    await asyncio.gather(*guesses)
    left = DEVICES.most - 18
    assert len(town.verified) - before <= left + ACCOUNT.together


@pytest.mark.parametrize("kind", ["noise", "forged", "another user's", "expired", "of a wrong length"])
async def test_tokens_that_are_none(town: Town, kind: str) -> None:
    """A stranger with a token that does not count is a stranger: the same answers, and a new token at a success."""
    town.cheap()
    person, other = await town.person(), await town.person()
    good = await town.device_of(person)
    token = {
        "noise": "noise",
        "forged": good[:-1] + ("A" if good[-1] != "A" else "B"),
        "another user's": await town.device_of(other),
        "expired": good,
        "of a wrong length": good + "A" * 8000,
    }[kind]
    if kind == "expired":
        town.clock.advance(days=60)  # the trail has room for no more; the token is made older instead
        old = DeviceToken(person.user.id, uuid4(), town.clock.time - LIFETIME)
        key_id = town.services.sign_in._keyring.minting.key_id
        token = device_token.build(key_id, town.services.sign_in._keyring.device_token_keys[key_id], old)
    wrong = await town.log_in(person.username, WRONG, device_token=token)
    plain = await town.log_in(person.username, WRONG)
    assert (
        (wrong.status_code, wrong.json()["code"])
        == (plain.status_code, plain.json()["code"])
        == (401, "invalid_credentials")
    )
    assert await town.counts() == [("password", 0, 2)]
    right = await town.log_in(person.username, device_token=token)
    assert right.status_code == 200
    assert right.json()["device_token"].startswith(PREFIX)


async def test_a_token_beyond_what_any_is_long(town: Town) -> None:
    """A field longer than any token is a malformed request, as anywhere; it is not repeated."""
    person = await town.person()
    answer = await town.log_in(person.username, device_token="x" * 9000)
    assert answer.status_code == 422
    assert "xxxx" not in answer.text


async def test_a_password_change_keeps_devices_and_forgetting_does_not(town: Town) -> None:
    """Who changes the password under attack stays known; an administrator who says --forget makes all strangers."""
    town.cheap()
    person = await town.person()
    device = await town.device_of(person)
    town.clock.advance(seconds=5)
    token, _ = await town.services.credentials.reset(person.user.id, forget=False, by=BY_SYSTEM)
    new = {"token": token.token, "new_password": PASSWORD}
    assert (await town.request("PUT", "/password", json=new)).status_code == 200
    assert "device_token" not in (await town.log_in(person.username, device_token=device)).json()
    token, _ = await town.services.credentials.reset(person.user.id, forget=True, by=BY_SYSTEM)
    assert (await town.request("PUT", "/password", json={**new, "token": token.token})).status_code == 200
    town.clock.advance(seconds=5)
    answer = await town.log_in(person.username, device_token=device)
    assert answer.status_code == 200
    assert answer.json()["device_token"] != device


async def test_a_device_is_renewed_on_the_way(town: Town) -> None:
    """After three months a sign-in hands out the same device's next token."""
    town.cheap()
    person = await town.person()
    keyring = town.services.sign_in._keyring
    key_id = keyring.minting.key_id
    key = keyring.device_token_keys[key_id]
    former = DeviceToken(person.user.id, uuid4(), town.clock.time - RENEWED_AFTER)
    answer = await town.log_in(person.username, device_token=device_token.build(key_id, key, former))
    renewed = device_token.parse(answer.json()["device_token"], keyring.device_token_keys)
    assert renewed is not None
    assert renewed.device_id == former.device_id
    assert renewed.issued_at > former.issued_at


async def test_no_token_is_kept_anywhere(town: Town) -> None:
    """Neither the trail nor any table of ours holds a device's token or its id."""
    person = await town.person()
    device = await town.device_of(person)
    await town.log_in(person.username, WRONG, device_token=device)
    token = device_token.parse(device, town.services.sign_in._keyring.device_token_keys)
    assert token is not None
    for table in ("audit_events", "login_throttle", "families", "users", "login_failures"):
        text = str([tuple(row) for row in await town.sql.fetch(f"SELECT * FROM {table}")])
        assert device not in text
        assert str(token.device_id) not in text
        assert token.device_id.hex not in text


async def test_a_guess_that_was_broken_off_is_counted(town: Town) -> None:
    """The first guess of a device is counted when it was wrong; whoever leaves before the answer gets none for free."""
    person = await town.person()
    device = await town.device_of(person)
    hashing = asyncio.Event()

    async def verify(_password: str, _stored: str | None) -> bool:
        hashing.set()
        await asyncio.Event().wait()
        return False

    town.verify_by(verify)
    guess = asyncio.create_task(town.log_in(person.username, WRONG, device_token=device))
    await hashing.wait()
    guess.cancel()
    await asyncio.gather(guess, return_exceptions=True)
    await town.services.throttling.close()
    assert await town.counts() == [("device", 0, 1), ("device", 32, 1)]


def test_the_global_rate_is_a_minutes_worth() -> None:
    """Whatever the setting, a bucket lasts a minute."""
    for setting in (10, 600, 1_000_000):
        assert abs(everywhere(setting).window - timedelta(minutes=1)) < timedelta(seconds=1)
