"""`POST /admin/users/{id}/sessions`: a client opens sessions for people whom it has authenticated itself."""

import asyncio
import json
from typing import Any

import asyncpg
import httpx2
import jwt as pyjwt
import pytest
from uuid_utils.compat import uuid7

from app.container import Container
from app.domain.errors import UserDisabled
from app.domain.events import SYSTEM
from app.domain.users import Role
from app.services.opening import Terms
from tests.conftest import AGENT, PASSWORD, Events, MakeServices, client_at
from tests.oauth.conftest import ElapsingClock, Known, MakeKnown, Somebody, Vouch, bearer, make_known

FAMILY = """SELECT client_id, scope, amr, acr, host(created_ip) AS ip, user_agent, browser, authenticated_at, created_at
  FROM families WHERE id = $1"""


async def ask(http: httpx2.AsyncClient, known: Known, user_id: object, body: dict[str, Any]) -> httpx2.Response:
    return await http.post(f"/admin/users/{user_id}/sessions", json=body, headers=known.basic)


async def test_a_session_with_all_that_the_client_knows(
    http: httpx2.AsyncClient,
    make_client: MakeKnown,
    somebody: Somebody,
    events_of: Events,
    sql: asyncpg.Connection,
    clock: ElapsingClock,
) -> None:
    """The pair as `POST /token` gives it; methods, class, time, address and agent are the person's; the client acts."""
    known = await make_client(scopes=["sessions", "introspect"])
    answer = await ask(
        http,
        known,
        somebody.user.id,
        {
            "amr": ["hwk", "pin", "mfa"],
            "acr": "urn:example:gold",
            "auth_time": int(clock.time.timestamp()) - 60,
            "ip": "2001:db8::7",
            "user_agent": AGENT,
            "scope": "read write",
        },
    )
    assert answer.status_code == 200, answer.text
    tokens = answer.json()
    assert tokens.keys() == {
        "access_token",
        "token_type",
        "expires_in",
        "refresh_token",
        "refresh_expires_in",
        "session_id",
        "scope",
    }
    row = await sql.fetchrow(FAMILY, tokens["session_id"])
    assert row is not None
    assert dict(row) | {"authenticated_at": None, "created_at": None} == {
        "client_id": known.client.client_id,
        "scope": "read write",
        "amr": "hwk pin mfa",
        "acr": "urn:example:gold",
        "ip": "2001:db8::7",
        "user_agent": AGENT,
        "browser": "Mobile Safari 17",
        "authenticated_at": None,
        "created_at": None,
    }
    assert 60 <= (row["created_at"] - row["authenticated_at"]).total_seconds() < 61
    event = (await events_of(somebody.user.id))[-1]
    assert (event["action"], event["actor_kind"], event["actor_id"]) == ("session.created", "client", known.client.id)
    assert (str(event["ip"]), event["user_agent"]) == ("2001:db8::7", AGENT)
    assert str(event["request_id"]) == answer.headers["x-request-id"]
    assert json.loads(event["detail"]) == {
        "amr": ["hwk", "pin", "mfa"],
        "client_id": known.client.client_id,
        "scope": "read write",
    }
    claims = pyjwt.decode(tokens["access_token"], options={"verify_signature": False})
    assert (claims["auth_time"], claims["scope"]) == (int(clock.time.timestamp()) - 60, "read write")
    assert (claims["amr"], claims["acr"]) == (["hwk", "pin", "mfa"], "urn:example:gold")
    refresh = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    later = (await http.post("/oauth2/token", data=refresh, headers=known.basic)).json()
    for token in (later["access_token"], later["refresh_token"]):
        told = (await http.post("/oauth2/introspect", data={"token": token}, headers=known.basic)).json()
        assert {name: told[name] for name in ("auth_time", "amr", "acr")} == {
            name: claims[name] for name in ("auth_time", "amr", "acr")
        }
    mine = await http.get("/sessions", headers=bearer(tokens["access_token"]))
    assert mine.json()["items"][0]["id"] == tokens["session_id"]


