"""`POST /oauth2/token` to the letter of RFC 6749, and the binding of refresh tokens to client and scope."""

import asyncio
import re
from typing import Any

import asyncpg
import httpx2
import jwt as pyjwt
import pytest

from app.container import Container
from app.domain.api_clients import NewClient
from app.domain.errors import InputInvalid, InvalidScope, RefreshTokenRejected
from app.domain.events import SYSTEM
from app.domain.users import Role
from app.services.opening import Terms
from tests.conftest import PASSWORD, Events, MakeServices, client_at
from tests.oauth.conftest import (
    FORM,
    ElapsingClock,
    Known,
    LogIn,
    MakeKnown,
    Somebody,
    make_known,
)

DESCRIPTION = re.compile(r"[\x20\x21\x23-\x5B\x5D-\x7E]+")


async def ask(http: httpx2.AsyncClient, known: Known, **data: str) -> httpx2.Response:
    return await http.post("/oauth2/token", data=data, headers=known.basic)


def assert_error(answer: httpx2.Response, error: str, status: int = 400) -> None:
    """RFC 6749 section 5.2: these members, that status, and nothing kept."""
    assert (answer.status_code, answer.json().get("error")) == (status, error), answer.text
    assert answer.json().keys() == {"error", "error_description"}
    assert DESCRIPTION.fullmatch(answer.json()["error_description"])
    assert answer.headers["content-type"] == "application/json"
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    assert ("www-authenticate" in answer.headers) == (status in {401, 403})


async def make_app(make_client: MakeKnown, **more: Any) -> Known:
    return await make_client(
        first_party=True, grants=["password", "refresh_token"], session_scopes=("read", "write"), **more
    )


async def sign_in(http: httpx2.AsyncClient, known: Known, person: Somebody, **more: str) -> dict[str, Any]:
    answer = await ask(http, known, grant_type="password", username=person.username, password=PASSWORD, **more)
    assert answer.status_code == 200, answer.text
    tokens: dict[str, Any] = answer.json()
    return tokens


async def test_client_credentials(http: httpx2.AsyncClient, make_client: MakeKnown, container: Container) -> None:
    """An access token of the client itself: no session, no role, no refresh token (RFC 6749 section 4.4.3)."""
    known = await make_client(scopes=["introspect", "revoke"])
    answer = await ask(http, known, grant_type="client_credentials")
    assert answer.status_code == 200
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    body = answer.json()
    assert body.keys() == {"access_token", "token_type", "expires_in", "scope"}
    assert (body["token_type"], body["expires_in"], body["scope"]) == ("Bearer", 900, "introspect revoke")
    claims = pyjwt.decode(body["access_token"], options={"verify_signature": False})
    assert claims.keys() == {"iss", "sub", "aud", "exp", "iat", "jti", "client_id", "scope"}
    assert claims["sub"] == claims["client_id"] == known.client.client_id
    narrow = await ask(http, known, grant_type="client_credentials", scope="revoke")
    assert narrow.json()["scope"] == "revoke"
    assert_error(await ask(http, known, grant_type="client_credentials", scope="revoke sessions"), "invalid_scope")
    none = await make_client()
    assert "scope" not in (await ask(http, none, grant_type="client_credentials")).json()


async def test_the_password_grant(
    http: httpx2.AsyncClient, make_client: MakeKnown, somebody: Somebody, events_of: Events
) -> None:
    """A session of that client, with what its sessions may be granted, or the part that was asked for."""
    known = await make_app(make_client)
    tokens = await sign_in(http, known, somebody)
    assert (tokens["token_type"], tokens["scope"], tokens["expires_in"]) == ("Bearer", "read write", 900)
    assert (await sign_in(http, known, somebody, scope="write"))["scope"] == "write"
    created = [event for event in await events_of(somebody.user.id) if event["action"] == "session.created"]
    assert f'"client_id":"{known.client.client_id}"' in created[0]["detail"].replace(" ", "")
    assert created[0]["actor_kind"] == "user"
    me = await http.get("/me", headers={"Authorization": f"Bearer {tokens['access_token']}"})
    assert me.json()["session_id"] == tokens["session_id"]
    wide = {"username": somebody.username, "password": PASSWORD, "scope": "read admin"}
    assert_error(await ask(http, known, grant_type="password", **wide), "invalid_scope")


