"""The refresh token in a cookie: what each route does with it."""

import asyncio
from typing import Any

import httpx2
import pytest

from app.container import Container
from app.domain.refresh_token import TOKEN_LENGTH, is_spelled
from app.domain.users import Role
from tests.browser.conftest import DEVICE, OWN, REFRESH, Browser, MakeName
from tests.conftest import PASSWORD, Events, MakePerson, MakeServices, MovableClock, client_at

KEY = {"Idempotency-Key": "0123456789abcdefghijklmnop"}


async def reasons(events_of: Events, services: Container, username: str) -> list[str]:
    """Why somebody's sessions ended, oldest first."""
    async with services.database.begin() as db:
        user = await db.users.find_by_key(username)
    assert user is not None
    return [event["reason"] for event in await events_of(user.id) if event["action"] == "session.ended"]


async def test_the_token_is_in_the_cookie_and_nowhere_else(
    browser: Browser, username: str, clock: MovableClock
) -> None:
    """At sign-in and at each refresh: no answer has it in the body, the cookie has it with all its attributes."""
    told = await browser.sign_in(username)
    seen = [browser.jar[REFRESH]]
    assert "refresh_token" not in told
    assert (told["refresh_expires_in"], browser.seconds[REFRESH]) == (604_800, 604_800)
    empty_form: dict[str, Any] = {"headers": {"Content-Type": "application/x-www-form-urlencoded"}}
    bodies: tuple[dict[str, Any], ...] = ({}, {"json": {}}, empty_form)
    for more in bodies:
        clock.advance(minutes=1)
        answer = await browser.post("/refresh", **more)
        assert answer.status_code == 200, answer.text
        assert "refresh_token" not in answer.json()
        assert answer.json()["session_id"] == told["session_id"]
        assert seen[-1] not in answer.text
        assert browser.jar[REFRESH] not in answer.text
        assert answer.headers["cache-control"] == "no-store"
        seen.append(browser.jar[REFRESH])
    assert len(set(seen)) == 4
    assert all(is_spelled(token) and len(token) == TOKEN_LENGTH for token in seen)


async def test_the_cookie_lives_as_long_as_the_token(browser: Browser, username: str, clock: MovableClock) -> None:
    """`Max-Age` is what is left of the session, not always the idle limit."""
    await browser.sign_in(username)
    for _ in range(28):
        clock.advance(days=1)
        assert (await browser.post("/refresh")).status_code == 200
    answer = await browser.post("/refresh")
    assert answer.json()["refresh_expires_in"] == browser.seconds[REFRESH] == 2 * 86_400


async def test_by_default_the_token_is_in_the_body(browser: Browser, username: str) -> None:
    """Nobody gets a cookie who has not asked for one; a third place is none."""
    form = {"username": username, "password": PASSWORD}
    for more in ({}, {"refresh_token_in": "body"}):
        answer = await browser.post("/token", data={**form, **more})
        assert is_spelled(answer.json()["refresh_token"])
        assert "set-cookie" not in answer.headers
    for wrong in ("Cookie", "both", "cookie,body", "cookie\r\nSet-Cookie: a=b"):
        answer = await browser.post("/token", data={**form, "refresh_token_in": wrong})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["loc"] == ["refresh_token_in"]
        assert "set-cookie" not in answer.headers


async def test_a_lost_answer_costs_nothing(browser: Browser, username: str, clock: MovableClock) -> None:
    """The same cookie again gets the same successor: within grace, and later by the `Idempotency-Key`."""
    await browser.sign_in(username)
    first = dict(browser.jar)
    assert (await browser.post("/refresh", headers=KEY)).status_code == 200
    second = dict(browser.jar)
    for wait in (0, 30):
        clock.advance(minutes=wait)
        browser.jar = dict(first)
        answer = await browser.post("/refresh", headers=KEY)
        assert answer.status_code == 200, answer.text
        assert "refresh_token" not in answer.json()
        assert browser.jar == second
    assert (await browser.post("/refresh")).status_code == 200


async def test_two_tabs_at_once_stay_signed_in(browser: Browser, username: str) -> None:
    """Twenty refreshes with one cookie on as many connections: one successor, in every jar."""
    await browser.sign_in(username)
    tabs = [Browser(browser.http, jar=dict(browser.jar)) for _ in range(20)]
    answers = await asyncio.gather(*(tab.post("/refresh") for tab in tabs))
    assert {answer.status_code for answer in answers} == {200}
    assert len({tab.jar[REFRESH] for tab in tabs}) == 1


