"""Consumers of the feed, a server process of their own, and ends by hand on connections of the test's."""

import asyncio
import base64
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx2
import pytest

from app.container import Container
from app.domain.api_clients import ApiClient, ClientScope, NewClient
from app.domain.events import NO_CLIENT, SYSTEM
from tests.cli.test_cli import free_port
from tests.conftest import SECRET, OwnDatabase, make_settings

ROOT = Path(__file__).parents[2]
ROTA = str(Path(sys.executable).with_name("rota"))

# A user's sessions, and their ends, without a server: many at once, in transactions that the test holds open.
OPEN = """
INSERT INTO families (user_id, id, seed, generation, event_seq, client_id, scope, role, authenticated_at, amr,
                      created_at, idle_expires_at, expires_at)
SELECT $1, id, sha256(id::text::bytea), 0, 1, 'first-party', '', 'user', now(), 'pwd', now(), now() + interval '7 days',
       now() + interval '30 days'
  FROM unnest($2::uuid[]) AS id
"""
END = """
UPDATE families SET ended_at = clock_timestamp(), end_reason = 'bulk_admin', ended_xact = pg_current_xact_id()
 WHERE user_id = $1 AND id = ANY($2)
"""


@dataclass(frozen=True)
class Credentials:
    """An API client with its secret."""

    client: ApiClient
    secret: str

    @property
    def basic(self) -> tuple[str, str]:
        return self.client.client_id, self.secret

    @property
    def header(self) -> dict[str, str]:
        return {"Authorization": f"Basic {base64.b64encode(':'.join(self.basic).encode()).decode()}"}


async def make_client(services: Container, *scopes: ClientScope) -> Credentials:
    made = await services.api_clients.create(
        NewClient(f"consumer {secrets.token_hex(4)}", scopes=frozenset(scopes)), actor=SYSTEM, client=NO_CLIENT
    )
    assert made.secret is not None
    return Credentials(made.client, made.secret)


@pytest.fixture
async def consumer(services: Container) -> Credentials:
    """A client that may follow the feed."""
    return await make_client(services, ClientScope.REVOCATIONS)


@pytest.fixture
async def who(own: OwnDatabase) -> Credentials:
    """A consumer known to the server of its own database."""
    services = Container.build(make_settings(own.app))
    try:
        return await make_client(services, ClientScope.REVOCATIONS)
    finally:
        await services.close()


async def open_sessions(sql: asyncpg.Connection, count: int) -> tuple[UUID, list[UUID]]:
    """A user id and so many live sessions of it."""
    user = UUID(bytes=secrets.token_bytes(16))
    sessions = [UUID(bytes=secrets.token_bytes(16)) for _ in range(count)]
    await sql.execute(OPEN, user, sessions)
    return user, sessions


async def end_sessions(sql: asyncpg.Connection, user: UUID, sessions: list[UUID]) -> None:
    await sql.execute(END, user, sessions)


@dataclass
class Event:
    """A block of an event stream, parsed as the standard says."""

    event: str = "message"
    data: str = ""
    id: str | None = None
    retry: int | None = None
    comment: str | None = None

    @classmethod
    def parse(cls, block: str) -> "Event":
        read = cls()
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "":
                read.comment = value
            elif name == "retry":
                read.retry = int(value)
            elif name == "data":
                read.data += value
            else:
                setattr(read, name, value)
        return read


@dataclass
class Stream:
    """A connection to `/revocations/stream`, which keeps what a consumer would."""

    answer: httpx2.Response
    sessions: list[str] = field(default_factory=list)
    last_id: str | None = None
    comments: list[str] = field(default_factory=list)
    retries: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.events = self._events()

    async def _events(self) -> AsyncGenerator[Event]:
        rest = ""
        async for text in self.answer.aiter_text():
            rest += text
            *blocks, rest = rest.split("\n\n")
            for block in blocks:
                yield self._note(Event.parse(block))

    def _note(self, event: Event) -> Event:
        if event.id is not None:
            self.last_id = event.id
        if event.comment is not None:
            self.comments.append(event.comment)
        if event.retry is not None:
            self.retries.append(event.retry)
        if event.event == "session-revoked":
            self.sessions.append(json.loads(event.data)["session"])
        return event

    async def until(self, *, sessions: set[str] | None = None, current: bool = False) -> None:
        """Read on until all these have come, or a comment that everything has."""
        async with asyncio.timeout(60):
            async for event in self.events:
                if sessions is not None and sessions <= set(self.sessions):
                    return
                if current and (event.comment or "").startswith("current"):
                    return
        raise AssertionError("the stream ended before that")

    async def until_the_end(self) -> None:
        async with asyncio.timeout(60):
            async for _ in self.events:
                pass


@asynccontextmanager
async def connected(
    http: httpx2.AsyncClient, who: Credentials, last_id: str | None = None, **query: Any
) -> AsyncIterator[Stream]:
    """A stream that is open, after its head has come."""
    headers = {**who.header, **({"Last-Event-ID": last_id} if last_id else {})}
    async with http.stream("GET", "/revocations/stream", headers=headers, params=query) as answer:
        if answer.status_code == 200:
            assert answer.headers["content-type"].startswith("text/event-stream")
        stream = Stream(answer, last_id=last_id)
        yield stream
        await stream.events.aclose()


@dataclass
class Served:
    """A `rota serve`."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


Serve = Callable[..., Awaitable[Served]]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Start server processes; they are stopped at the end of the test."""
    started: list[Served] = []

    async def start(database_url: str, *, port: int | None = None, **settings: str) -> Served:
        port = port or free_port()
        log = tmp_path / f"log-{len(started)}"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ROTA_")}
        environment = {**clean, "ROTA_DATABASE_URL": database_url, "ROTA_SECRETS": SECRET, **settings}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [ROTA, "serve", "--port", str(port)], env=environment, stdout=output, stderr=output, cwd=ROOT
            )
        served = Served(process, f"http://127.0.0.1:{port}", log)
        started.append(served)
        async with httpx2.AsyncClient(base_url=served.url) as http:
            for _ in range(300):
                assert process.poll() is None, log.read_text()
                try:
                    if (await http.get("/readyz")).status_code == 200:
                        return served
                except httpx2.TransportError:
                    pass
                await asyncio.sleep(0.1)
        raise AssertionError(log.read_text())

    yield start
    for served in started:
        if served.process.poll() is None:
            served.process.kill()
            served.process.wait(20)
