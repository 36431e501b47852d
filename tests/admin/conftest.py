"""The API over a database of the test's own, with an administrator who is signed in."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import httpx2
import pytest_asyncio
from fastapi import FastAPI

from app.container import Container
from app.domain.users import Role
from app.main import create_app
from tests.conftest import PASSWORD, MovableClock, OwnDatabase, Person, client_at, make_settings


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