async def test_reuse_of_a_cookie_ends_the_session_and_clears(
    browser: Browser, username: str, clock: MovableClock
) -> None:
    """A stolen cookie that comes late is reuse; both jars are emptied by their next refresh."""
    await browser.sign_in(username)
    thief = Browser(browser.http, jar=dict(browser.jar))
    told = (await browser.post("/refresh")).json()
    clock.advance(minutes=1)
    refused = await thief.post("/refresh")
    assert (refused.status_code, refused.json()["code"]) == (401, "refresh_token_rejected")
    assert REFRESH not in thief.jar
    assert await browser.whose(told["access_token"]) is None
    assert (await browser.post("/refresh")).status_code == 401
    assert REFRESH not in browser.jar


@pytest.mark.parametrize("end", ["logout", "admin", "password", "idle"])
async def test_a_dead_cookie_is_cleared_whatever_ended_it(
    browser: Browser, username: str, services: Container, clock: MovableClock, end: str
) -> None:
    """401 with the cookie taken away; the next refresh has nothing to show, and is 422 as without any cookie."""
    told = await browser.sign_in(username)
    if end == "logout":
        assert (await browser.http.post("/logout", headers=bearer(told))).status_code == 200
    elif end == "password":
        other = await Browser(browser.http).sign_in(username)
        body = {"current_password": PASSWORD, "new_password": PASSWORD + "!"}
        assert (await browser.http.put("/me/password", json=body, headers=bearer(other))).status_code == 200
    elif end == "admin":
        family, _ = await services.sessions.get_anybodys(told["session_id"])
        await services.sessions.end_all_of(family.user_id, actor=admin(), client=client_at())
    else:
        clock.advance(days=7)
    answer = await browser.post("/refresh")
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_grant")
    assert REFRESH not in browser.jar
    assert (await browser.post("/refresh")).status_code == 422


