"""The sign-in surface over HTTP: answers, statuses, headers."""

import re
from typing import Any

import httpx2
import pytest

from tests.conftest import PASSWORD, MovableClock

PROBLEM = "application/problem+json"


async def register(http: httpx2.AsyncClient, username: str) -> dict[str, Any]:
    answer = await http.post("/register", json={"username": username, "password": PASSWORD})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def log_in(http: httpx2.AsyncClient, username: str, **fields: str) -> dict[str, Any]:
    answer = await http.post("/token", data={"username": username, "password": PASSWORD, **fields})
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    tokens: dict[str, Any] = answer.json()
    return tokens


def bearer(tokens: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens['access_token']}"}


@pytest.fixture
def username(request: pytest.FixtureRequest) -> str:
    import secrets  # noqa: PLC0415 - beside its only use

    return f"api-{secrets.token_hex(8)}"


async def test_the_whole_way(http: httpx2.AsyncClient, username: str) -> None:
    """Register, log in, see oneself, refresh in both forms, log out: as the README tells it."""
    made = await register(http, username)
    assert made.keys() == {"id", "username", "role", "created_at"}
    tokens = await log_in(http, username)
    assert (tokens["token_type"], tokens["expires_in"], tokens["refresh_expires_in"]) == ("bearer", 900, 604_800)
    me = (await http.get("/me", headers=bearer(tokens))).json()
    assert (me["username"], me["role"], me["session_id"]) == (username, "user", tokens["session_id"])
    by_json = (await http.post("/refresh", json={"refresh_token": tokens["refresh_token"]})).json()
    by_form = (await http.post("/refresh", data={"refresh_token": by_json["refresh_token"]})).json()
    fields = {"grant_type": "refresh_token", "refresh_token": by_form["refresh_token"]}
    by_grant = (await http.post("/token", data=fields)).json()
    assert len({t["refresh_token"] for t in (tokens, by_json, by_form, by_grant)}) == 4
    logout = await http.post("/logout", headers=bearer(by_grant))
    assert logout.json() == {
        "message": "Logged out successfully",
        "session_id": tokens["session_id"],
        "ended": True,
    }
    assert (await http.post("/logout", headers=bearer(by_grant))).json()["ended"] is False
    assert (await http.get("/me", headers=bearer(by_grant))).status_code == 401
    dead = await http.post("/refresh", data={"refresh_token": by_grant["refresh_token"]})
    assert dead.status_code == 401


async def test_an_expired_access_token_logs_out_by_refresh_token(
    http: httpx2.AsyncClient, username: str, clock: MovableClock
) -> None:
    """The refresh token in the body, live or spent, in place of a bearer that is too old."""
    await register(http, username)
    tokens = await log_in(http, username)
    clock.advance(minutes=15)
    assert (await http.get("/me", headers=bearer(tokens))).status_code == 401
    assert (await http.post("/logout", headers=bearer(tokens))).status_code == 401
    body = {"refresh_token": tokens["refresh_token"]}
    following = (await http.post("/refresh", json=body)).json()
    answer = await http.post("/logout", headers=bearer(tokens), json=body)
    assert (answer.status_code, answer.json()["ended"]) == (200, True)
    assert (await http.get("/me", headers=bearer(following))).status_code == 401


async def test_a_logout_that_names_two_sessions_ends_none(http: httpx2.AsyncClient, username: str) -> None:
    """Access token of one, refresh token of another: 422, and both live."""
    await register(http, username)
    one, other = await log_in(http, username), await log_in(http, username)
    answer = await http.post("/logout", headers=bearer(one), json={"refresh_token": other["refresh_token"]})
    assert answer.status_code == 422
    for tokens in (one, other):
        assert (await http.get("/me", headers=bearer(tokens))).status_code == 200
    both = await http.post("/logout", headers=bearer(one), json={"refresh_token": one["refresh_token"]})
    assert both.json()["ended"] is True


async def test_no_scope_is_granted_that_nobody_registered(http: httpx2.AsyncClient, username: str) -> None:
    """Asked for at sign-in it is not granted; asked for at a refresh it is more than was granted."""
    await register(http, username)
    tokens = await log_in(http, username, scope="admin rota:root")
    assert tokens["scope"] == ""
    fields = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    wider = await http.post("/token", data={**fields, "scope": "admin"})
    assert (wider.status_code, wider.json()["error"]) == (400, "invalid_scope")
    assert (await http.post("/token", data=fields)).status_code == 200


