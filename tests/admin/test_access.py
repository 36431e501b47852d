"""
Who may call what: every route of the application with every kind of caller, by what the route itself states.

Nothing is listed by hand: a new route is covered when it is there, and one that states something else than it does, or
something that this test does not know, fails.
"""

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any
from unittest.mock import Mock
from uuid import UUID, uuid4

import httpx2
import pytest
import pytest_asyncio
from fastapi import APIRouter, Depends, FastAPI
from fastapi.routing import APIRoute

from app.api.dependencies import Access, administering, auditing, signed_in, stated
from app.domain.users import Role
from app.http import watching
from app.main import create_app
from app.services.authentication import Caller
from tests.conftest import PASSWORD, OwnDatabase, client_at, make_settings

SAFE = {"GET", "HEAD", "OPTIONS"}
OUTSIDERS = ("no token", "garbage", "tampered token", "refresh token", "basic", "of an ended session", "lost the role")
STREAM_SECONDS = 3
PEOPLE = {"user": Role.USER, "auditor": Role.AUDITOR, "admin": Role.ADMIN}

# Who is let in, of those with a session. Programs have credentials of their own, and people's tokens are none.
LET_IN: dict[str, set[str]] = {
    Access.ANYONE: set(PEOPLE),
    Access.SIGNED_IN: set(PEOPLE),
    Access.AUDITOR: {"auditor", "admin"},
    Access.ADMIN: {"admin"},
}
PROGRAMS = {access.value for access in Access} - set(LET_IN)
# What API clients can be allowed, where there are API clients; and how one comes in.
SCOPES = ["introspect", "revoke", "revocations", "authz", "sessions", "notifications"]
MAKES_CLIENTS = ("POST", "/admin/clients")
# Open to anybody, and yet an answer of 401: what is presented in the body is the credential.
CREDENTIAL_IN_BODY = {("POST", "/logout")}
# Unsafe methods under /admin that auditors may use, each with its reason.
AUDITORS_MAY: dict[tuple[str, str], str] = {}


@dataclass
class World:
    """An application over a database of its own, with somebody of each kind."""

    app: FastAPI
    http: httpx2.AsyncClient
    names: dict[str, str] = field(default_factory=dict)

    @property
    def services(self) -> Any:
        return self.app.state.container

    async def token(self, kind: str) -> str:
        """The access token of a new session: what is tried may end sessions."""
        token: str = (await self.pair(kind)).access_token
        return token

    async def pair(self, kind: str) -> Any:
        return await self.services.sign_in.with_password(self.names[kind], PASSWORD, client=client_at())

    async def headers(self, caller: str) -> dict[str, str]:
        match caller:
            case "no token":
                return {}
            case "garbage":
                return {"Authorization": "Bearer garbage"}
            case "tampered token":
                token = await self.token("admin")
                return {"Authorization": f"Bearer {token[:-9]}{'A' if token[-9] != 'A' else 'B'}{token[-8:]}"}
            case "refresh token":
                return {"Authorization": f"Bearer {(await self.pair('admin')).refresh_token}"}
            case "basic":
                return {"Authorization": "Basic YWRtaW46YWRtaW4="}
            case "of an ended session":
                pair = await self.pair("admin")
                await self.services.sessions.log_out_with_refresh_token(pair.refresh_token, client=client_at())
                return {"Authorization": f"Bearer {pair.access_token}"}
            case "program" | "program without scopes":
                return {"Authorization": self.names[caller]}
            case "lost the role":
                return {"Authorization": f"Bearer {self.names['lost token']}"}
        return {"Authorization": f"Bearer {await self.token(caller)}"}

    async def ask(self, method: str, path: str, caller: str) -> int:
        """The status. A stream that goes on and on has let the caller in."""
        headers = await self.headers(caller)
        try:
            async with asyncio.timeout(STREAM_SECONDS if caller == "program" else 60):
                return (await self.http.request(method, path, headers=headers)).status_code
        except TimeoutError:
            assert caller == "program", path
            return 200

    async def make_programs(self, headers: dict[str, str]) -> None:
        """One that may do everything that a client can, and one that may do nothing."""
        if MAKES_CLIENTS not in {(method, route.path) for method, route in routes_of(self.app)}:
            return
        for kind, scopes in (("program", SCOPES), ("program without scopes", [])):
            body = {"name": kind, "scopes": scopes}
            made = await self.http.post(MAKES_CLIENTS[1], json=body, headers=headers)
            assert made.status_code == 201, made.text
            pair = f"{made.json()['client_id']}:{made.json()['client_secret']}"
            self.names[kind] = f"Basic {base64.b64encode(pair.encode()).decode()}"

    @property
    def programs(self) -> list[str]:
        return [kind for kind in ("program", "program without scopes") if kind in self.names]