async def test_wrong_credentials_are_an_invalid_grant(
    http: httpx2.AsyncClient, make_client: MakeKnown, somebody: Somebody
) -> None:
    """400, not 401: it is the grant that is wrong, not the client; and no name is told from no password."""
    known = await make_app(make_client)
    for fields in (
        {"username": somebody.username, "password": "wrong"},
        {"username": "nobody-at-all", "password": PASSWORD},
    ):
        assert_error(await ask(http, known, grant_type="password", **fields), "invalid_grant")


async def test_a_password_that_must_be_changed(
    http: httpx2.AsyncClient, make_client: MakeKnown, somebody: Somebody, sql: asyncpg.Connection
) -> None:
    """
    No session for it: an invalid grant whose description says where to go (RFC 6749 section 5.2). No secret stands in
    an error, which libraries show and log; and a token that the user may have got elsewhere is not replaced by it.
    """
    await sql.execute("UPDATE users SET must_change_password = true WHERE id = $1", somebody.user.id)
    known = await make_app(make_client)
    answer = await ask(http, known, grant_type="password", username=somebody.username, password=PASSWORD)
    assert_error(answer, "invalid_grant")
    assert answer.json().keys() == {"error", "error_description"}
    assert "POST /token" in answer.json()["error_description"]
    events = await sql.fetch(
        "SELECT action, reason FROM audit_events WHERE subject_id = $1 AND action LIKE 'credential.%'", somebody.user.id
    )
    assert [tuple(event) for event in events] == [("credential.refused", "one_time_password_elsewhere")]
    assert not await sql.fetchval("SELECT count(*) FROM password_tokens WHERE user_id = $1", somebody.user.id)
    own = await http.post(
        "/token", data={"username": somebody.username, "password": PASSWORD, "grant_type": "password"}
    )
    assert (own.status_code, own.json()["password_token"][:5]) == (403, "rota_")


async def test_grants_that_a_client_has_not(
    http: httpx2.AsyncClient, make_client: MakeKnown, somebody: Somebody, log_in: LogIn
) -> None:
    """unauthorized_client (RFC 6749 section 5.2): passwords need a first-party client that has the grant."""
    password = {"grant_type": "password", "username": somebody.username, "password": PASSWORD}
    for known in (await make_client(), await make_client(first_party=True)):
        assert_error(await ask(http, known, **password), "unauthorized_client")
    known = await make_client(grants=[])
    assert_error(await ask(http, known, grant_type="client_credentials"), "unauthorized_client")
    token = (await log_in(somebody))["refresh_token"]
    assert_error(await ask(http, known, grant_type="refresh_token", refresh_token=token), "unauthorized_client")


REQUESTS = [
    ("", "invalid_request", "no parameters"),
    ("grant_type=", "invalid_request", "grant type without a value"),
    ("scope=a", "invalid_request", "no grant type"),
    ("grant_type=authorization_code&code=x", "unsupported_grant_type", "authorization code"),
    ("grant_type=implicit", "unsupported_grant_type", "implicit"),
    ("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer", "unsupported_grant_type", "JWT bearer"),
    ("grant_type=Client_Credentials", "unsupported_grant_type", "another case"),
    ("grant_type=client_credentials&grant_type=client_credentials", "invalid_request", "grant type twice"),
    ("grant_type=client_credentials&scope=introspect&scope=introspect", "invalid_request", "scope twice"),
    ("grant_type=client_credentials&x=1&x=2", "invalid_request", "an unknown parameter twice"),
    ("grant_type=client_credentials&scope=nothing", "invalid_scope", "scope unknown"),
    ("grant_type=client_credentials&scope=a++b", "invalid_scope", "scope malformed"),
    ("grant_type=client_credentials&scope=%22", "invalid_scope", "a quote as scope"),
    ("grant_type=client_credentials&scope=%FF", "invalid_request", "not UTF-8"),
    ("grant_type=client_credentials;", "unsupported_grant_type", "rubbish behind"),
    ("grant_type", "invalid_request", "no equals sign"),
    ("grant_type=password&username=a", "invalid_request", "no password"),
    ("grant_type=password&username=a%00b&password=x", "invalid_request", "a NUL in the name"),
    ("grant_type=refresh_token", "invalid_request", "no refresh token"),
    ("grant_type=refresh_token&refresh_token=", "invalid_request", "refresh token without a value"),
    ("grant_type=refresh_token&refresh_token=rota_rt_x", "invalid_grant", "noise"),
    ("grant_type=refresh_token&refresh_token=" + "x" * 9000, "invalid_request", "a very long token"),
    ("grant_type=refresh_token&refresh_token=x&scope=%5C", "invalid_scope", "scope malformed, token noise"),
]


