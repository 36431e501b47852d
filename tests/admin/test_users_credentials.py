"""From an administrator's hand to a password that nobody else has seen: one-time passwords and set-password tokens."""

import asyncio
import base64
import json
import re
from typing import Any
from uuid import uuid4

import pytest

from app.domain.errors import InvalidCredentials, PasswordTokenRejected, RotaError
from app.domain.password_token import build, parse
from app.domain.users import Role
from app.security.keys import Keyring
from tests.admin.conftest import Office
from tests.conftest import PASSWORD, SECRET, MakeServices, OwnDatabase, client_at

NEW = "a password of my own"


async def sign_in(office: Office, username: str, password: str) -> tuple[int, dict[str, Any]]:
    answer = await office.http.post("/token", data={"username": username, "password": password})
    return answer.status_code, answer.json()


async def invite(office: Office, username: str, credential: str, **more: str) -> dict[str, Any]:
    return await office.ok("POST", "/admin/users", 201, json={"username": username, "credential": credential, **more})


@pytest.mark.case(3)
async def test_one_time_password(office: Office) -> None:
    """It gives no session but a token, as often as one signs in; the token sets a password, and then it is over."""
    made = await invite(office, "ada", "one_time_password", role="auditor")
    assert (made["role"], made["password_token"]) == ("auditor", None)
    seen = await office.ok("GET", f"/admin/users/{made['id']}")
    assert (seen["has_password"], seen["must_change_password"]) == (True, True)
    tokens = []
    for _ in range(2):
        status, answer = await sign_in(office, "ada", made["one_time_password"])
        assert (status, answer["code"], answer["expires_in"]) == (403, "password_change_required", 600)
        assert not {"access_token", "refresh_token"} & set(answer)
        tokens.append(answer["password_token"])
    assert seen["active_sessions"] == await office.sql.fetchval(
        "SELECT count(*) FROM families WHERE user_id = $1::uuid", made["id"]
    )
    body = {"token": tokens[0], "new_password": NEW}
    await office.refused("PUT", "/password", 401, "password_token_rejected", json=body)
    done = await office.ok("PUT", "/password", json={"token": tokens[1], "new_password": NEW})
    assert done == {"message": "The password has been set", "sessions_ended": 0}
    assert (await sign_in(office, "ada", made["one_time_password"]))[0] == 401
    assert (await sign_in(office, "ada", NEW))[0] == 200
    seen = await office.ok("GET", f"/admin/users/{made['id']}")
    assert (seen["has_password"], seen["must_change_password"]) == (True, False)
    issued = [json.loads(event["detail"]) for event in await office.events(made["id"], "credential.issued")]
    assert [(one["kind"], one["cause"]) for one in issued] == [
        ("one_time_password", "created"),
        ("set_password_token", "sign_in"),
        ("set_password_token", "sign_in"),
    ]
    assert len(await office.events(made["id"], "password.reset")) == 1


async def test_one_time_password_of_a_wrong_guess(office: Office) -> None:
    """The flag shows to nobody who does not know the password: the plain 401 of any wrong one."""
    await invite(office, "ada", "one_time_password")
    wrong = await sign_in(office, "ada", "wrong password")
    unknown = await sign_in(office, "nobody", "wrong password")
    assert wrong[0] == unknown[0] == 401
    assert {**wrong[1], "request_id": None} == {**unknown[1], "request_id": None}


async def test_credentials_pass_their_time(office: Office) -> None:
    """A day for what is handed out, ten minutes for what a one-time password is exchanged for; to the second."""
    one = await invite(office, "one", "one_time_password")
    two = await invite(office, "two", "set_password_token")
    exchanged = (await sign_in(office, "one", one["one_time_password"]))[1]["password_token"]
    office.clock.advance(minutes=10)
    with pytest.raises(PasswordTokenRejected):
        await office.services.credentials.redeem(exchanged, NEW, client=client_at())
    office.clock.advance(hours=23, minutes=49, seconds=59)
    status, answer = await sign_in(office, "one", one["one_time_password"])
    assert (status, answer["code"]) == (403, "password_change_required")
    office.clock.advance(seconds=1)
    late, wrong = await sign_in(office, "one", one["one_time_password"]), await sign_in(office, "one", "wrong password")
    assert late[0] == wrong[0] == 401
    assert {**late[1], "request_id": None} == {**wrong[1], "request_id": None}
    await office.refused(
        "PUT", "/password", 401, "password_token_rejected", json={"token": two["password_token"], "new_password": NEW}
    )
    reasons = [event["reason"] for event in await office.events(one["id"], "credential.refused")]
    assert reasons == ["token_expired", "one_time_password_expired"]
    assert not await office.services.credentials.remove_expired()
    assert await office.sql.fetchval("SELECT count(*) FROM password_tokens WHERE user_id = $1::uuid", two["id"]) == 0
    assert await office.sql.fetchval("SELECT count(*) FROM password_tokens WHERE user_id = $1::uuid", one["id"]) == 1


