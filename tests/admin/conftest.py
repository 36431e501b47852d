"""The API over a database of the test's own, with an administrator who is signed in; and sessions by the thousand."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import httpx2
import pytest
import pytest_asyncio
from fastapi import FastAPI
from uuid_utils.compat import uuid7

from app.container import Container
from app.domain.users import Role
from app.main import create_app
from tests.conftest import PASSWORD, MovableClock, OwnDatabase, Person, client_at, make_settings

FAMILIES = """
INSERT INTO families (user_id, id, seed, generation, event_seq, client_id, scope, role, authenticated_at, amr,
                      created_at, idle_expires_at, expires_at)
SELECT $1, id, sha256(id::text::bytea), 0, 1, 'first-party', '', 'user', $3, 'pwd', $3, $3::timestamptz + $4::interval,
       $3::timestamptz + interval '30 days'
  FROM unnest($2::uuid[]) AS id
"""
EVENTS = """
INSERT INTO audit_events (id, occurred_at, action, version, outcome, actor_kind, actor_id, subject_id, family_id,
                          family_seq, generation, detail)
SELECT gen_random_uuid(), $3, 'session.created', 1, 'success', 'user', $1, $1, id, 1, 0,
       '{"amr":["pwd"],"client_id":"first-party","scope":""}'
  FROM unnest($2::uuid[]) AS id
"""

MakeSessions = Callable[..., Awaitable[list[UUID]]]


@dataclass
class Office:
    """What an administrator sees, and the database behind it."""

    app: FastAPI
    http: httpx2.AsyncClient
    sql: asyncpg.Connection
    clock: MovableClock
    admin: Person

    @property
    def services(self) -> Container:
        found: Container = self.app.state.container
        return found

    async def person(self, name: str | None = None, role: Role = Role.USER) -> Person:
        name = name or f"person-{secrets.token_hex(6)}"
        user = await self.services.users.create(name, PASSWORD, role=role, actor=None, client=client_at())
        return Person(self.services, user, name)

    async def headers(self, person: Person) -> dict[str, str]:
        return {"Authorization": f"Bearer {(await person.sign_in()).access_token}"}

    async def events(self, user_id: UUID | str, *actions: str) -> list[asyncpg.Record]:
        """A user's events but those of making and signing in, oldest first; or those of the actions."""
        rows = await self.sql.fetch("SELECT * FROM audit_events WHERE subject_id = $1 ORDER BY seq", UUID(str(user_id)))
        dull = {"user.created", "session.created"}
        return [row for row in rows if (row["action"] in actions if actions else row["action"] not in dull)]

    async def ok(self, method: str, path: str, status: int = 200, **more: Any) -> dict[str, Any]:
        answer = await self.http.request(method, path, **more)
        assert answer.status_code == status, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def refused(self, method: str, path: str, status: int, code: str, **more: Any) -> dict[str, Any]:
        found = await self.ok(method, path, status, **more)
        assert found["code"] == code
        return found


@pytest_asyncio.fixture
async def office(own: OwnDatabase, own_sql: asyncpg.Connection, clock: MovableClock) -> AsyncIterator[Office]:
    app = create_app(make_settings(own.app, maintenance_database_url=own.maintenance), clock)
    services: Container = app.state.container
    user = await services.users.create("root", PASSWORD, role=Role.ADMIN, actor=None, client=client_at())
    admin = Person(services, user, "root")
    transport = httpx2.ASGITransport(app, client=("198.51.100.1", 1))
    async with httpx2.AsyncClient(transport=transport, base_url="http://rota") as http:
        made = Office(app, http, own_sql, clock, admin)
        http.headers.update(await made.headers(admin))
        yield made
    await services.close()


@pytest.fixture
def make_sessions(own_sql: asyncpg.Connection) -> MakeSessions:
    """Sign a user in so many times at one moment, with the events."""

    async def make(user: UUID, number: int, at: datetime, idle: timedelta = timedelta(days=7)) -> list[UUID]:
        ids = [uuid7() for _ in range(number)]
        async with own_sql.transaction():
            await own_sql.execute(FAMILIES, user, ids, at, idle)
            await own_sql.execute(EVENTS, user, ids, at)
        return ids

    return make
