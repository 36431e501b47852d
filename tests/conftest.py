"""
One server and one migrated database a worker.

The product commits by itself, on several connections; a savepoint around each test would test another product. Tests
keep apart by users of their own instead, and ask for `empty_database` where they must be alone.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any
from uuid import UUID

import asyncpg
import httpx2
import pytest
import pytest_asyncio
from fastapi import FastAPI
from hypothesis import settings as hypothesis_settings
from uuid_utils.compat import uuid7

from app.cli.schema import upgrade_schema
from app.container import Container
from app.domain.clients import ClientContext
from app.domain.clock import Clock
from app.domain.users import Role, User
from app.main import create_app
from app.observability.logs import configure_logs
from app.repositories.engine import APP, MAINTENANCE
from app.repositories.logins import make_login
from app.services.tokens import IssuedTokens
from app.settings import Settings
from tests import postgresql

# A slow machine is no finding.
hypothesis_settings.register_profile("rota", deadline=None)
hypothesis_settings.load_profile("rota")

SECRET = "test-secret-test-secret-test-secret-test"
PASSWORD = "correct horse battery staple"
AGENT = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.0 Mobile/15E148 Safari/604.1"
)


def pytest_report_header() -> str:
    return f"PostgreSQL from {postgresql.source()}"


class MovableClock(Clock):
    """Time stands still until a test moves it."""

    def __init__(self) -> None:
        self.time = datetime.now(UTC)

    def for_database(self) -> datetime | None:
        return self.time

    def on_host(self) -> datetime:
        return self.time

    def advance(self, **duration: float) -> None:
        self.time += timedelta(**duration)


def make_settings(url: str, **values: Any) -> Settings:
    return Settings(**{"database_url": url, "secrets": SECRET, "registration": "open", **values})


def client_at(address: str = "203.0.113.7", agent: str | None = AGENT) -> ClientContext:
    return ClientContext(ip=ip_address(address), user_agent=agent, request_id=uuid7())


@pytest.fixture(scope="session", autouse=True)
def _quiet_logs() -> None:
    configure_logs("json")


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    with postgresql.server() as url:
        yield url


WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")


@pytest_asyncio.fixture(scope="session")
async def template_url(server_url: str) -> str:
    """A migrated database that nobody uses, for copies; its URL is of a login that may do anything."""
    url = await postgresql.make_database(server_url, f"rota_template_{WORKER}")
    if others := os.environ.get("ROTA_TEST_SCHEMA_BY"):
        await asyncio.to_thread(postgresql.migrate_by, others, url)
    else:
        await asyncio.to_thread(upgrade_schema, url)
    await postgresql.empty_trail(url)
    return url


@pytest_asyncio.fixture(scope="session")
async def owner_url(server_url: str, template_url: str) -> str:
    """The tests' common database, by a login that may do anything."""
    return await postgresql.make_database(server_url, f"rota_test_{WORKER}", template=f"rota_template_{WORKER}")


@pytest_asyncio.fixture(scope="session")
async def database_url(owner_url: str) -> str:
    """The same by a login that may only act as the server: what the product gets."""
    return await make_login(owner_url, "rota_test", role=APP, password="rota_test")


@pytest_asyncio.fixture(scope="session")
async def sql(owner_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection for looking behind the product's back."""
    connection = await asyncpg.connect(owner_url)
    yield connection
    await connection.close()


@dataclass(frozen=True)
class OwnDatabase:
    """A migrated database of one test, by the logins that there are."""

    owner: str
    app: str
    maintenance: str


@pytest_asyncio.fixture
async def own(server_url: str, template_url: str) -> OwnDatabase:
    """For tests that must be alone: the sealed tree is one for the whole database."""
    url = await postgresql.make_database(server_url, f"rota_own_{WORKER}", template=f"rota_template_{WORKER}")
    return OwnDatabase(
        owner=url,
        app=await make_login(url, "rota_test", role=APP, password="rota_test"),
        maintenance=await make_login(url, "rota_test_maintenance", role=MAINTENANCE, password="rota_test"),
    )


@pytest_asyncio.fixture
async def own_sql(own: OwnDatabase) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(own.owner)
    yield connection
    await connection.close()


@pytest_asyncio.fixture
async def empty_database(sql: asyncpg.Connection) -> None:
    """Nobody but the test; the trail stays, since nobody can empty it."""
    await sql.execute("TRUNCATE users, password_tokens, notifications, families, refusals, login_failures, job_cursors")
    await sql.execute("TRUNCATE login_throttle, address_throttle")


@pytest_asyncio.fixture
async def _fresh_limits(sql: asyncpg.Connection) -> None:
    """What tests before this one have guessed counts for nothing: their clocks went ahead, or this one goes back."""
    await sql.execute("DELETE FROM address_throttle")


MakeServices = Callable[..., Container]


@pytest_asyncio.fixture
async def make_services(database_url: str, _fresh_limits: None) -> AsyncIterator[MakeServices]:
    """Build services with settings of one's own; each has its own engine, as another process would."""
    made: list[Container] = []

    def make(clock: Clock | None = None, url: str = database_url, **settings: Any) -> Container:
        made.append(Container.build(make_settings(url, **settings), clock))
        return made[-1]

    yield make
    for services in made:
        await services.close()


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def services(make_services: MakeServices, clock: MovableClock) -> Container:
    """Services whose time the test moves."""
    return make_services(clock)


@dataclass(frozen=True)
class Person:
    """A user with sessions, as a client sees them."""

    services: Container
    user: User
    username: str

    async def sign_in(self, **options: Any) -> IssuedTokens:
        options.setdefault("client", client_at())
        return await self.services.sign_in.with_password(self.username, PASSWORD, **options)

    async def refresh(self, token: str, key: str | None = None, address: str = "203.0.113.7") -> IssuedTokens:
        return await self.services.refresh.rotate(token, idempotency_key=key, client=client_at(address))


MakePerson = Callable[..., Awaitable[Person]]


@pytest.fixture
def make_person(services: Container) -> MakePerson:
    async def make(services: Container = services, role: Role = Role.USER) -> Person:
        username = f"person-{secrets.token_hex(8)}"
        user = await services.users.create(username, PASSWORD, role=role, actor=None, client=client_at())
        return Person(services, user, username)

    return make


@pytest_asyncio.fixture
async def person(make_person: MakePerson) -> Person:
    return await make_person()


Events = Callable[[UUID], Awaitable[list[asyncpg.Record]]]


@pytest.fixture
def events_of(sql: asyncpg.Connection) -> Events:
    """A user's trail, oldest first."""

    async def events(user_id: UUID) -> list[asyncpg.Record]:
        rows: list[asyncpg.Record] = await sql.fetch(
            "SELECT * FROM audit_events WHERE subject_id = $1 ORDER BY occurred_at, seq", user_id
        )
        return rows

    return events


@pytest_asyncio.fixture
async def app(database_url: str, clock: MovableClock, _fresh_limits: None) -> AsyncIterator[FastAPI]:
    application = create_app(make_settings(database_url), clock)
    yield application
    await application.state.container.close()


@pytest_asyncio.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app, client=("203.0.113.7", 4711))
    async with httpx2.AsyncClient(transport=transport, base_url="http://rota", headers={"User-Agent": AGENT}) as client:
        yield client