async def test_only_the_client_refreshes_it(
    http: httpx2.AsyncClient, make_client: MakeKnown, somebody: Somebody, vouch: Vouch
) -> None:
    """At `/oauth2/token`, not at `/refresh`; the owner can still end it."""
    known = await make_client(scopes=["sessions"])
    tokens = await vouch(known, somebody)
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    assert (await http.post("/refresh", data=form)).status_code == 401
    fresh = await http.post("/oauth2/token", data=form, headers=known.basic)
    assert fresh.status_code == 200
    ended = await http.post("/logout", headers=bearer(fresh.json()["access_token"]))
    assert ended.json()["ended"] is True


async def test_nothing_but_the_methods_is_needed(
    http: httpx2.AsyncClient, make_client: MakeKnown, somebody: Somebody, sql: asyncpg.Connection, events_of: Events
) -> None:
    """What the client does not say of the person is not made up from the client's own request."""
    known = await make_client(scopes=["sessions"])
    tokens = (await ask(http, known, somebody.user.id, {"amr": ["fed"]})).json()
    row = await sql.fetchrow(FAMILY, tokens["session_id"])
    assert row is not None
    assert (row["ip"], row["user_agent"], row["acr"], row["scope"]) == (None, None, None, "")
    event = (await events_of(somebody.user.id))[-1]
    assert (event["ip"], event["user_agent"]) == (None, None)


async def test_registered_scopes_bound_what_is_granted(
    http: httpx2.AsyncClient, make_client: MakeKnown, somebody: Somebody, vouch: Vouch
) -> None:
    """Within them; all of them if none is asked for."""
    known = await make_client(scopes=["sessions"], session_scopes=("read", "write"))
    assert (await vouch(known, somebody))["scope"] == "read write"
    assert (await vouch(known, somebody, scope="write"))["scope"] == "write"
    refused = await ask(http, known, somebody.user.id, {"amr": ["pwd"], "scope": "read admin"})
    assert (refused.status_code, refused.json()["code"]) == (422, "input_invalid")


async def test_unknown_and_disabled_people(
    http: httpx2.AsyncClient, container: Container, make_client: MakeKnown, somebody: Somebody, sql: asyncpg.Connection
) -> None:
    """404 and 409: the client has authenticated somebody whom we do not let in, and must know it."""
    known = await make_client(scopes=["sessions"])
    await container.users.disable(somebody.user.id, actor=SYSTEM, client=client_at())
    for user_id, status, code in (
        (uuid7(), 404, "user_not_found"),
        (somebody.user.id, 409, "user_disabled"),
        ("nobody", 422, "input_invalid"),
    ):
        answer = await ask(http, known, user_id, {"amr": ["pwd"]})
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert await sql.fetchval("SELECT count(*) FROM families WHERE user_id = $1", somebody.user.id) == 0


WRONG = [
    {},
    {"amr": []},
    {"amr": "pwd"},
    {"amr": [""]},
    {"amr": ["a b"]},
    {"amr": ["pwd\n"]},
    {"amr": ["x"] * 17},
    {"amr": ["x" * 65]},
    {"amr": [1]},
    {"amr": None},
    {"amr": ["pwd"], "acr": ""},
    {"amr": ["pwd"], "acr": "a b"},
    {"amr": ["pwd"], "acr": "x" * 201},
    {"amr": ["pwd"], "auth_time": "now"},
    {"amr": ["pwd"], "auth_time": -1},
    {"amr": ["pwd"], "auth_time": 0},
    {"amr": ["pwd"], "auth_time": 2**60},
    {"amr": ["pwd"], "auth_time": 1.5},
    {"amr": ["pwd"], "ip": "somewhere"},
    {"amr": ["pwd"], "ip": "203.0.113.0/24"},
    {"amr": ["pwd"], "ip": "fe80::1%eth0"},
    {"amr": ["pwd"], "ip": ""},
    {"amr": ["pwd"], "user_agent": "a\0b"},
    {"amr": ["pwd"], "user_agent": "x" * 5000},
    {"amr": ["pwd"], "scope": "a  b"},
    {"amr": ["pwd"], "scope": '"'},
    {"amr": ["pwd"], "role": "admin"},
    {"amr": ["pwd"], "client_id": "first-party"},
]