@pytest.mark.case(14)
async def test_tokens_are_not_interchangeable(http: httpx2.AsyncClient, username: str) -> None:
    """An access token does not refresh, a refresh token opens no door."""
    await register(http, username)
    tokens = await log_in(http, username)
    crossed = await http.post("/refresh", data={"refresh_token": tokens["access_token"]})
    assert crossed.status_code == 401
    wrong = {"Authorization": f"Bearer {tokens['refresh_token']}"}
    assert (await http.get("/me", headers=wrong)).status_code == 401
    assert (await http.get("/me", headers=bearer(tokens))).status_code == 200


@pytest.mark.case(46)
async def test_refusals_are_one_answer(http: httpx2.AsyncClient, username: str, clock: MovableClock) -> None:
    """Unknown user and wrong password: same status, headers and body but for the request id."""
    await register(http, username)
    answers = [
        await http.post("/token", data={"username": name, "password": "wrong password"})
        for name in (username, "nobody-of-that-name", "no name\u00a0at all")
    ]
    for answer in answers:
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="rota"'
        assert answer.json()["error"] == "invalid_grant"
        assert answer.json()["code"] == "invalid_credentials"
    assert len({re.sub(r'"request_id":"[^"]+"', "", answer.text) for answer in answers}) == 1
    headers = [{k: v for k, v in answer.headers.items() if k != "x-request-id"} for answer in answers]
    assert headers[0] == headers[1] == headers[2]


async def test_idempotency_key_over_http(http: httpx2.AsyncClient, username: str, clock: MovableClock) -> None:
    """The header makes a late retry harmless; without it the same retry is reuse."""
    await register(http, username)
    tokens = await log_in(http, username)
    headers = {"Idempotency-Key": "0123456789abcdefghijkl"}
    body = {"refresh_token": tokens["refresh_token"]}
    one = await http.post("/refresh", json=body, headers=headers)
    clock.advance(minutes=30)
    again = await http.post("/refresh", json=body, headers=headers)
    assert again.json()["refresh_token"] == one.json()["refresh_token"]
    assert (await http.post("/refresh", json=body)).status_code == 401
    assert (await http.post("/refresh", json={"refresh_token": one.json()["refresh_token"]})).status_code == 401


@pytest.mark.parametrize("key", ["short", "x" * 256, "with spaces in it, and long enough", "\u00e9" * 30])
async def test_a_bad_idempotency_key_is_said_so(http: httpx2.AsyncClient, username: str, key: str) -> None:
    """422, and the token is not spent."""
    await register(http, username)
    body = {"refresh_token": (await log_in(http, username))["refresh_token"]}
    refused = await http.post("/refresh", json=body, headers={b"Idempotency-Key": key.encode()})
    assert refused.status_code == 422
    assert (await http.post("/refresh", json=body)).status_code == 200


