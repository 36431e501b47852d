"""`/oauth2/revoke` (RFC 7009) and `/oauth2/introspect` (RFC 7662)."""

import asyncio
from typing import Any

import asyncpg
import httpx2
import pytest

from app.container import Container
from app.domain.errors import TokenOfAnotherClient
from app.domain.events import SYSTEM
from app.domain.users import Role
from app.services.opening import Terms
from tests.conftest import PASSWORD, Events, MakeServices, client_at
from tests.oauth.conftest import (
    ElapsingClock,
    Known,
    LogIn,
    MakeKnown,
    Somebody,
    Vouch,
    basic,
    bearer,
    make_known,
)
from tests.oauth.test_token_endpoint import assert_error

DEAD = {"active": False}
ENDED = "SELECT end_reason, ended_by FROM families WHERE id = $1"


async def revoke(http: httpx2.AsyncClient, known: Known, token: str, **more: str) -> httpx2.Response:
    return await http.post("/oauth2/revoke", data={"token": token, **more}, headers=known.basic)


async def introspect(http: httpx2.AsyncClient, known: Known, token: str, **more: str) -> dict[str, Any]:
    answer = await http.post("/oauth2/introspect", data={"token": token, **more}, headers=known.basic)
    assert answer.status_code == 200, answer.text
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    told: dict[str, Any] = answer.json()
    return told


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
@pytest.mark.parametrize("hint", ["access_token", "refresh_token", "something_else", ""])
async def test_either_token_ends_the_session_whatever_the_hint(
    http: httpx2.AsyncClient,
    make_client: MakeKnown,
    somebody: Somebody,
    vouch: Vouch,
    events_of: Events,
    sql: asyncpg.Connection,
    kind: str,
    hint: str,
) -> None:
    """A client's own session needs no scope; the end is one event, by that client; a second time nothing happens."""
    known = await make_client(scopes=["sessions"])
    tokens = await vouch(known, somebody)
    for _ in range(2):
        answer = await revoke(http, known, tokens[kind], token_type_hint=hint)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["cache-control"] == "no-store"
    row = await sql.fetchrow(ENDED, tokens["session_id"])
    assert tuple(row or ()) == ("oauth_revocation", known.client.id)
    ends = [event for event in await events_of(somebody.user.id) if event["action"] == "session.ended"]
    assert [(e["actor_kind"], e["actor_id"], e["reason"]) for e in ends] == [
        ("client", known.client.id, "oauth_revocation")
    ]
    assert (await http.get("/me", headers=bearer(tokens["access_token"]))).status_code == 401


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
async def test_sessions_of_our_own_routes_need_the_scope(
    http: httpx2.AsyncClient,
    make_client: MakeKnown,
    somebody: Somebody,
    log_in: LogIn,
    sql: asyncpg.Connection,
    kind: str,
) -> None:
    """With `revoke` they end; without it the token is another's, the client is told so, and the session lives on."""
    tokens = await log_in(somebody)
    assert_error(await revoke(http, await make_client(scopes=["introspect"]), tokens[kind]), "invalid_grant")
    assert tuple(await sql.fetchrow(ENDED, tokens["session_id"]) or ()) == (None, None)
    may = await make_client(scopes=["revoke"])
    assert (await revoke(http, may, tokens[kind])).status_code == 200
    assert tuple(await sql.fetchrow(ENDED, tokens["session_id"]) or ()) == ("oauth_revocation", may.client.id)


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
async def test_another_clients_token_is_refused(
    http: httpx2.AsyncClient,
    make_client: MakeKnown,
    somebody: Somebody,
    vouch: Vouch,
    sql: asyncpg.Connection,
    kind: str,
) -> None:
    """RFC 7009 section 2.1: the request is refused and the client is told; with the scope `revoke` too."""
    mine = await make_client(scopes=["sessions"])
    other = await make_client(scopes=["revoke", "sessions"])
    tokens = await vouch(mine, somebody)
    assert_error(await revoke(http, other, tokens[kind]), "invalid_grant")
    assert tuple(await sql.fetchrow(ENDED, tokens["session_id"]) or ()) == (None, None)
    await revoke(http, mine, tokens[kind])
    assert (await revoke(http, other, tokens[kind])).status_code == 200  # dead, so it is nobody's any more


