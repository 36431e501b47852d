"""Hostile cases of sessions and refresh tokens that have no home elsewhere, by their numbers."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import httpx2
import pytest
import pytest_asyncio
from fastapi import FastAPI
from uuid_utils.compat import uuid7

from app.domain.api_clients import ClientScope, NewClient
from app.domain.clock import Clock
from app.domain.errors import RefreshTokenRejected
from app.domain.events import NO_CLIENT, SYSTEM
from app.domain.families import EndReason
from app.domain.refresh_token import build
from app.domain.session_ends import SessionEnd
from app.domain.users import Role
from app.jobs.following import following_ends
from app.main import create_app
from app.security.event_tokens import EventTokens
from app.security.keys import Keyring
from tests.conftest import (
    PASSWORD,
    SECRET,
    MakePerson,
    MakeServices,
    MovableClock,
    OwnDatabase,
    Person,
    client_at,
    make_settings,
)


class WrongHost(Clock):
    """The database's own time; this host's is off."""

    def __init__(self, **off: float) -> None:
        self._off = timedelta(**off)

    def on_host(self) -> datetime:
        return datetime.now(UTC) + self._off


async def backdate(sql: asyncpg.Connection, session_id: UUID, seconds: float) -> None:
    """The last rotation was so many seconds ago, as the database counts."""
    await sql.execute(
        "UPDATE families SET rotated_at = clock_timestamp() - make_interval(secs => $2) WHERE id = $1",
        session_id,
        seconds,
    )


@pytest.mark.case(4)
@pytest.mark.parametrize(("milliseconds", "replayed"), [(-1, True), (1, False)], ids=["before", "after"])
async def test_a_millisecond_on_either_side_of_the_grace(
    person: Person, clock: MovableClock, sql: asyncpg.Connection, milliseconds: int, *, replayed: bool
) -> None:
    """Before: the same successor. After: the family is over, and so is the successor."""
    first = await person.sign_in()
    second = await person.refresh(first.refresh_token)
    clock.advance(seconds=10, milliseconds=milliseconds)
    if replayed:
        assert (await person.refresh(first.refresh_token)).refresh_token == second.refresh_token
        return
    for token in (first.refresh_token, second.refresh_token):
        with pytest.raises(RefreshTokenRejected):
            await person.refresh(token)
    assert await sql.fetchval("SELECT end_reason FROM families WHERE id = $1", first.session_id) == "reuse"


@pytest.mark.case(4)
@pytest.mark.parametrize("hours", [-24, 0, 24])
async def test_the_grace_is_counted_by_the_database(
    make_services: MakeServices, make_person: MakePerson, sql: asyncpg.Connection, hours: int
) -> None:
    """Whatever this host believes: long before the end a replay, long after it reuse."""
    services = make_services(WrongHost(hours=hours), refresh_grace_seconds=60)
    person = await make_person(services)
    for ago, replayed in ((1, True), (61, False)):
        first = await person.sign_in()
        second = await person.refresh(first.refresh_token)
        await backdate(sql, first.session_id, ago)
        if replayed:
            assert (await person.refresh(first.refresh_token)).refresh_token == second.refresh_token
        else:
            with pytest.raises(RefreshTokenRejected):
                await person.refresh(first.refresh_token)


@pytest.mark.case(5)
@pytest.mark.parametrize("hours", [-24, -1, 1, 24])
async def test_reuse_is_noticed_after_a_restart_by_a_host_whose_clock_stepped(
    make_services: MakeServices, make_person: MakePerson, sql: asyncpg.Connection, hours: int
) -> None:
    """What was spent before stays spent (CVE-2026-9802): no process remembers it, so none can forget it."""
    before = make_services()
    person = await make_person(before)
    spent = [await person.sign_in()]
    for _ in range(4):
        spent.append(await person.refresh(spent[-1].refresh_token))
    await backdate(sql, spent[0].session_id, 11)
    await before.close()
    after = make_services(WrongHost(hours=hours))
    with pytest.raises(RefreshTokenRejected):
        await after.refresh.rotate(spent[hours % 4].refresh_token, idempotency_key=None, client=client_at())
    assert await sql.fetchval("SELECT end_reason FROM families WHERE id = $1", spent[0].session_id) == "reuse"
    with pytest.raises(RefreshTokenRejected):
        await after.refresh.rotate(spent[-1].refresh_token, idempotency_key=None, client=client_at())


NOISE = [
    "x", "rota_rt_", "rota_rt_" + "A" * 104, "rota_at_" + "A" * 104, "rota_pt_" + "A" * 104, "ROTA_RT_" + "A" * 104,
    "eyJhbGciOiJFUzI1NiJ9.e30.AAAA", "\u0661" * 112, "x" * 8192,
]  # fmt: skip


@pytest.mark.case(13)
@pytest.mark.parametrize("path", ["/refresh", "/token", "/logout"])
async def test_noise_reaches_no_database(path: str) -> None:
    """Over HTTP, of a server that has no database: 401 for noise, 422 and 413 for what is no token, and never 503."""
    app = create_app(make_settings("postgresql://nobody@127.0.0.1:1/nowhere"))
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://rota") as http:
        for text, statuses in [*((each, {401}) for each in NOISE), ("", {401, 422}), ("x" * 2**20, {413})]:
            form = {"refresh_token": text} | ({"grant_type": "refresh_token"} if path == "/token" else {})
            assert (await http.post(path, data=form)).status_code in statuses, text[:20]
        good = _token_of_nobody()
        for at in range(0, len(good), 7):
            changed = good[:at] + ("A" if good[at] != "A" else "B") + good[at + 1 :]
            form = {"refresh_token": changed} | ({"grant_type": "refresh_token"} if path == "/token" else {})
            assert (await http.post(path, data=form)).status_code == 401
        form = {"refresh_token": good} | ({"grant_type": "refresh_token"} if path == "/token" else {})
        assert (await http.post(path, data=form)).status_code == 503, "and a token of ours is looked up"
    await app.state.container.close()


def _token_of_nobody() -> str:
    return build(Keyring([SECRET.encode()]).minting, user_id=uuid7(), family_id=uuid7(), generation=0, seed=bytes(32))


@pytest_asyncio.fixture
async def credentials(app: FastAPI, http: httpx2.AsyncClient, make_person: MakePerson, services: Any) -> dict[str, str]:
    """One of each kind, all of them good where they belong."""
    admin = await make_person(services, Role.ADMIN)
    issued = await admin.sign_in()
    scopes = frozenset(ClientScope)
    made = await services.api_clients.create(
        NewClient(f"kinds {secrets.token_hex(4)}", scopes=scopes), actor=SYSTEM, client=NO_CLIENT
    )
    assert made.secret is not None
    basic = (made.client.client_id, made.secret)
    granted = await http.post("/oauth2/token", data={"grant_type": "client_credentials"}, auth=basic)
    bearer = {"Authorization": f"Bearer {issued.access_token}"}
    reset = await http.post(f"/admin/users/{admin.user.id}/password-token", headers=bearer)
    assert reset.status_code == 201, reset.text
    issued = await admin.sign_in()
    container = app.state.container
    settings, now = container.settings, services.clock.on_host()
    events = EventTokens(container.signing_keys, issuer=settings.issuer, audience=settings.audience)
    ended = SessionEnd(issued.session_id, admin.user.id, now, EndReason.ADMIN, 4711)
    return {
        "access token": issued.access_token,
        "refresh token": issued.refresh_token,
        "token of a client": granted.json()["access_token"],
        "client secret": made.secret,
        "set-password token": reset.json()["password_token"],
        "security event": events.issue(replace(ended), now),
        "session id": str(issued.session_id),
        "client id": made.client.client_id,
    }


Ask = Callable[[str], dict[str, Any]]
PLACES: dict[str, tuple[str, str, Ask]] = {
    "access token": ("GET", "/me", lambda text: {"headers": {"Authorization": f"Bearer {text}"}}),
    "access token, of an admin": (
        "GET", "/admin/users", lambda text: {"headers": {"Authorization": f"Bearer {text}"}},
    ),
    "access token, at a proxy": ("GET", "/authz", lambda text: {"headers": {"Authorization": f"Bearer {text}"}}),
    "token of a client": ("GET", "/revocations", lambda text: {"headers": {"Authorization": f"Bearer {text}"}}),
    "set-password token": (
        "PUT", "/password", lambda text: {"json": {"token": text, "new_password": "a password altogether new"}},
    ),
    "refresh token": ("POST", "/refresh", lambda text: {"json": {"refresh_token": text}}),
    "refresh token, by grant": (
        "POST", "/token", lambda text: {"data": {"grant_type": "refresh_token", "refresh_token": text}},
    ),
    "refresh token, to leave by": ("POST", "/logout", lambda text: {"json": {"refresh_token": text}}),
}  # fmt: skip


@pytest.mark.case(14)
@pytest.mark.parametrize("place", PLACES)
async def test_no_credential_passes_for_another(
    http: httpx2.AsyncClient, credentials: dict[str, str], place: str
) -> None:
    """Every kind in the place of every other: 401. Then the right one, which has come to no harm."""
    method, path, ask = PLACES[place]
    belongs = place.partition(",")[0]
    for kind, text in credentials.items():
        if kind != belongs:
            answer = await http.request(method, path, **ask(text))
            assert answer.status_code == 401, (kind, answer.text)
            assert text not in answer.text
    assert (await http.request(method, path, **ask(credentials[belongs]))).status_code == 200


@pytest.mark.case(17)
async def test_a_sign_in_takes_over_no_session(http: httpx2.AsyncClient, person: Person) -> None:
    """
    Whatever session somebody brings along, by header, field or cookie: a new id, a new family, and none of the old
    tokens reaches it (CVE-2025-12390).
    """
    planted = await person.sign_in()
    headers = {
        "Authorization": f"Bearer {planted.access_token}",
        "Cookie": f"session_id={planted.session_id}; sid={planted.session_id}; refresh_token={planted.refresh_token}",
        "X-Session-Id": str(planted.session_id),
    }
    extra = {"session_id": str(planted.session_id), "sid": str(planted.session_id)}
    form = {"grant_type": "password", "username": person.username, "password": PASSWORD, **extra}
    answer = await http.post("/token", data=form, headers=headers)
    assert answer.status_code == 200, answer.text
    mine = answer.json()
    assert mine["session_id"] != str(planted.session_id)
    assert mine["refresh_token"] != planted.refresh_token
    bearer = {"Authorization": f"Bearer {mine['access_token']}"}
    assert (await http.get("/me", headers=bearer)).json()["session_id"] == mine["session_id"]
    await http.post("/logout", json={"refresh_token": planted.refresh_token})
    assert (await http.get("/me", headers=bearer)).status_code == 200
    assert (await http.post("/refresh", json={"refresh_token": planted.refresh_token})).status_code == 401


@pytest_asyncio.fixture
async def instances(own: OwnDatabase) -> AsyncIterator[list[httpx2.AsyncClient]]:
    """Three processes on one database, as far as it can tell: two that follow the ends, one that always looks."""
    apps = [create_app(make_settings(own.app, revocation_mode=mode)) for mode in ("view", "view", "strict")]
    clients = [httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://rota") for app in apps]
    for client, app in zip(clients, apps, strict=True):
        client.services = app.state.container  # type: ignore[attr-defined]
    async with following_ends(apps[0].state.container), following_ends(apps[1].state.container):
        yield clients
    for client, app in zip(clients, apps, strict=True):
        await client.aclose()
        await app.state.container.close()


@pytest.mark.case(20)
@pytest.mark.parametrize("how", ["one session", "all of the user"])
async def test_ended_by_an_administrator_nothing_of_it_works_anywhere(
    instances: list[httpx2.AsyncClient], how: str
) -> None:
    """
    CVE-2025-29928: at once where it was ended and where the database is asked, and within the stated two seconds where
    ends are followed. The refresh token is dead everywhere at once.
    """
    here, there, strict = instances
    services: Any = here.services  # type: ignore[attr-defined]
    for name, role in (("ada", Role.USER), ("root", Role.ADMIN)):
        await services.users.create(name, PASSWORD, role=role, actor=None, client=client_at())
    admin = await services.sign_in.with_password("root", PASSWORD, client=client_at())
    as_admin = {"Authorization": f"Bearer {admin.access_token}"}
    for turn in range(4):
        issued = await services.sign_in.with_password("ada", PASSWORD, client=client_at())
        bearer = {"Authorization": f"Bearer {issued.access_token}"}
        assert [(await one.get("/me", headers=bearer)).status_code for one in instances] == [200] * 3
        user = (await here.get("/me", headers=bearer)).json()["id"]
        path = f"/admin/sessions/{issued.session_id}" if how == "one session" else f"/admin/users/{user}/sessions"
        ending, following = (here, there) if turn % 2 else (there, here)
        ended = await ending.delete(path, headers=as_admin)
        assert ended.status_code == 200, ended.text
        assert (await ending.get("/me", headers=bearer)).status_code == 401
        assert (await strict.get("/me", headers=bearer)).status_code == 401
        for one in instances:
            assert (await one.post("/refresh", json={"refresh_token": issued.refresh_token})).status_code == 401
        async with asyncio.timeout(20):
            while (await following.get("/me", headers=bearer)).status_code != 401:
                await asyncio.sleep(0.005)