async def test_set_password_token(office: Office) -> None:
    """No password until it is used; a password that may not be set leaves it as it is; then once, and never again."""
    made = await invite(office, "ada", "set_password_token")
    assert made["one_time_password"] is None
    assert re.fullmatch(r"rota_pt_[A-Za-z0-9_-]{76}", made["password_token"])
    seen = await office.ok("GET", f"/admin/users/{made['id']}")
    assert (seen["has_password"], seen["must_change_password"], seen["password_changed_at"]) == (False, True, None)
    short = {"token": made["password_token"], "new_password": "short"}
    await office.refused("PUT", "/password", 422, "password_refused", json=short)
    body = {"token": made["password_token"], "new_password": NEW}
    await office.ok("PUT", "/password", json=body)
    assert (await sign_in(office, "ada", NEW))[0] == 200
    again = await office.refused("PUT", "/password", 401, "password_token_rejected", json=body)
    noise = await office.refused("PUT", "/password", 401, "password_token_rejected", json={**body, "token": "noise"})
    assert {**again, "request_id": None} == {**noise, "request_id": None}


async def test_none_is_no_password(office: Office) -> None:
    """Who signs in elsewhere: nothing that anybody may type is right, and it costs a hash like any other."""
    made = await invite(office, "ada", "none")
    assert (made["one_time_password"], made["password_token"], made["expires_at"]) == (None, None, None)
    seen = await office.ok("GET", f"/admin/users/{made['id']}")
    assert (seen["has_password"], seen["must_change_password"]) == (False, False)
    for password in ("None", "null", PASSWORD):
        assert (await sign_in(office, "ada", password))[0] == 401


async def test_reset_by_an_administrator(office: Office) -> None:
    """The old password serves until the token is used; all sessions end with it; a newer token voids the older."""
    ada = await office.person("ada")
    path = f"/admin/users/{ada.user.id}/password-token"
    headers = await office.headers(ada)
    older, newer = [(await office.ok("POST", path, 201)) for _ in range(2)]
    assert older["sessions_ended"] == 0
    assert (await office.http.get("/me", headers=headers)).status_code == 200
    await ada.sign_in()
    with pytest.raises(PasswordTokenRejected):
        await office.services.credentials.redeem(older["password_token"], NEW, client=client_at())
    done = await office.ok("PUT", "/password", json={"token": newer["password_token"], "new_password": NEW})
    assert done["sessions_ended"] == 2
    assert (await office.http.get("/me", headers=headers)).status_code == 401
    with pytest.raises(InvalidCredentials):
        await ada.sign_in()
    assert {event["reason"] for event in await office.events(ada.user.id, "session.ended")} == {"password_change"}


async def test_reset_that_forgets(office: Office) -> None:
    """Somebody else knows the password: it is void at once, and so is every session."""
    ada = await office.person("ada")
    headers = await office.headers(ada)
    path = f"/admin/users/{ada.user.id}/password-token"
    answer = await office.ok("POST", path, 201, json={"forget_password": True})
    assert answer["sessions_ended"] == 1
    assert (await office.http.get("/me", headers=headers)).status_code == 401
    with pytest.raises(InvalidCredentials):
        await ada.sign_in()
    await office.ok("PUT", "/password", json={"token": answer["password_token"], "new_password": NEW})
    assert (await sign_in(office, "ada", NEW))[0] == 200
    assert len(await office.events(ada.user.id, "password.forgotten")) == 1


async def test_a_token_is_void_when_the_user_is_shut_out_or_helps_themselves(office: Office) -> None:
    """Disabled: refused, and good again when let in. Changed by the user: gone, or its holder could undo that."""
    ada = await office.person("ada")
    path = f"/admin/users/{ada.user.id}"
    body = {"token": (await office.ok("POST", f"{path}/password-token", 201))["password_token"], "new_password": NEW}
    await office.ok("PATCH", path, json={"disabled": True})
    await office.refused("PUT", "/password", 401, "password_token_rejected", json=body)
    await office.ok("PATCH", path, json={"disabled": False})
    change = {"current_password": PASSWORD, "new_password": "mine by myself alone"}
    await office.ok("PUT", "/me/password", headers=await office.headers(ada), json=change)
    await office.refused("PUT", "/password", 401, "password_token_rejected", json=body)
    reasons = [event["reason"] for event in await office.events(ada.user.id, "credential.refused")]
    assert reasons == ["user_shut_out", "token_unknown"]