async def test_trouble_takes_no_cookie_away(browser: Browser, username: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 leaves the cookie where it is; after it, the same cookie refreshes."""
    from app.domain.errors import Unavailable  # noqa: PLC0415 - beside its only use
    from app.services.refresh import Refresh  # noqa: PLC0415 - likewise

    await browser.sign_in(username)

    async def away(*_: object, **__: object) -> None:
        raise Unavailable

    with monkeypatch.context() as patch:
        patch.setattr(Refresh, "rotate", away)
        answer = await browser.post("/refresh")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "set-cookie" not in answer.headers
    assert (await browser.post("/refresh")).status_code == 200


async def test_a_changed_password_keeps_the_browser_that_changed_it(browser: Browser, username: str) -> None:
    """Its cookie goes on; it is not looked at by that route, nor by the one for a set-password token."""
    told = await browser.sign_in(username)
    body = {"current_password": PASSWORD, "new_password": PASSWORD + "!"}
    changed = await browser.send("PUT", "/me/password", json=body, token=told["access_token"])
    assert (changed.status_code, "set-cookie" in changed.headers) == (200, False)
    assert (await browser.send("PUT", "/me/password", json=body)).status_code == 401
    assert (await browser.post("/refresh")).json()["session_id"] == told["session_id"]


async def test_the_refresh_grant_is_a_refresh(browser: Browser, username: str) -> None:
    """`POST /token` with `grant_type=refresh_token` spends the cookie too, and never shows its token."""
    told = await browser.sign_in(username)
    for place in ({}, {"refresh_token_in": "body"}, {"refresh_token_in": "cookie"}):
        before = browser.jar[REFRESH]
        answer = await browser.post("/token", data={"grant_type": "refresh_token", **place})
        assert answer.status_code == 200, answer.text
        assert answer.json()["session_id"] == told["session_id"]
        assert "refresh_token" not in answer.json()
        assert browser.jar[REFRESH] != before
    in_body = (await browser.http.post("/token", data={"username": username, "password": PASSWORD})).json()
    fresh = Browser(browser.http)
    form = {"grant_type": "refresh_token", "refresh_token": in_body["refresh_token"], "refresh_token_in": "cookie"}
    moved = await fresh.post("/token", data=form)
    assert "refresh_token" not in moved.json()
    assert (await fresh.post("/refresh")).json()["session_id"] == in_body["session_id"]
    assert (await Browser(browser.http).post("/token", data={"grant_type": "refresh_token"})).status_code == 422


async def test_logout_by_the_cookie_alone(browser: Browser, username: str) -> None:
    """Ends the session, clears the cookie, has the browser clear what it kept; again it says that it was over."""
    told = await browser.sign_in(username)
    kept = dict(browser.jar)
    answer = await browser.post("/logout")
    assert answer.json() == {
        "message": "Logged out successfully",
        "session_id": told["session_id"],
        "ended": True,
    }
    assert REFRESH not in browser.jar
    assert answer.headers["clear-site-data"] == '"cache", "storage"'
    assert await browser.whose(told["access_token"]) is None
    browser.jar = kept
    again = await browser.post("/logout")
    assert (again.status_code, again.json()["ended"], REFRESH in browser.jar) == (200, False, False)
    nobody = await browser.post("/logout")
    assert nobody.status_code == 401
    assert "clear-site-data" not in nobody.headers


async def test_logout_by_a_spent_cookie(browser: Browser, username: str, clock: MovableClock) -> None:
    """Whoever held any of a session's tokens may end it, in a cookie as in a body; that is no reuse."""
    told = await browser.sign_in(username)
    old = Browser(browser.http, jar=dict(browser.jar))
    await browser.post("/refresh")
    clock.advance(hours=1)
    answer = await old.post("/logout", token=told["access_token"])
    assert (answer.status_code, answer.json()["ended"], REFRESH in old.jar) == (200, True, False)


async def test_logout_takes_all_that_agrees(browser: Browser, username: str, clock: MovableClock) -> None:
    """Access token (live or expired), body and cookie of one session; of older generations too."""
    told = await browser.sign_in(username)
    first = browser.jar[REFRESH]
    await browser.post("/refresh")
    clock.advance(minutes=20)
    answer = await browser.post("/logout", token=told["access_token"], json={"refresh_token": first})
    assert (answer.status_code, answer.json()["ended"]) == (200, True)


async def test_a_logout_without_a_cookie_clears_sites_too(browser: Browser, username: str) -> None:
    """`Clear-Site-Data` comes with every logout; a cookie that was not there is not spoken of."""
    tokens = (await browser.http.post("/token", data={"username": username, "password": PASSWORD})).json()
    answer = await browser.http.post("/logout", headers=bearer(tokens))
    assert answer.headers["clear-site-data"] == '"cache", "storage"'
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("expired", [False, True])
@pytest.mark.parametrize("path", ["/refresh", "/logout", "/token"])
async def test_header_and_cookie_of_different_sessions(
    browser: Browser, make_name: MakeName, clock: MovableClock, path: str, *, expired: bool
) -> None:
    """400, nothing ended, nothing spent, the cookie stays: also when the access token has expired meanwhile."""
    one, other = await make_name(), await make_name()
    alice = await Browser(browser.http).sign_in(one)
    bob = await browser.sign_in(other)
    kept = dict(browser.jar)
    if expired:
        clock.advance(minutes=20)
    more = {"data": {"grant_type": "refresh_token"}} if path == "/token" else {}
    answer = await browser.post(path, token=alice["access_token"], **more)
    assert (answer.status_code, answer.json()["code"]) == (400, "credentials_disagree")
    assert "set-cookie" not in answer.headers
    assert browser.jar == kept
    if not expired:
        assert (await browser.whose(alice["access_token"]), await browser.whose(bob["access_token"])) == (one, other)
    clock.advance(minutes=1)  # past grace: had the cookie been spent, this would be reuse
    assert (await browser.post("/refresh", token=bob["access_token"])).json()["session_id"] == bob["session_id"]


@pytest.mark.parametrize("path", ["/refresh", "/logout", "/token"])
async def test_body_and_cookie_of_different_sessions(browser: Browser, username: str, path: str) -> None:
    """Likewise, and for a body with a token that is none: nothing is guessed."""
    other = (await browser.http.post("/token", data={"username": username, "password": PASSWORD})).json()
    told = await browser.sign_in(username)
    kept = dict(browser.jar)
    noise = "rota_rt_" + "A" * 104
    for token in (other["refresh_token"], noise, "garbage"):
        form = {"grant_type": "refresh_token", "refresh_token": token}
        answer = await browser.post(path, data=form)
        assert (answer.status_code, answer.json()["code"]) == (400, "credentials_disagree"), answer.text
        assert browser.jar == kept
    for tokens in (other, told):
        assert await browser.whose(tokens["access_token"]) == username
    assert (await browser.post("/refresh")).status_code == 200
    assert (await browser.http.post("/refresh", json={"refresh_token": other["refresh_token"]})).status_code == 200


async def test_a_body_that_says_the_cookie_again(browser: Browser, username: str) -> None:
    """The same token in both is one meaning, and answered by the cookie; another generation beside it is not."""
    told = await browser.sign_in(username)
    first = browser.jar[REFRESH]
    answer = await browser.post("/refresh", json={"refresh_token": first})
    assert (answer.status_code, "refresh_token" in answer.json()) == (200, False)
    other = await browser.post("/refresh", json={"refresh_token": first})
    assert (other.status_code, other.json()["code"]) == (400, "credentials_disagree")
    assert (await browser.post("/refresh")).json()["session_id"] == told["session_id"]


async def test_a_cookie_of_a_former_secret(browser: Browser, username: str) -> None:
    """
    The shape of a token, and no server with our keys has made it: refused and cleared, no hindrance to signing in or
    to ending the session of an access token.
    """
    noise = {REFRESH: "rota_rt_" + "A" * 104}
    for path in ("/refresh", "/logout"):
        browser.jar = dict(noise)
        answer = await browser.post(path)
        assert (answer.status_code, answer.json()["code"], browser.jar) == (401, "refresh_token_rejected", {})
    browser.jar = dict(noise)
    told = await browser.sign_in(username)
    browser.jar = dict(noise)
    ended = await browser.post("/logout", token=told["access_token"])
    assert (ended.status_code, ended.json()["ended"], browser.jar) == (200, True, {})


@pytest.mark.parametrize("scheme", ["Basic cHJveHk6cGFzcw==", "Bearer garbage", "Bearer", "Digest x"])
async def test_another_authorization_beside_the_cookie(browser: Browser, username: str, scheme: str) -> None:
    """A proxy's password names no session of ours: the cookie counts."""
    told = await browser.sign_in(username)
    refreshed = await browser.post("/refresh", headers={"Authorization": scheme})
    assert refreshed.json()["session_id"] == told["session_id"]
    assert (await browser.post("/logout", headers={"Authorization": scheme})).json()["ended"] is True


async def test_a_former_secret_s_access_token_beside_the_cookie(
    browser: Browser, username: str, make_services: MakeServices, make_person: MakePerson, clock: MovableClock
) -> None:
    """
    Its key is not known any more, so it opens nothing; but it tells that the page is another person's. One that is not
    ours even by its own word is no hindrance.
    """
    told = await browser.sign_in(username)
    retired = make_services(clock, secrets="another-secret-another-secret-another-1")
    foreign = make_services(clock, secrets="another-secret-another-secret-another-1", issuer="http://elsewhere")
    page = (await (await make_person(retired)).sign_in()).access_token
    elsewhere = (await (await make_person(foreign)).sign_in()).access_token
    for path in ("/refresh", "/logout"):
        answer = await browser.post(path, token=page)
        assert (answer.status_code, answer.json()["code"]) == (400, "credentials_disagree")
    assert (await browser.post("/refresh", token=elsewhere)).json()["session_id"] == told["session_id"]
    assert await browser.whose(told["access_token"]) == username


async def test_two_authorizations_beside_the_cookie(browser: Browser, username: str) -> None:
    """Neither is believed, and nothing is done for the cookie either."""
    told = await browser.sign_in(username)
    cookie = "; ".join(f"{name}={value}" for name, value in browser.jar.items())
    twice = [("Authorization", f"Bearer {told['access_token']}")] * 2
    for path in ("/refresh", "/logout"):
        answer = await browser.http.post(path, headers=[*OWN.items(), ("Cookie", cookie), *twice])
        assert (answer.status_code, answer.json()["code"]) == (400, "credentials_disagree")
    assert await browser.whose(told["access_token"]) == username


@pytest.mark.case(18)
@pytest.mark.parametrize("place", ["cookie", "body"])
async def test_two_people_at_one_browser(
    browser: Browser, make_name: MakeName, services: Container, events_of: Events, place: str
) -> None:
    """
    Signing in over a leftover cookie makes a new session and ends the former one, whosever it is, with an event of its
    own user; afterwards no cookie of the former person is left, in either mode.
    """
    one, other = await make_name(), await make_name()
    ids = []
    for turn in range(6):
        name = (one, other)[turn % 2]
        leftover = browser.jar.get(REFRESH)
        told = await browser.sign_in(name, refresh_token_in=place if turn else "cookie")
        assert await browser.whose(told["access_token"]) == name
        ids.append(told["session_id"])
        if leftover:
            stale = Browser(browser.http, jar={REFRESH: leftover})
            assert (await stale.post("/refresh")).status_code == 401
        refreshed = await browser.post("/refresh", token=told["access_token"])
        if place == "cookie" or not turn:
            assert await browser.whose(refreshed.json()["access_token"]) == name
        else:
            assert refreshed.status_code == 422  # no cookie is left, so nobody's session is
            assert REFRESH not in browser.jar
    assert len(set(ids)) == 6
    ended = [await reasons(events_of, services, name) for name in (one, other)]
    assert ended == ([["logout"] * 3, ["logout"] * 2] if place == "cookie" else [["logout"], []])


async def test_signing_in_again_as_oneself(
    browser: Browser, username: str, services: Container, events_of: Events
) -> None:
    """Never the same session again (fixation): the presented one ends before the limit is counted, so no other does."""
    limit = services.settings.max_sessions_per_user
    others = [await Browser(browser.http).sign_in(username) for _ in range(limit - 1)]
    first = await browser.sign_in(username)
    again = await browser.sign_in(username)
    assert again["session_id"] != first["session_id"]
    assert await browser.whose(first["access_token"]) is None
    for told in (*others, again):
        assert await browser.whose(told["access_token"]) == username
    assert await reasons(events_of, services, username) == ["logout"]


async def test_a_browser_is_known_again(browser: Browser, username: str) -> None:
    """
    The first sign-in in cookie mode makes the device known, by a cookie that outlives logout; the next ones bring it
    and get no other. Strangers' failures keep an unknown browser out, and this one not.
    """
    told = await browser.sign_in(username)
    assert "device_token" not in told
    known = browser.jar[DEVICE]
    assert browser.seconds[DEVICE] == 180 * 86_400
    await browser.post("/logout", token=told["access_token"])
    assert browser.jar == {DEVICE: known}
    await browser.sign_in(username)
    assert browser.jar[DEVICE] == known
    wrong = {"username": username, "password": "wrong password"}
    for _ in range(30):
        stranger = await browser.http.post("/token", data=wrong)
        if stranger.status_code == 429:
            break
    right = {"username": username, "password": PASSWORD}
    assert (await browser.http.post("/token", data=right)).status_code == 429
    assert (await browser.post("/token", data={**right, "refresh_token_in": "cookie"})).status_code == 200
    for value in (f"{known}; {DEVICE}={known}", "junk", "A" * 1024, ".", known + known, f"{known}.", f"{known}~d"):
        refused = await browser.post("/token", data=right, headers={"Cookie": f"{DEVICE}={value}"})
        assert (refused.status_code, refused.json()["code"]) == (400, "cookie_malformed"), value
        assert refused.headers["set-cookie"].startswith(f"{DEVICE}=; Max-Age=0;")


async def test_a_failed_sign_in_ends_nothing(browser: Browser, username: str) -> None:
    """A wrong password leaves the browser signed in as it was."""
    told = await browser.sign_in(username)
    kept = dict(browser.jar)
    form = {"username": username, "password": "wrong password", "refresh_token_in": "cookie"}
    answer = await browser.post("/token", data=form)
    assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)
    assert browser.jar == kept
    assert await browser.whose(told["access_token"]) == username


