"""A database with made-up sessions of every kind, and what an auditor sees of them."""

import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Any
from uuid import UUID

import asyncpg
import httpx2
import pytest_asyncio
from fastapi import FastAPI

from app.container import Container
from app.domain.families import EndReason
from app.domain.users import Role
from app.main import create_app
from tests.conftest import PASSWORD, MovableClock, OwnDatabase, Person, client_at, make_settings

Row = dict[str, Any]
Holds = Callable[[Row], bool]

BROWSERS = ("Chrome 130", "Chrome 131", "Chrome Mobile 131", "Safari 17", "Firefox", None)
SYSTEMS = ("Windows 10", "Windows XP", "Mac OS X 10", "iOS 17", None)


@dataclass
class Desk:
    """The API over a database of its own, as an auditor; `rows` are its made-up sessions."""

    app: FastAPI
    http: httpx2.AsyncClient
    sql: asyncpg.Connection
    clock: MovableClock
    auditor: Person
    rows: list[Row]
    signed_in_at: datetime | None = None

    @property
    def services(self) -> Container:
        found: Container = self.app.state.container
        return found

    async def person(self, name: str, role: Role = Role.USER) -> Person:
        user = await self.services.users.create(name, PASSWORD, role=role, actor=None, client=client_at())
        return Person(self.services, user, name)

    async def sign_in(self) -> None:
        """Access tokens live for a quarter of an hour."""
        if self.signed_in_at is None or self.clock.time - self.signed_in_at > timedelta(minutes=10):
            issued = await self.auditor.sign_in(client=client_at("192.0.2.55", "Lynx"))
            self.http.headers["Authorization"] = f"Bearer {issued.access_token}"
            self.signed_in_at = self.clock.time

    async def ask(self, path: str = "", **parameters: Any) -> dict[str, Any]:
        await self.sign_in()
        answer = await self.http.get(f"/admin/sessions{path}", params=parameters)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def refused(self, status: int, path: str = "", **parameters: Any) -> dict[str, Any]:
        answer = await self.http.get(f"/admin/sessions{path}", params=parameters)
        assert answer.status_code == status, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def all_pages(self, **parameters: Any) -> list[str]:
        """The ids of all pages, one after the other."""
        ids: list[str] = []
        while True:
            page = await self.ask(**parameters)
            ids += [item["id"] for item in page["items"]]
            if page["next"] is None:
                return ids
            parameters["after"] = page["next"]

    async def make_rows(self, count: int, seed: int = 1) -> None:
        """Sessions of a few people in the last sixty days, a fifth of them live."""
        people = [await self.person(name) for name in ("ada", "ada_b", "adaxb", "ben%", "cleo")]
        dice, now = random.Random(seed), self.clock.time
        made = [_row(dice, people[dice.randrange(5)].user.id, now, number) for number in range(count)]
        names = {person.user.id: person.username for person in people}
        await self.sql.executemany(_INSERT, [tuple(row[name] for name in _COLUMNS) for row in made])
        self.rows += [{**row, "username": names[row["user_id"]]} for row in made]

    def expected(self, holds: Holds, *, newest_first: bool = True) -> list[str]:
        """What a filter must find, in order of creation."""
        return [
            str(row["id"]) for row in sorted(self.rows, key=lambda row: row["id"], reverse=newest_first) if holds(row)
        ]

    def state(self, row: Row) -> str:
        if row["ended_at"] is not None:
            return "ended"
        return "active" if self.clock.time < min(row["idle_expires_at"], row["expires_at"]) else "lapsed"


_INSERTED = {
    "user_id": "uuid",
    "id": "uuid",
    "client_id": "text",
    "role": "text",
    "created_at": "timestamptz",
    "rotated_at": "timestamptz",
    "idle_expires_at": "timestamptz",
    "expires_at": "timestamptz",
    "ended_at": "timestamptz",
    "end_reason": "text",
    "ended_by": "uuid",
    "created_ip": "inet",
    "last_ip": "inet",
    "device": "text",
    "browser": "text",
    "os": "text",
}
_COLUMNS = list(_INSERTED)
_VALUES = ", ".join(f"${number}::{kind}" for number, kind in enumerate(_INSERTED.values(), start=1))
_INSERT = f"""
INSERT INTO families ({", ".join(_COLUMNS)}, seed, generation, event_seq, scope, authenticated_at, amr, ended_xact)
VALUES ({_VALUES}, sha256('x'), 1, 2, '', $5, 'pwd', CASE WHEN $9 IS NOT NULL THEN '3'::xid8 END)
"""


def made_id(at: datetime, number: int) -> UUID:
    """As uuid7() makes them: milliseconds first."""
    milliseconds = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    return UUID(f"{milliseconds:012x}70008{number:015x}")


def _row(dice: random.Random, user_id: UUID, now: datetime, number: int) -> Row:
    created_at = now - timedelta(days=60 * dice.random() ** 2, hours=2)
    used_at = min(now, created_at + timedelta(days=9 * dice.random()))
    ended = dice.random() < 0.6
    reason = dice.choice([EndReason.LOGOUT, EndReason.REUSE, EndReason.ADMIN, EndReason.IDLE_TIMEOUT])
    ip = dice.choice(["203.0.113.7", "203.0.113.200", "198.51.100.9", "2001:db8::1", None])
    return {
        "user_id": user_id,
        "id": made_id(created_at, number),
        "client_id": dice.choice(["first-party", "first-party", "mobile", "cli"]),
        "role": dice.choice(["user", "user", "user", "auditor", "admin"]),
        "created_at": created_at,
        "rotated_at": dice.choice([used_at, None]),
        "idle_expires_at": used_at + timedelta(days=7),
        "expires_at": created_at + timedelta(days=30),
        "ended_at": used_at if ended else None,
        "end_reason": reason.value if ended else None,
        "ended_by": user_id if ended and reason is EndReason.LOGOUT else None,
        "created_ip": ip and ip_address(ip),
        "last_ip": ip and ip_address(ip),
        "device": dice.choice(["iPhone", "Mac", None]),
        "browser": dice.choice(BROWSERS),
        "os": dice.choice(SYSTEMS),
    }


def within(row: Row, network: str) -> bool:
    ip = row["created_ip"]
    return ip is not None and ip.version == ip_network(network).version and ip in ip_network(network)


def last_used(row: Row) -> datetime:
    at: datetime = row["rotated_at"] or row["created_at"]
    return at


@pytest_asyncio.fixture
async def desk(own: OwnDatabase, own_sql: asyncpg.Connection, clock: MovableClock) -> AsyncIterator[Desk]:
    app = create_app(make_settings(own.app), clock)
    services: Container = app.state.container
    user = await services.users.create("auditor", PASSWORD, role=Role.AUDITOR, actor=None, client=client_at())
    auditor = Person(services, user, "auditor")
    transport = httpx2.ASGITransport(app, client=("192.0.2.55", 1))
    async with httpx2.AsyncClient(transport=transport, base_url="http://rota") as http:
        made = Desk(app, http, own_sql, clock, auditor, [])
        await made.sign_in()
        yield made
    await services.close()