async def test_a_spent_refresh_token_ends_its_session_too(
    http: httpx2.AsyncClient, make_client: MakeKnown, somebody: Somebody, vouch: Vouch, sql: asyncpg.Connection
) -> None:
    """Whoever held any of its tokens may end it; the reason is what was asked for, not reuse."""
    known = await make_client(scopes=["sessions"])
    tokens = await vouch(known, somebody)
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    await http.post("/oauth2/token", data=form, headers=known.basic)
    await revoke(http, known, tokens["refresh_token"])
    assert tuple(await sql.fetchrow(ENDED, tokens["session_id"]) or ()) == ("oauth_revocation", known.client.id)


async def test_unknown_tokens_are_no_error(
    http: httpx2.AsyncClient,
    make_client: MakeKnown,
    somebody: Somebody,
    vouch: Vouch,
    clock: ElapsingClock,
    sql: asyncpg.Connection,
) -> None:
    """Noise, a forged tag, an expired access token: 200 (RFC 7009 section 2.2), and nothing happens."""
    known = await make_client(scopes=["sessions"])
    tokens = await vouch(known, somebody)
    refresh = tokens["refresh_token"]
    forged = refresh[:-4] + ("AAAA" if not refresh.endswith("AAAA") else "BBBB")
    clock.advance(seconds=900)
    for token in ("x", "rota_rt_", "a.b.c", "é", " ", forged, tokens["access_token"], "x" * 16_000):
        assert (await revoke(http, known, token)).status_code == 200, token
    assert tuple(await sql.fetchrow(ENDED, tokens["session_id"]) or ()) == (None, None)


async def test_what_a_revocation_must_have(http: httpx2.AsyncClient, make_client: MakeKnown) -> None:
    """A client that is known, and a token, once."""
    known = await make_client()
    assert_error(await http.post("/oauth2/revoke", headers=known.basic), "invalid_request")
    assert_error(await revoke(http, known, ""), "invalid_request")
    answer = await http.post("/oauth2/revoke", data={"token": ["a", "b"]}, headers=known.basic)
    assert_error(answer, "invalid_request")
    assert_error(await http.post("/oauth2/revoke", data={"token": "x"}), "invalid_client", 401)
    wrong = basic(known.client.client_id, "x")
    assert_error(await http.post("/oauth2/revoke", data={"token": "x"}, headers=wrong), "invalid_client", 401)


async def test_a_clients_own_token_cannot_be_revoked(http: httpx2.AsyncClient, make_client: MakeKnown) -> None:
    """RFC 7009 section 2.2.1: unsupported_token_type, rather than a promise that is not kept."""
    known = await make_client()
    granted = await http.post("/oauth2/token", data={"grant_type": "client_credentials"}, headers=known.basic)
    assert_error(await revoke(http, known, granted.json()["access_token"]), "unsupported_token_type")


async def test_revocations_race_with_refreshes(make_services: MakeServices, sql: asyncpg.Connection) -> None:
    """On many connections: the session ends once, with one event, and no token works afterwards; others end nothing."""
    services = make_services()
    mine, other = await make_known(services), await make_known(services)
    name = f"raced-{mine.client.client_id}"
    user = await services.users.create(name, PASSWORD, role=Role.USER, actor=None, client=client_at())
    issued = await services.sign_in.vouched(user.id, Terms(client_id=mine.client.client_id), client=client_at())

    async def end(known: Known, token: str) -> None:
        await services.oauth.revoke(token, known.client, client=client_at())

    async def refresh() -> object:
        return await services.refresh.rotate(
            issued.refresh_token, idempotency_key=None, client=client_at(), client_id=mine.client.client_id
        )

    await asyncio.gather(
        *(end(mine, issued.refresh_token) for _ in range(4)),
        *(end(mine, issued.access_token) for _ in range(4)),
        *(end(other, issued.refresh_token) for _ in range(4)),
        *(refresh() for _ in range(4)),
        return_exceptions=True,
    )
    ended = "SELECT count(*) FROM audit_events WHERE subject_id = $1 AND action = 'session.ended'"
    assert await sql.fetchval(ended, user.id) == 1
    row = await sql.fetchrow(ENDED, issued.session_id)
    assert tuple(row or ()) == ("oauth_revocation", mine.client.id)
    with pytest.raises(Exception, match="refresh token"):
        await refresh()