@pytest_asyncio.fixture
async def world(own: OwnDatabase) -> AsyncIterator[World]:
    app = create_app(make_settings(own.app))
    transport = httpx2.ASGITransport(app, client=("203.0.113.7", 4711))
    async with httpx2.AsyncClient(transport=transport, base_url="http://rota") as http:
        made = World(app, http)
        for kind, role in [*PEOPLE.items(), ("other", Role.USER), ("lost", Role.ADMIN)]:
            await made.services.users.create(kind, PASSWORD, role=role, actor=None, client=client_at())
            made.names[kind] = kind
        made.names["lost token"] = await made.token("lost")
        lost = await made.services.users.find_by_name("lost")
        admin = {"Authorization": f"Bearer {await made.token('admin')}"}
        demoted = await http.patch(f"/admin/users/{lost.id}", json={"role": "user"}, headers=admin)
        assert demoted.status_code == 200
        await made.make_programs(admin)
        yield made
    await app.state.container.close()


def routes_of(app: FastAPI) -> Iterator[tuple[str, APIRoute]]:
    for route in app.routes:
        if isinstance(route, APIRoute):
            for method in sorted(route.methods or ()):
                yield method, route


def access_of(route: APIRoute) -> str:
    return str((route.openapi_extra or {}).get("x-access"))


def filled(path: str, value: Callable[[str], UUID] = lambda _: uuid4()) -> str:
    return re.sub(r"{(\w+)(?::\w+)?}", lambda found: str(value(found.group(1))), path)


async def findings(world: World, only: Callable[[APIRoute], bool] = lambda _: True) -> list[str]:
    """What is not as stated, for every route and every caller."""
    found = []
    for method, route in routes_of(world.app):
        if not only(route):
            continue
        access = access_of(route)
        if access not in LET_IN and access not in PROGRAMS:
            found.append(f"{method} {route.path} states {access}, which is nobody")
            continue
        for caller in (*OUTSIDERS, *PEOPLE, *world.programs):
            status = await world.ask(method, filled(route.path), caller)
            if not _as_stated(access, caller, status, body=(method, route.path) in CREDENTIAL_IN_BODY):
                found.append(f"{method} {route.path} ({access}) answers {status} to {caller}")
    return found


def _as_stated(access: str, caller: str, status: int, *, body: bool) -> bool:
    if status >= 500:
        return False
    if access == Access.ANYONE:
        return body or status not in {401, 403}
    if access == Access.OPERATOR:  # has a token of another kind, and none is set here
        return status == 401
    if access in PROGRAMS:  # without scopes they may still speak of their own tokens
        return caller == "program without scopes" or (status not in {401, 403}) == (caller == "program")
    if caller not in PEOPLE:
        return status == 401
    return status not in {401, 403} if caller in LET_IN[access] else status == 403


async def test_every_route_lets_in_whom_it_states_and_nobody_else(world: World) -> None:
    """All routes, all callers; also a token that was good until its session ended or its role was lost."""
    assert await findings(world) == []
    assert len(list(routes_of(world.app))) > 20


async def test_a_route_that_does_something_else_is_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test can fail: five routes, each wrong in its own way, and five findings or more."""
    for metric in ("REQUESTS", "REQUEST_SECONDS"):
        monkeypatch.setattr(watching, metric, Mock())  # they are the process's, where no such route is known
    router = APIRouter()

    async def wrong(_: Annotated[Caller, Depends(signed_in)]) -> None: ...
    async def weak(_: Annotated[Caller, Depends(auditing)]) -> None: ...
    async def strong(_: Annotated[Caller, Depends(administering)]) -> None: ...
    async def open_to_all() -> None: ...

    router.add_api_route("/wrong/1", wrong, openapi_extra=stated(Access.ADMIN))
    router.add_api_route("/wrong/2", weak, openapi_extra=stated(Access.ADMIN))
    router.add_api_route("/wrong/3", strong, openapi_extra=stated(Access.AUDITOR))
    router.add_api_route("/wrong/4", open_to_all, openapi_extra=stated(Access.SIGNED_IN))
    router.add_api_route("/wrong/5", open_to_all)
    world.app.routes.extend(router.routes)
    found = await findings(world, lambda route: route.path.startswith("/wrong"))
    assert {line.split()[1] for line in found} == {f"/wrong/{number}" for number in range(1, 6)}
    assert "GET /wrong/1 (administrator) answers 200 to user" in found
    assert "GET /wrong/2 (administrator) answers 200 to auditor" in found
    assert "GET /wrong/3 (auditor) answers 403 to auditor" in found


def test_auditors_read_and_administrators_act(app: FastAPI) -> None:
    """Under /admin an unsafe method is the administrators' (or a program's), a safe one the auditors' as well."""
    under = [(method, route) for method, route in routes_of(app) if route.path.startswith("/admin")]
    assert len(under) > 6
    for method, route in under:
        access = access_of(route)
        if method in SAFE:
            assert access in {Access.AUDITOR, *PROGRAMS}, (method, route.path)
        elif (method, route.path) not in AUDITORS_MAY:
            assert access in {Access.ADMIN, *PROGRAMS}, (method, route.path)