async def test_sign_ins_at_once_with_one_cookie(browser: Browser, make_name: MakeName, services: Container) -> None:
    """Eight at once, of two people, over one leftover cookie: the former session ends once, eight others live."""
    one, other = await make_name(), await make_name()
    former = await browser.sign_in(one)
    tabs = [Browser(browser.http, jar=dict(browser.jar)) for _ in range(8)]
    told = await asyncio.gather(*(tab.sign_in((one, other)[n % 2]) for n, tab in enumerate(tabs)))
    assert await browser.whose(former["access_token"]) is None
    for n, each in enumerate(told):
        assert await browser.whose(each["access_token"]) == (one, other)[n % 2]


async def test_a_sign_in_that_breaks_leaves_the_former_session(
    browser: Browser, username: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end and the beginning are one transaction: when the second fails, the first has not happened."""
    from app.repositories.openings import OpeningRepository  # noqa: PLC0415 - beside its only use

    told = await browser.sign_in(username)

    async def break_off(*_: object, **__: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(OpeningRepository, "add", break_off)
        form = {"username": username, "password": PASSWORD, "refresh_token_in": "cookie"}
        assert (await browser.post("/token", data=form)).status_code == 500
    assert await browser.whose(told["access_token"]) == username
    assert (await browser.post("/refresh")).status_code == 200


async def test_a_cookie_opens_no_other_door(
    browser: Browser, services: Container, username: str, http: httpx2.AsyncClient
) -> None:
    """Every route but the three: with an administrator's cookie and no access token, as without either."""
    async with services.database.begin() as db:
        user = await db.users.find_by_key(username)
        assert user is not None
        await db.users.set_role(user.id, Role.ADMIN)
        await db.commit()
    await browser.sign_in(username)
    documented: dict[str, Any] = (await http.get("/openapi.json")).json()["paths"]
    tried = 0
    for path, methods in documented.items():
        for method, operation in methods.items():
            if operation["x-access"] == "anyone":
                continue
            place = path.replace("{session_id}", "01a20000-0000-7000-8000-000000000000")
            answer = await browser.send(method.upper(), place.replace("{", "").replace("}", ""))
            assert answer.status_code == 401, path
            tried += 1
    assert tried > 30


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE"])
@pytest.mark.parametrize("path", ["/refresh", "/logout", "/token"])
async def test_no_other_method_changes_anything(browser: Browser, username: str, path: str, method: str) -> None:
    """405, also with a method override; the cookie is neither spent nor cleared."""
    told = await browser.sign_in(username)
    for more in ({}, {"X-HTTP-Method-Override": "POST"}):
        answer = await browser.send(method, path, headers=more)
        assert (answer.status_code, "set-cookie" in answer.headers) == (405, False)
    assert await browser.whose(told["access_token"]) == username
    assert (await browser.post("/refresh")).status_code == 200


@pytest.mark.case(63)
async def test_nothing_is_reflected_into_a_cookie(browser: Browser, username: str) -> None:
    """CR LF in whatever a request says never shows in a header of the answer."""
    hostile = "x\r\nSet-Cookie: evil=1; Path=/"
    form = {"username": username, "password": PASSWORD, "refresh_token_in": "cookie", "scope": hostile}
    answers = [
        await browser.post("/token", data=form),
        await browser.post("/token", data={**form, "username": hostile}),
        await browser.post("/refresh", json={"refresh_token": hostile}),
        await browser.post("/logout", json={"refresh_token": hostile}),
    ]
    for answer in answers:
        assert all("evil" not in value for _, value in answer.headers.multi_items())
        assert all(text.startswith("__Host-rota_") for text in answer.headers.get_list("set-cookie"))


def test_the_document_tells_both_forms(app: Any) -> None:
    """`refresh_token` of an answer may be missing, all else is there; `/refresh` and `/logout` need no body."""
    document = app.openapi()
    schema = document["components"]["schemas"]["TokenAnswer"]
    assert {"access_token", "expires_in", "refresh_expires_in", "session_id", "scope"} <= set(schema["required"])
    assert "refresh_token" in schema["properties"]
    assert "refresh_token" not in schema["required"]
    assert document["paths"]["/refresh"]["post"]["requestBody"]["required"] is False
    fields = document["paths"]["/token"]["post"]["requestBody"]["content"]
    place = fields["application/x-www-form-urlencoded"]["schema"]["properties"]["refresh_token_in"]
    assert (place["enum"], place["default"]) == (["body", "cookie"], "body")


def bearer(tokens: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens['access_token']}"}


def admin() -> Any:
    from app.domain.events import SYSTEM  # noqa: PLC0415 - beside its only use

    return SYSTEM