@pytest.mark.parametrize(("body", "error"), [pytest.param(b, e, id=i) for b, e, i in REQUESTS])
async def test_each_error_has_its_word(http: httpx2.AsyncClient, make_client: MakeKnown, body: str, error: str) -> None:
    """RFC 6749 section 5.2, section 3.2 for repeated parameters and those without a value."""
    known = await make_app(make_client, scopes=["introspect"])
    full = await make_client(
        first_party=True, grants=["password", "refresh_token", "client_credentials"], scopes=["introspect"]
    )
    for each in (full,) if "client_credentials" in body else (known, full):
        headers = {**each.basic, "Content-Type": FORM}
        assert_error(await http.post("/oauth2/token", content=body, headers=headers), error)


async def test_unknown_parameters_are_ignored(http: httpx2.AsyncClient, make_client: MakeKnown) -> None:
    """RFC 6749 section 3.2; and one without a value is as one left out."""
    known = await make_client(scopes=["authz"])
    answer = await ask(http, known, grant_type="client_credentials", resource="x", scope="", audience="")
    assert (answer.status_code, answer.json()["scope"]) == (200, "authz")


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "multipart/form-data; boundary=x", ""])
async def test_only_a_form_is_read(http: httpx2.AsyncClient, make_client: MakeKnown, kind: str) -> None:
    """Any other body is an invalid request, and so are parameters in the address."""
    known = await make_client()
    headers = {**known.basic, **({"Content-Type": kind} if kind else {})}
    body = b'{"grant_type": "client_credentials"}'
    assert_error(await http.post("/oauth2/token", content=body, headers=headers), "invalid_request")
    answer = await http.post("/oauth2/token?grant_type=client_credentials", headers={**headers, "Content-Type": FORM})
    assert_error(answer, "invalid_request")


async def test_another_charset_is_refused_and_utf8_is_not(http: httpx2.AsyncClient, make_client: MakeKnown) -> None:
    """One meaning or none."""
    known = await make_client()
    for charset, status in (("UTF-8", 200), ("latin-1", 400)):
        headers = {**known.basic, "Content-Type": f"{FORM}; charset={charset}"}
        answer = await http.post("/oauth2/token", content="grant_type=client_credentials", headers=headers)
        assert answer.status_code == status


async def test_a_get_is_no_way_to_ask(http: httpx2.AsyncClient) -> None:
    """405 with what is allowed, as JSON of this surface (RFC 6749 section 3.2)."""
    for path in ("/oauth2/token", "/oauth2/revoke", "/oauth2/introspect"):
        answer = await http.get(path)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        assert answer.json()["error"] == "invalid_request"


async def test_too_large_is_said(http: httpx2.AsyncClient, make_client: MakeKnown) -> None:
    """413, before the client is known."""
    answer = await http.post("/oauth2/token", data={"scope": "x" * 70_000})
    assert (answer.status_code, answer.json()["error"]) == (413, "invalid_request")


async def test_trouble_with_the_database_is_never_an_oauth_error(
    make_services: MakeServices, http: httpx2.AsyncClient, container: Container, make_client: MakeKnown
) -> None:
    """503 with Retry-After: clients delete their tokens on invalid_grant."""
    known = await make_client()
    away = make_services(url="postgresql://nobody@127.0.0.1:1/nowhere")
    container.client_authentication._database = away.database
    answer = await ask(http, known, grant_type="client_credentials")
    assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
    assert answer.headers["retry-after"] == "1"


# Bound to its client.