async def test_own_sessions(http: httpx2.AsyncClient, username: str) -> None:
    """List, name, end one, end all others; pages join without gap."""
    await register(http, username)
    sessions = [await log_in(http, username) for _ in range(5)]
    mine = sessions[-1]
    listed = (await http.get("/sessions", headers=bearer(mine))).json()
    assert [one["id"] for one in listed["items"]] == [one["session_id"] for one in reversed(sessions)]
    assert listed["next"] is None
    shown = listed["items"][0]
    assert (shown["current"], shown["state"], shown["device"], shown["browser"], shown["os"]) == (
        True,
        "active",
        "iPhone",
        "Mobile Safari 17",
        "iOS 17",
    )
    assert (shown["first_ip"], shown["last_ip"]) == ("203.0.113.7", "203.0.113.7")
    paged: list[str] = []
    after: dict[str, Any] = {}
    while True:
        page = (await http.get("/sessions", headers=bearer(mine), params={"limit": 2, **after})).json()
        paged += [one["id"] for one in page["items"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert paged == [one["id"] for one in listed["items"]]

    path = f"/sessions/{sessions[0]['session_id']}"
    named = await http.patch(path, headers=bearer(mine), json={"label": "Kitchen tablet"})
    assert (named.status_code, named.json()["label"]) == (200, "Kitchen tablet")
    assert (await http.patch(path, headers=bearer(mine), json={"label": None})).json()["label"] is None
    assert (await http.delete(path, headers=bearer(mine))).json()["ended"] is True
    assert (await http.delete(path, headers=bearer(mine))).json()["ended"] is False
    assert (await http.get(path, headers=bearer(mine))).json()["end_reason"] == "logout"
    assert (await http.patch(path, headers=bearer(mine), json={"label": "x"})).status_code == 404
    assert (await http.delete("/sessions", headers=bearer(mine))).json()["sessions_ended"] == 3
    states = [one["state"] for one in (await http.get("/sessions", headers=bearer(mine))).json()["items"]]
    assert states == ["active", "ended", "ended", "ended", "ended"]


async def test_a_lapsed_session_is_shown_as_it_is(http: httpx2.AsyncClient, username: str, clock: MovableClock) -> None:
    """Nobody has written its end yet, and still it is over, with its reason."""
    await register(http, username)
    old = await log_in(http, username)
    clock.advance(days=7)
    new = await log_in(http, username)
    shown = (await http.get(f"/sessions/{old['session_id']}", headers=bearer(new))).json()
    assert (shown["state"], shown["end_reason"], shown["ended_at"]) == ("lapsed", "idle_timeout", None)


async def test_foreign_sessions_answer_as_unknown_ones(http: httpx2.AsyncClient, username: str) -> None:
    """Same status and body, for each method."""
    await register(http, username)
    await register(http, f"{username}-2")
    mine, theirs = await log_in(http, username), await log_in(http, f"{username}-2")
    unknown = "01a20000-0000-7000-8000-000000000000"
    for method, body in (("GET", None), ("DELETE", None), ("PATCH", {"label": "x"})):
        answers = [
            await http.request(method, f"/sessions/{session}", headers=bearer(mine), json=body)
            for session in (theirs["session_id"], unknown)
        ]
        assert [answer.status_code for answer in answers] == [404, 404]
        bodies = [{k: v for k, v in answer.json().items() if k != "request_id"} for answer in answers]
        assert bodies[0] == bodies[1]
    assert (await http.get("/me", headers=bearer(theirs))).status_code == 200


async def test_change_password(http: httpx2.AsyncClient, username: str) -> None:
    """Wrong current one: 401. Right: the others end, this session lives, the new one signs in."""
    await register(http, username)
    other, mine = await log_in(http, username), await log_in(http, username)
    body = {"current_password": "wrong password", "new_password": "a password of my own"}
    refused = await http.put("/me/password", headers=bearer(mine), json=body)
    assert (refused.status_code, refused.json()["code"]) == (401, "invalid_credentials")
    changed = await http.put("/me/password", headers=bearer(mine), json={**body, "current_password": PASSWORD})
    assert (changed.status_code, changed.json()["sessions_ended"]) == (200, 1)
    assert (await http.get("/me", headers=bearer(other))).status_code == 401
    assert (await http.get("/me", headers=bearer(mine))).status_code == 200
    assert (
        await http.post("/token", data={"username": username, "password": "a password of my own"})
    ).status_code == 200


async def test_my_events(http: httpx2.AsyncClient, username: str, clock: MovableClock) -> None:
    """Newest first, in pages, with address, agent and request id; reuse is there to be seen."""
    await register(http, username)
    stolen = await log_in(http, username)
    await http.post("/refresh", json={"refresh_token": stolen["refresh_token"]})
    clock.advance(minutes=1)
    reused = await http.post("/refresh", json={"refresh_token": stolen["refresh_token"]})
    assert reused.status_code == 401
    mine = await log_in(http, username)
    seen: list[dict[str, Any]] = []
    after: dict[str, Any] = {}
    while True:
        page = (await http.get("/me/events", headers=bearer(mine), params={"limit": 2, **after})).json()
        seen += page["items"]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    actions = [event["action"] for event in seen]
    assert sorted(actions) == sorted(
        [
            "session.created",
            "session.ended",
            "refresh.reused",
            "session.refreshed",
            "session.created",
            "user.created",
        ]
    )
    by_action = {event["action"]: event for event in seen}
    assert by_action["refresh.reused"]["detail"]["rotation_event"] == by_action["session.refreshed"]["id"]
    assert by_action["refresh.reused"]["request_id"] == reused.headers["x-request-id"]
    assert by_action["refresh.reused"]["ip"] == "203.0.113.7"


async def test_the_key_set_verifies_our_tokens(http: httpx2.AsyncClient, username: str, clock: MovableClock) -> None:
    """Any library can: PyJWT here."""
    import jwt as pyjwt  # noqa: PLC0415 - an oracle, not a dependency

    await register(http, username)
    token = (await log_in(http, username))["access_token"]
    answer = await http.get("/.well-known/jwks.json")
    assert "public" in answer.headers["cache-control"]
    keys = pyjwt.PyJWKSet.from_dict(answer.json())
    kid = pyjwt.get_unverified_header(token)["kid"]
    claims = pyjwt.decode(token, keys[kid], algorithms=["ES256"], audience="rota", issuer="http://127.0.0.1:8000")
    assert claims["roles"] == ["user"]


async def test_health(http: httpx2.AsyncClient) -> None:
    """The process, and the database behind it."""
    assert (await http.get("/livez")).json() == {"status": "ok"}
    assert (await http.get("/readyz")).json() == {"status": "ok"}