@pytest.mark.case(3)
async def test_one_token_many_uses_at_once(office: Office, own: OwnDatabase, make_services: MakeServices) -> None:
    """Through two engines, sixteen at once: one succeeds, its password is the one that signs in, one event."""
    engines = [make_services(url=own.app), make_services(url=own.app)]
    for turn in range(4):
        made = await invite(office, f"ada-{turn}", "set_password_token")
        results = await asyncio.gather(
            *(
                engines[n % 2].credentials.redeem(made["password_token"], f"{NEW} {n}", client=client_at())
                for n in range(16)
            ),
            return_exceptions=True,
        )
        won = [n for n, result in enumerate(results) if result == 0]
        assert len(won) == 1
        assert all(isinstance(result, RotaError) for n, result in enumerate(results) if n not in won)
        assert (await sign_in(office, f"ada-{turn}", f"{NEW} {won[0]}"))[0] == 200
        assert len(await office.events(made["id"], "password.reset")) == 1


async def test_no_sign_in_slips_past_a_reset(office: Office, own: OwnDatabase, make_services: MakeServices) -> None:
    """A sign-in with the old password either ends with the reset or is refused."""
    engines = [make_services(url=own.app), make_services(url=own.app)]
    for _ in range(6):
        ada = await office.person()
        token = (await office.ok("POST", f"/admin/users/{ada.user.id}/password-token", 201))["password_token"]
        await asyncio.gather(
            engines[0].credentials.redeem(token, NEW, client=client_at()),
            *(engines[1].sign_in.with_password(ada.username, PASSWORD, client=client_at()) for _ in range(3)),
            return_exceptions=True,
        )
        live = "SELECT count(*) FROM families WHERE user_id = $1 AND ended_at IS NULL"
        assert await office.sql.fetchval(live, ada.user.id) == 0


async def test_nothing_of_it_is_kept(office: Office, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither password nor token, nor an unkeyed hash of either, is in any table or on any log line."""
    from hashlib import sha256  # noqa: PLC0415 - beside its only use

    one, two = await invite(office, "one", "one_time_password"), await invite(office, "two", "set_password_token")
    exchanged = (await sign_in(office, "one", one["one_time_password"]))[1]["password_token"]
    await office.http.put("/password", json={"token": exchanged[:-4] + "AAAA", "new_password": NEW})
    tables = await office.sql.fetch(
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
    )
    kept = "".join([str(await office.sql.fetch(f"SELECT * FROM {table[0]}")) for table in tables])
    said = "".join(capfd.readouterr())
    for secret in (one["one_time_password"], two["password_token"], exchanged):
        body = base64.urlsafe_b64decode(secret.removeprefix("rota_pt_")) if "rota_pt_" in secret else secret.encode()
        for trace in (
            secret,
            sha256(secret.encode()).hexdigest(),
            sha256(body[:49]).hexdigest(),
            repr(body[17:49])[2:-1],
        ):
            assert trace not in kept
            assert trace not in said
    assert "credential.issued" in kept


def test_the_token_has_one_spelling() -> None:
    """Any other character, key or length is noise, before any query; an older secret's tokens go on to be read."""
    old, new = Keyring([SECRET.encode()]), Keyring([b"n" * 40, SECRET.encode()])
    user = uuid4()
    token, digest = build(old.password_token_keys[0], user_id=user, secret=bytes(range(32)))
    for keyring in (old, new):
        found = parse(token, keyring.password_token_keys)
        assert found is not None
        assert (found.user_id, found.digest) == (user, digest)
    assert build(new.password_token_keys[0], user_id=user, secret=bytes(range(32)))[1] != digest
    assert parse(token, Keyring([b"n" * 40]).password_token_keys) is None
    for at in range(len(token)):
        assert parse(token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :], old.password_token_keys) is None
    for other in (token[:-1], token + "A", token + "=", " " + token, token.upper(), "", "rota_pt_"):
        assert parse(other, old.password_token_keys) is None


async def test_a_flood_of_refusals_is_counted(office: Office) -> None:
    """Beyond five that are alike in a minute there is a sum and no event each."""
    ada = await office.person(role=Role.USER)
    token = (await office.ok("POST", f"/admin/users/{ada.user.id}/password-token", 201))["password_token"]
    await office.ok("PUT", "/password", json={"token": token, "new_password": NEW})
    for _ in range(9):
        await office.refused(
            "PUT", "/password", 401, "password_token_rejected", json={"token": token, "new_password": NEW}
        )
    office.clock.advance(minutes=2)
    await office.services.housekeeping.sum_up_login_failures()
    assert len(await office.events(ada.user.id, "credential.refused")) == 5
    (summed,) = await office.events(ada.user.id, "login.failed")
    assert json.loads(summed["detail"])["count"] == 4
    assert json.loads(summed["detail"])["of"] == "token_unknown"