async def test_refused_revocations_end_nothing_under_load(make_services: MakeServices, sql: asyncpg.Connection) -> None:
    """Another client may try as often as it likes."""
    services = make_services()
    mine, other = await make_known(services), await make_known(services)
    name = f"kept-{mine.client.client_id}"
    user = await services.users.create(name, PASSWORD, role=Role.USER, actor=None, client=client_at())
    issued = await services.sign_in.vouched(user.id, Terms(client_id=mine.client.client_id), client=client_at())
    tries = (services.oauth.revoke(issued.refresh_token, other.client, client=client_at()) for _ in range(8))
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert {type(result) for result in results} == {TokenOfAnotherClient}
    assert tuple(await sql.fetchrow(ENDED, issued.session_id) or ()) == (None, None)


# Introspection.


async def test_a_live_access_token_says_what_it_says(
    http: httpx2.AsyncClient, make_client: MakeKnown, somebody: Somebody, vouch: Vouch, clock: ElapsingClock
) -> None:
    """The claims of the token, and nothing that it does not say."""
    known = await make_client(scopes=["sessions", "introspect"])
    tokens = await vouch(known, somebody, scope="read write")
    told = await introspect(http, known, tokens["access_token"])
    now = int(clock.time.timestamp())
    assert told.pop("jti")
    assert told == {
        "active": True,
        "token_use": "access_token",
        "token_type": "Bearer",
        "sub": str(somebody.user.id),
        "sid": tokens["session_id"],
        "client_id": known.client.client_id,
        "scope": "read write",
        "roles": ["user"],
        "iss": "http://127.0.0.1:8000",
        "aud": "rota",
        "iat": now,
        "exp": now + 900,
        "auth_time": now,
        "amr": ["mfa"],
    }


async def test_a_live_refresh_token_is_neither_spent_nor_revealed(
    http: httpx2.AsyncClient,
    make_client: MakeKnown,
    somebody: Somebody,
    vouch: Vouch,
    clock: ElapsingClock,
    sql: asyncpg.Connection,
) -> None:
    """Asking changes no row and writes no event; its audience is us, so that no service takes it for access."""
    known = await make_client(scopes=["sessions", "introspect"])
    tokens = await vouch(known, somebody, scope="read")
    before = await sql.fetchrow("SELECT *, xmin FROM families WHERE id = $1", tokens["session_id"])
    events = await sql.fetchval("SELECT count(*) FROM audit_events WHERE subject_id = $1", somebody.user.id)
    for hint in ("refresh_token", "access_token", "x"):
        told = await introspect(http, known, tokens["refresh_token"], token_type_hint=hint)
    now = int(clock.time.timestamp())
    assert told == {
        "active": True,
        "token_use": "refresh_token",
        "sub": str(somebody.user.id),
        "sid": tokens["session_id"],
        "client_id": known.client.client_id,
        "scope": "read",
        "iss": "http://127.0.0.1:8000",
        "aud": "http://127.0.0.1:8000",
        "iat": now,
        "exp": now + 604_800,
        "auth_time": now,
        "amr": ["mfa"],
    }
    assert await sql.fetchrow("SELECT *, xmin FROM families WHERE id = $1", tokens["session_id"]) == before
    assert await sql.fetchval("SELECT count(*) FROM audit_events WHERE subject_id = $1", somebody.user.id) == events
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    fresh = (await http.post("/oauth2/token", data=form, headers=known.basic)).json()
    # Spent: dead, and asking about it is not reuse.
    clock.advance(minutes=5)
    assert await introspect(http, known, tokens["refresh_token"]) == DEAD
    assert (await introspect(http, known, fresh["refresh_token"]))["active"] is True


