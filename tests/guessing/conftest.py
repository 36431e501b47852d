"""Two servers over a database of the test's own, people, and a hasher that counts what it is asked."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import asyncpg
import httpx2
import pytest_asyncio
from fastapi import FastAPI
from sqlalchemy import event

from app.container import Container
from app.domain.errors import TooBusy
from app.domain.users import Role
from app.main import create_app
from tests.conftest import PASSWORD, MovableClock, OwnDatabase, Person, client_at, make_settings

WRONG = "a wrong password, of some length"


@dataclass
class Town:
    """What goes on at two servers, seen from any address."""

    apps: list[FastAPI]
    sql: asyncpg.Connection
    clock: MovableClock
    verified: list[str] = field(default_factory=list)  # what the hashers were asked

    @property
    def services(self) -> Container:
        return self.at(0)

    def at(self, server: int) -> Container:
        found: Container = self.apps[server].state.container
        return found

    def cheap(self) -> None:
        """Verify by comparing: for tests in which thousands guess."""

        def stub(hasher: Any) -> Callable[..., Any]:
            async def verify(password: str, stored: str | None) -> bool:
                self.verified.append(password)
                await asyncio.sleep(0)
                return stored is not None and password == PASSWORD

            return verify

        for number in range(len(self.apps)):
            hasher: Any = self.at(number).hasher
            hasher.verify = stub(hasher)

    def verify_by(self, verify: Callable[[str, str | None], Awaitable[bool]]) -> None:
        """At the first server."""
        hasher: Any = self.services.hasher
        hasher.verify = verify

    def count(self) -> None:
        """Verify as ever, and count."""
        for number in range(len(self.apps)):
            hasher: Any = self.at(number).hasher

            async def verify(password: str, stored: str | None, really: Any = hasher.verify) -> bool:
                self.verified.append(password)
                try:
                    right: bool = await really(password, stored)
                except TooBusy:  # given up in the queue: not looked at
                    self.verified.remove(password)
                    raise
                return right

            hasher.verify = verify

    async def person(self, name: str | None = None, role: Role = Role.USER) -> Person:
        name = name or f"person-{secrets.token_hex(6)}"
        user = await self.services.users.create(name, PASSWORD, role=role, actor=None, client=client_at())
        return Person(self.services, user, name)

    async def request(
        self, method: str, path: str, address: str = "203.0.113.7", server: int = 0, **more: Any
    ) -> httpx2.Response:
        transport = httpx2.ASGITransport(self.apps[server], client=(address, 4711))
        async with httpx2.AsyncClient(transport=transport, base_url="http://rota") as http:
            return await http.request(method, path, **more)

    async def log_in(
        self, name: str, password: str = PASSWORD, address: str = "203.0.113.7", *, server: int = 0, **form: str
    ) -> httpx2.Response:
        data = {"username": name, "password": password, **form}
        return await self.request("POST", "/token", address, server, data=data)

    async def device_of(self, person: Person) -> str:
        """Sign in from a new device; the token that it keeps."""
        answer = await self.log_in(person.username)
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["device_token"]
        return token

    async def fail(self, name: str, times: int, address: str = "198.51.100.1") -> list[int]:
        """Guess wrongly, waiting as long as one is told to, so that each guess is looked at."""
        seen: list[int] = []
        while len(seen) < times:
            answer = await self.log_in(name, WRONG, address)
            if answer.status_code == 429:
                self.clock.advance(seconds=int(answer.headers["retry-after"]))
                continue
            seen.append(answer.status_code)
        return seen

    async def block_all(self) -> None:
        """Whose failures are counted must wait for a minute."""
        until = self.clock.time + timedelta(minutes=1)
        await self.sql.execute("UPDATE login_throttle SET blocked_until = $1", until)

    async def events(self, action: str) -> list[asyncpg.Record]:
        """Of the trail; what is written in the background is awaited."""
        for number in range(len(self.apps)):
            await asyncio.gather(*self.at(number).throttling._notes._tasks)
        rows: list[asyncpg.Record] = await self.sql.fetch(
            "SELECT * FROM audit_events WHERE action = $1 ORDER BY seq", action
        )
        return rows

    async def counts(self) -> list[tuple[str, int, int]]:
        rows = await self.sql.fetch(
            "SELECT way, octet_length(holder) AS holder, failures FROM login_throttle ORDER BY account, way, holder"
        )
        return [(row["way"], row["holder"], row["failures"]) for row in rows]


def statements_of(town: Town) -> list[str]:
    """What the first server sends from now on, in units of work and alone."""
    sent: list[str] = []
    database: Any = town.services.database
    event.listen(database._engine.sync_engine, "before_cursor_execute", lambda *given: sent.append(given[2]))
    alone = database._lane.fetch_one

    async def fetch_one(statement: str, arguments: tuple[object, ...]) -> Any:
        sent.append(statement)
        return await alone(statement, arguments)

    database._lane.fetch_one = fetch_one
    return sent


@pytest_asyncio.fixture
async def town(own: OwnDatabase, own_sql: asyncpg.Connection, clock: MovableClock) -> AsyncIterator[Town]:
    apps = [create_app(make_settings(own.app), clock) for _ in range(2)]
    for app in apps:
        app.state.container.hasher._places = 1000  # stubs that verify do not tell that a turn is over
    yield Town(apps, own_sql, clock)
    for app in apps:
        await app.state.container.close()