@pytest.mark.case(72)
async def test_foreign_ids_answer_as_missing_ones(world: World) -> None:
    """On every route of one's own: somebody else's id is answered as none at all, but for the request's id."""
    theirs = await world.pair("other")
    known = {"session_id": theirs.session_id}
    tried = 0
    for method, route in routes_of(world.app):
        names = re.findall(r"{(\w+)(?::\w+)?}", route.path)
        if access_of(route) != Access.SIGNED_IN or not names:
            continue
        assert set(names) <= set(known), f"{route.path}: say here whose id that can be"
        foreign, missing = [
            await world.http.request(
                method,
                filled(route.path, value),
                headers=await world.headers("user"),
                json={"label": "mine"} if method in {"PATCH", "PUT", "POST"} else None,
            )
            for value in (known.__getitem__, lambda _: uuid4())
        ]
        assert foreign.status_code == missing.status_code == 404, route.path
        assert _plain(foreign) == _plain(missing)
        tried += 1
    assert tried >= 3
    mine = {"Authorization": f"Bearer {theirs.access_token}"}
    own = (await world.http.get(f"/sessions/{theirs.session_id}", headers=mine)).json()
    assert (own["state"], own["label"]) == ("active", None), "and nothing has happened to it"


def _plain(answer: httpx2.Response) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    headers = [(name, value) for name, value in answer.headers.items() if name != "x-request-id"]
    return {**answer.json(), "request_id": None}, headers


@pytest.mark.case(67)
async def test_a_lost_role_is_lost_on_the_next_request(world: World) -> None:
    """Between two pages of a list the auditor is demoted: no second page; signed in again, no list at all."""
    auditor = await world.services.users.find_by_name("auditor")
    before = await world.headers("auditor")
    first = await world.http.get("/admin/users", params={"limit": 2}, headers=before)
    assert first.status_code == 200
    following = {"limit": 2, "after": first.json()["next"]}
    assert (await world.http.get("/admin/users", params=following, headers=before)).status_code == 200
    admin = await world.headers("admin")
    demoted = await world.http.patch(f"/admin/users/{auditor.id}", json={"role": "user"}, headers=admin)
    assert (demoted.json()["changed"], demoted.json()["sessions_ended"]) == (True, 1)
    assert (await world.http.get("/admin/users", params=following, headers=before)).status_code == 401
    after = await world.headers("auditor")
    assert (await world.http.get("/admin/users", params=following, headers=after)).status_code == 403
    promoted = await world.http.patch(f"/admin/users/{auditor.id}", json={"role": "auditor"}, headers=admin)
    assert promoted.json()["sessions_ended"] == 1
    assert (await world.http.get("/admin/users", headers=after)).status_code == 401, "more is not had by it either"


@pytest.mark.parametrize("extreme", [UUID(int=0), UUID(int=2**128 - 1), UUID("ffffffff-ffff-7fff-bfff-ffffffffffff")])
async def test_ids_that_nothing_has(world: World, extreme: UUID) -> None:
    """An id says a time, and may say one that no calendar has: it is missing like any other, on every route."""
    for method, route in routes_of(world.app):
        if "{" in route.path and access_of(route) not in PROGRAMS:
            headers = await world.headers("admin")
            answer = await world.http.request(method, filled(route.path, lambda _: extreme), headers=headers)
            assert answer.status_code < 500, (method, route.path)
    found = await world.http.get("/admin/events", params={"request_id": str(extreme)}, headers=headers)
    assert (found.status_code, found.json()["items"]) == (200, [])