async def test_tokens_of_our_own_routes_and_of_clients(
    http: httpx2.AsyncClient, container: Container, make_client: MakeKnown, somebody: Somebody, log_in: LogIn
) -> None:
    """First-party sessions are told of too; a client's own token as long as it is not disabled."""
    known = await make_client(scopes=["introspect"])
    tokens = await log_in(somebody)
    for kind in ("access_token", "refresh_token"):
        told = await introspect(http, known, tokens[kind])
        assert (told["active"], told["client_id"], told["scope"]) == (True, "first-party", "")
    other = await make_client(scopes=["authz"])
    granted = await http.post("/oauth2/token", data={"grant_type": "client_credentials"}, headers=other.basic)
    told = await introspect(http, known, granted.json()["access_token"])
    assert (told["active"], told["sub"], told["scope"]) == (True, other.client.client_id, "authz")
    assert told.keys() & {"sid", "roles", "auth_time"} == set()
    await container.api_clients.disable(other.client.id, actor=SYSTEM, client=client_at())
    assert await introspect(http, known, granted.json()["access_token"]) == DEAD


async def test_the_dead_are_all_alike(
    http: httpx2.AsyncClient,
    container: Container,
    make_client: MakeKnown,
    somebody: Somebody,
    vouch: Vouch,
    log_in: LogIn,
    clock: ElapsingClock,
) -> None:
    """Exactly `{"active": false}` (RFC 7662 section 2.2), whatever was wrong."""
    known = await make_client(scopes=["introspect", "sessions", "revoke"])
    ended = await log_in(somebody)
    await http.post("/logout", headers=bearer(ended["access_token"]))
    doomed = await make_client(scopes=["sessions"])
    waiting = await vouch(doomed, somebody)
    await container.api_clients.disable(doomed.client.id, actor=SYSTEM, client=client_at())
    forged = ended["refresh_token"][:-4] + "AAAA"
    dead = [ended["access_token"], ended["refresh_token"], forged, waiting["refresh_token"], "x", "a.b.c", "ü", "."]
    assert [await introspect(http, known, token) for token in dead] == [DEAD] * len(dead)
    expired = await log_in(somebody)
    assert (await introspect(http, known, expired["access_token"]))["active"] is True
    clock.advance(seconds=899)
    assert (await introspect(http, known, expired["access_token"]))["active"] is True
    clock.advance(seconds=1)
    assert await introspect(http, known, expired["access_token"]) == DEAD
    clock.advance(days=7)
    assert await introspect(http, known, expired["refresh_token"]) == DEAD


async def test_what_an_introspection_must_have(http: httpx2.AsyncClient, make_client: MakeKnown) -> None:
    """A client with the scope, and a token."""
    known = await make_client(scopes=["introspect"])
    assert_error(await http.post("/oauth2/introspect", headers=known.basic), "invalid_request")
    assert_error(await http.post("/oauth2/introspect", data={"token": ""}, headers=known.basic), "invalid_request")
    assert_error(await http.post("/oauth2/introspect", data={"token": "x"}), "invalid_client", 401)
    other = await make_client(scopes=["revoke"])
    answer = await http.post("/oauth2/introspect", data={"token": "x"}, headers=other.basic)
    assert_error(answer, "insufficient_scope", 403)


async def test_introspecting_an_access_token_needs_no_query(
    make_services: MakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the view of ended sessions is fresh and the client was read within a second: nothing is sent."""
    services = make_services(ElapsingClock())
    known = await make_known(services, scopes=["introspect", "sessions"])
    name = f"asked-{known.client.client_id}"
    user = await services.users.create(name, PASSWORD, role=Role.USER, actor=None, client=client_at())
    issued = await services.sign_in.vouched(user.id, Terms(client_id=known.client.client_id), client=client_at())
    following = asyncio.create_task(services.ended_view.follow())
    try:
        for _ in range(1000):
            if services.ended_view.now() is not None:
                break
            await asyncio.sleep(0.01)
        await services.client_authentication.authenticate(known.client.client_id, known.secret)

        def asked(*_: object) -> None:
            raise AssertionError("a query")

        monkeypatch.setattr(type(services.database), "begin", asked)
        monkeypatch.setattr(type(services.database), "fetch_one", asked)
        client = await services.client_authentication.authenticate(known.client.client_id, known.secret)
        assert client == known.client
        assert (await services.oauth.introspect(issued.access_token))["active"] is True
        monkeypatch.undo()
        await services.oauth.revoke(issued.refresh_token, known.client, client=client_at())
        assert await services.oauth.introspect(issued.access_token) == DEAD
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