@pytest.mark.case(15)
async def test_a_refresh_token_is_its_clients(
    http: httpx2.AsyncClient,
    make_client: MakeKnown,
    somebody: Somebody,
    log_in: LogIn,
    events_of: Events,
    sql: asyncpg.Connection,
) -> None:
    """Of another client, and of none, it is refused as noise is; nothing is spent or ended, and its own goes on."""
    mine, other = await make_app(make_client), await make_app(make_client)
    tokens, ours = await sign_in(http, mine, somebody), await log_in(somebody)
    noise = await ask(http, other, grant_type="refresh_token", refresh_token="rota_rt_noise")
    stolen = await ask(http, other, grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    assert_error(stolen, "invalid_grant")
    assert stolen.text == noise.text
    # First-party routes refuse a client's family, a client refuses theirs.
    for path in ("/refresh", "/token"):
        form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
        refused = await http.post(path, data=form)
        assert (refused.status_code, refused.json()["code"]) == (401, "refresh_token_rejected")
    assert_error(
        await ask(http, mine, grant_type="refresh_token", refresh_token=ours["refresh_token"]), "invalid_grant"
    )
    rows = await sql.fetch("SELECT generation, ended_at, event_seq FROM families WHERE user_id = $1", somebody.user.id)
    assert [tuple(row) for row in rows] == [(0, None, 1)] * 2
    mistaken = [event for event in await events_of(somebody.user.id) if event["action"] == "refresh.misdirected"]
    assert {event["reason"] for event in mistaken} == {"wrong_client"}
    assert len({event["family_id"] for event in mistaken}) == 2  # the first of a minute is an event, the rest a sum
    # Its own client still can.
    answer = await ask(http, mine, grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    assert (answer.status_code, answer.json()["scope"]) == (200, "read write")
    assert (await http.post("/refresh", data={"refresh_token": ours["refresh_token"]})).status_code == 200


async def test_a_flood_through_another_client_is_summed_up(
    http: httpx2.AsyncClient,
    container: Container,
    make_client: MakeKnown,
    somebody: Somebody,
    clock: ElapsingClock,
    events_of: Events,
) -> None:
    """One event at once, one sum for the rest of its minute; each counts for the session, none for its life."""
    mine, other = await make_app(make_client), await make_app(make_client)
    tokens = await sign_in(http, mine, somebody)
    for _ in range(5):
        await ask(http, other, grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    clock.advance(minutes=2)
    while await container.housekeeping.sum_up_refusals():
        pass
    found = [event for event in await events_of(somebody.user.id) if event["action"] == "refresh.misdirected"]
    assert [(event["reason"], event["family_seq"]) for event in found] == [("wrong_client", None), ("rolled_up", None)]
    assert '"count":4' in found[1]["detail"].replace(" ", "")


async def test_another_client_cannot_end_a_session_with_a_spent_token(
    http: httpx2.AsyncClient, make_client: MakeKnown, somebody: Somebody, clock: ElapsingClock
) -> None:
    """Whatever its state, a family says nothing to others and they cannot end it. Its own client's reuse does."""
    mine, other = await make_app(make_client), await make_app(make_client)
    tokens = await sign_in(http, mine, somebody)
    spent = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    live = (await ask(http, mine, **spent)).json()["refresh_token"]
    clock.advance(seconds=60)
    assert_error(await ask(http, other, **spent), "invalid_grant")
    answer = await ask(http, mine, grant_type="refresh_token", refresh_token=live)
    assert answer.status_code == 200
    assert_error(await ask(http, mine, **spent), "invalid_grant")
    live = answer.json()["refresh_token"]
    assert_error(await ask(http, mine, grant_type="refresh_token", refresh_token=live), "invalid_grant")


async def test_a_lapsed_family_is_not_ended_by_another_client(
    http: httpx2.AsyncClient, make_client: MakeKnown, somebody: Somebody, clock: ElapsingClock, sql: asyncpg.Connection
) -> None:
    """The look writes nothing for others."""
    mine, other = await make_app(make_client), await make_app(make_client)
    tokens = await sign_in(http, mine, somebody)
    clock.advance(days=8)
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    ended = "SELECT end_reason FROM families WHERE user_id = $1"
    assert_error(await ask(http, other, **form), "invalid_grant")
    assert await sql.fetchval(ended, somebody.user.id) is None
    assert_error(await ask(http, mine, **form), "invalid_grant")
    assert await sql.fetchval(ended, somebody.user.id) == "idle_timeout"


# Bound to its scope.


async def test_narrowing_works_for_that_access_token_only(
    http: httpx2.AsyncClient, make_client: MakeKnown, somebody: Somebody
) -> None:
    """The session keeps what it was granted (RFC 6749 section 6); a replay in the grace is narrowed as it asks."""
    known = await make_app(make_client)
    first = await sign_in(http, known, somebody)
    form = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    narrow = (await ask(http, known, **form, scope="write")).json()
    assert narrow["scope"] == "write"
    assert pyjwt.decode(narrow["access_token"], options={"verify_signature": False})["scope"] == "write"
    replay = (await ask(http, known, **form, scope="read")).json()
    assert (replay["scope"], replay["refresh_token"]) == ("read", narrow["refresh_token"])
    whole = await ask(http, known, grant_type="refresh_token", refresh_token=narrow["refresh_token"])
    assert whole.json()["scope"] == "read write"
    again = await ask(
        http, known, grant_type="refresh_token", refresh_token=whole.json()["refresh_token"], scope="write read"
    )
    assert again.json()["scope"] == "read write"


@pytest.mark.case(15)
async def test_widening_spends_nothing(
    http: httpx2.AsyncClient, make_client: MakeKnown, somebody: Somebody, sql: asyncpg.Connection
) -> None:
    """invalid_scope, by the live token and by the one in its grace; and the same token without it goes on."""
    known = await make_app(make_client)
    tokens = await sign_in(http, known, somebody, scope="read")
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    for scope in ("write", "read write", "READ", "admin", "rea", "read read2"):
        assert_error(await ask(http, known, **form, scope=scope), "invalid_scope")
    row = await sql.fetchrow("SELECT generation, event_seq FROM families WHERE user_id = $1", somebody.user.id)
    assert tuple(row or ()) == (0, 1)
    assert (await ask(http, known, **form, scope="read read")).status_code == 200
    assert_error(await ask(http, known, **form, scope="read write"), "invalid_scope")
    assert (await ask(http, known, **form)).status_code == 200


@pytest.mark.case(15)
async def test_a_refresh_is_for_the_same_audience_whatever_is_asked_for(
    http: httpx2.AsyncClient, make_client: MakeKnown, somebody: Somebody
) -> None:
    """Nothing here knows other ones, so the word is passed over (RFC 6749 section 3.2)."""
    known = await make_app(make_client)
    tokens = await sign_in(http, known, somebody)
    unverified: Any = {"verify_signature": False, "verify_aud": False}
    before = pyjwt.decode(tokens["access_token"], options=unverified)["aud"]
    refresh = tokens["refresh_token"]
    for word in ("audience", "resource"):
        asked = {"grant_type": "refresh_token", "refresh_token": refresh, word: "https://other.example"}
        answer = (await ask(http, known, **asked)).json()
        assert pyjwt.decode(answer["access_token"], options=unverified)["aud"] == before
        refresh = answer["refresh_token"]


async def test_reuse_is_noticed_whatever_scope_is_asked_for(
    http: httpx2.AsyncClient, make_client: MakeKnown, somebody: Somebody, clock: ElapsingClock, sql: asyncpg.Connection
) -> None:
    """A thief does not hide behind a wide scope."""
    known = await make_app(make_client)
    tokens = await sign_in(http, known, somebody)
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    await ask(http, known, **form)
    clock.advance(seconds=60)
    assert_error(await ask(http, known, **form, scope="admin"), "invalid_grant")
    ended = await sql.fetchval("SELECT end_reason FROM families WHERE user_id = $1", somebody.user.id)
    assert ended == "reuse"


async def test_a_lost_answer_is_asked_for_again_here_too(
    http: httpx2.AsyncClient, make_client: MakeKnown, somebody: Somebody, clock: ElapsingClock
) -> None:
    """With the Idempotency-Key of the rotation, long after the grace."""
    known = await make_app(make_client)
    tokens = await sign_in(http, known, somebody)
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    headers = {**known.basic, "Idempotency-Key": "k" * 22}
    first = await http.post("/oauth2/token", data=form, headers=headers)
    clock.advance(minutes=10)
    again = await http.post("/oauth2/token", data=form, headers=headers)
    assert again.json()["refresh_token"] == first.json()["refresh_token"]
    assert_error(
        await http.post("/oauth2/token", data=form, headers={**known.basic, "Idempotency-Key": "short"}),
        "invalid_request",
    )


async def test_a_disabled_client_refreshes_nothing_and_its_sessions_wait(
    http: httpx2.AsyncClient, container: Container, make_client: MakeKnown, somebody: Somebody
) -> None:
    """401 while it is shut out; the same token serves when it is let in again."""
    known = await make_app(make_client)
    tokens = await sign_in(http, known, somebody)
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    await container.api_clients.disable(known.client.id, actor=SYSTEM, client=client_at())
    assert_error(await ask(http, known, **form), "invalid_client", 401)
    await container.api_clients.enable(known.client.id, actor=SYSTEM, client=client_at())
    assert (await ask(http, known, **form)).status_code == 200


async def test_clients_race_for_a_token(make_services: MakeServices, sql: asyncpg.Connection) -> None:
    """Many at once, right ones and wrong ones: one successor, the family lives, and no wrong one got anything."""
    services = make_services()
    mine = await make_known(services)
    name = f"racer-{mine.client.client_id}"
    user = await services.users.create(name, PASSWORD, role=Role.USER, actor=None, client=client_at())
    issued = await services.sign_in.vouched(
        user.id, Terms(client_id=mine.client.client_id, scope="a b", amr="mfa"), client=client_at()
    )

    async def attempt(client_id: str, scope: tuple[str, ...]) -> object:
        try:
            return (
                await services.refresh.rotate(
                    issued.refresh_token, idempotency_key=None, client=client_at(), client_id=client_id, scope=scope
                )
            ).refresh_token
        except (RefreshTokenRejected, InvalidScope) as refused:
            return type(refused)

    kinds: list[tuple[str, tuple[str, ...]]] = [
        (mine.client.client_id, ("a",)),
        ("first-party", ()),
        (mine.client.client_id, ("a", "c")),
        ("client-of-somebody", ("a",)),
    ]
    results = await asyncio.gather(*(attempt(*kinds[number % 4]) for number in range(24)))
    assert len(set(results[0::4])) == 1
    assert isinstance(results[0], str)
    assert set(results[1::4]) == set(results[3::4]) == {RefreshTokenRejected}
    assert set(results[2::4]) == {InvalidScope}
    row = await sql.fetchrow("SELECT generation, ended_at FROM families WHERE user_id = $1", user.id)
    assert tuple(row or ()) == (1, None)


# Public clients.


async def test_a_public_client_needs_no_secret_and_may_have_none(
    http: httpx2.AsyncClient, make_client: MakeKnown, somebody: Somebody
) -> None:
    """It says its name in the form; rotation is what keeps its tokens safe. A secret beside it is refused."""
    known = await make_app(make_client, public=True)
    assert known.secret == ""
    form = {"grant_type": "password", "username": somebody.username, "password": PASSWORD}
    named = {**form, "client_id": known.client.client_id}
    answer = await http.post("/oauth2/token", data=named)
    assert answer.status_code == 200
    token = answer.json()["refresh_token"]
    again = {"grant_type": "refresh_token", "refresh_token": token, "client_id": known.client.client_id}
    assert (await http.post("/oauth2/token", data=again)).status_code == 200
    assert_error(await http.post("/oauth2/token", data={**again, "client_secret": "x"}), "invalid_client", 401)
    assert_error(await http.post("/oauth2/token", data={"grant_type": "refresh_token"}), "invalid_client", 401)
    credentials = {"grant_type": "client_credentials", "client_id": known.client.client_id}
    assert_error(await http.post("/oauth2/token", data=credentials), "unauthorized_client")
    asked = {"token": token, "client_id": known.client.client_id}
    assert_error(await http.post("/oauth2/introspect", data=asked), "insufficient_scope", 403)


@pytest.mark.parametrize(
    "values",
    [
        {"public": True},
        {"public": True, "first_party": True, "scopes": frozenset({"authz"})},
        {"public": True, "first_party": True, "grants": frozenset({"client_credentials"})},
        {"grants": frozenset({"password"})},
        {"name": ""},
        {"name": "x" * 101},
        {"name": "a\nb"},
        {"client_id": "first-party"},
        {"client_id": "01a20000-0000-7000-8000-000000000000"},
        {"client_id": "01a2000000007000800000000000000a"},
        {"client_id": "ab"},
        {"client_id": "-ab"},
        {"client_id": "a:b"},
        {"client_id": "ä" * 5},
        {"client_id": "a" * 65},
        {"session_scopes": ("a b", '"')},
    ],
    ids=str,
)
def test_what_no_client_can_be(values: dict[str, Any]) -> None:
    """Combinations and names that would let one thing pass for another."""
    with pytest.raises(InputInvalid):
        NewClient(**{"name": "x", **values})