@pytest.mark.parametrize("body", WRONG, ids=str)
async def test_what_is_refused(
    http: httpx2.AsyncClient, make_client: MakeKnown, somebody: Somebody, body: dict[str, Any], sql: asyncpg.Connection
) -> None:
    """422, and no session."""
    known = await make_client(scopes=["sessions"])
    answer = await ask(http, known, somebody.user.id, body)
    assert answer.status_code == 422, answer.text
    assert await sql.fetchval("SELECT count(*) FROM families WHERE user_id = $1", somebody.user.id) == 0


@pytest.mark.parametrize(("seconds", "status"), [(61, 422), (59, 200), (0, 200), (-2_592_000, 200), (-2_592_002, 422)])
async def test_when_somebody_can_have_been_authenticated(
    http: httpx2.AsyncClient,
    make_client: MakeKnown,
    somebody: Somebody,
    clock: ElapsingClock,
    seconds: int,
    status: int,
) -> None:
    """Not in the future, but for clocks a minute apart, which is then taken for now; nor longer ago than a session."""
    known = await make_client(scopes=["sessions"])
    now = int(clock.time.timestamp())
    clock.time = clock.time.replace(microsecond=0)
    answer = await ask(http, known, somebody.user.id, {"amr": ["pwd"], "auth_time": now + seconds})
    assert answer.status_code == status
    if status == 200:
        claims = pyjwt.decode(answer.json()["access_token"], options={"verify_signature": False})
        assert claims["auth_time"] == min(now, now + seconds)


async def test_the_cap_holds_when_many_come_at_once(make_services: MakeServices, sql: asyncpg.Connection) -> None:
    """Vouched sessions and sign-ins on many connections: never more than the limit, the oldest evicted with events."""
    services = make_services(max_sessions_per_user=3)
    known = await make_known(services)
    name = f"capped-{known.client.client_id}"
    user = await services.users.create(name, PASSWORD, role=Role.USER, actor=None, client=client_at())
    terms = Terms(client_id=known.client.client_id, amr="mfa")
    await asyncio.gather(
        *(services.sign_in.vouched(user.id, terms, client=client_at()) for _ in range(8)),
        *(services.sign_in.with_password(name, PASSWORD, client=client_at()) for _ in range(4)),
    )
    live = "SELECT count(*) FROM families WHERE user_id = $1 AND ended_at IS NULL"
    assert await sql.fetchval(live, user.id) == 3
    evicted = "SELECT count(*) FROM audit_events WHERE subject_id = $1 AND reason = 'evicted'"
    assert await sql.fetchval(evicted, user.id) == 9


async def test_no_session_slips_past_a_disabling(make_services: MakeServices, sql: asyncpg.Connection) -> None:
    """Both lock the user's row first: what was opened before is ended, nothing is opened after, nothing deadlocks."""
    services = make_services()
    known = await make_known(services)
    terms = Terms(client_id=known.client.client_id, amr="mfa")
    for number in range(5):
        name = f"slipping-{number}-{known.client.client_id}"
        user = await services.users.create(name, PASSWORD, role=Role.USER, actor=None, client=client_at())
        results = await asyncio.gather(
            *(services.sign_in.vouched(user.id, terms, client=client_at()) for _ in range(6)),
            services.users.disable(user.id, actor=SYSTEM, client=client_at()),
            *(services.sign_in.vouched(user.id, terms, client=client_at()) for _ in range(6)),
            return_exceptions=True,
        )
        assert {type(each) for each in results if isinstance(each, Exception)} <= {UserDisabled}
        live = "SELECT count(*) FROM families WHERE user_id = $1 AND ended_at IS NULL"
        assert await sql.fetchval(live, user.id) == 0


async def test_somebody_without_a_password_gets_a_session(
    http: httpx2.AsyncClient, make_client: MakeKnown, somebody: Somebody, vouch: Vouch, sql: asyncpg.Connection
) -> None:
    """Whoever keeps no passwords here: there is none to look at."""
    await sql.execute("UPDATE users SET password_hash = NULL WHERE id = $1", somebody.user.id)
    known = await make_client(scopes=["sessions"])
    tokens = await vouch(known, somebody)
    assert (await http.get("/me", headers=bearer(tokens["access_token"]))).status_code == 200
