"""What tests of the view share: following, waiting, counting, and a wire to the database that can be cut."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import make_url
from uuid_utils.compat import uuid7

from app.container import Container
from app.domain.clock import Clock
from app.domain.errors import AccessTokenRejected
from app.jobs.following import following_ends
from app.repositories.lane import Lane


class SteerableClock(Clock):
    """The database's own time; what has elapsed here, and the host's time, can be moved."""

    def __init__(self) -> None:
        self.skipped = 0.0

    def elapsed(self) -> float:
        return super().elapsed() + self.skipped


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


@asynccontextmanager
async def following(services: Container) -> AsyncIterator[None]:
    """The view is loaded and kept while the body runs."""
    async with following_ends(services):
        await until(lambda: services.ended_view.now() is not None)
        yield


@asynccontextmanager
async def loaded(services: Container) -> AsyncIterator[None]:
    """The view was loaded once and hears of nothing any more, but is not stale yet (ask for 60 seconds)."""
    async with following(services):
        pass
    assert services.ended_view.now() is not None
    yield


async def accepts(services: Container, access_token: str) -> bool:
    try:
        await services.authentication.authenticate(access_token)
    except AccessTokenRejected:
        return False
    return True


async def copies(sql: asyncpg.Connection, session_id: UUID, count: int) -> list[UUID]:
    """As many more sessions of the same user: signing in takes too long for many."""
    made = [uuid7() for _ in range(count)]
    columns = await sql.fetchval(
        "SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute"
        " WHERE attrelid = 'families'::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'id'"
    )
    await sql.execute(
        f"INSERT INTO families (id, {columns}) SELECT made, {columns} FROM families, unnest($2::uuid[]) AS made"
        " WHERE id = $1",
        session_id,
        made,
    )
    return made


class Reads:
    """How many single statements the hot lanes have run that verification could run."""

    count = 0


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    reads, fetch_one = Reads(), Lane.fetch_one

    async def counted(lane: Lane, statement: str, arguments: tuple[object, ...]) -> Any:
        reads.count += "address_throttle" not in statement  # what a sign-in looks up
        return await fetch_one(lane, statement, arguments)

    monkeypatch.setattr(Lane, "fetch_one", counted)
    return reads


class Wire:
    """A way to the database that can be cut, or fall silent for connections that have named themselves."""

    def __init__(self, url: str) -> None:
        self._target = make_url(url)
        self._open: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = []
        self._pumps: set[asyncio.Task[None]] = set()
        self._silent: list[bytes] = []
        self.down = False
        self.connections = 0

    async def start(self) -> str:
        """The URL that leads through here."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        here = self._target.set(host="127.0.0.1", port=port).difference_update_query(["host"])
        return here.render_as_string(hide_password=False)

    def cut(self) -> None:
        """All connections break, and none can be made."""
        self.down = True
        for pair in self._open:
            for writer in pair:
                writer.transport.abort()
        self._open.clear()

    def silence(self, name: bytes) -> None:
        """Connections whose first message has this say nothing more and hear nothing more, without being closed."""
        self._silent.append(name)

    def speak(self) -> None:
        self._silent.clear()

    async def close(self) -> None:
        self.cut()
        self._server.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.down:
            writer.transport.abort()
            return
        self.connections += 1
        there_reader, there_writer = await self._connect()
        self._open.append((writer, there_writer))
        named: list[bytes] = []
        for source, sink, keeps in ((reader, there_writer, True), (there_reader, writer, False)):
            pump = asyncio.create_task(self._pump(source, sink, named, keeps=keeps))
            self._pumps.add(pump)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host = str(self._target.query.get("host") or self._target.host)
        port = self._target.port or 5432
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, port)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, named: list[bytes], *, keeps: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if keeps and len(named) < 4:
                    named.append(data)
                if any(name in said for name in self._silent for said in named):
                    continue
                sink.write(data)
            sink.close()


@pytest_asyncio.fixture
async def wire(database_url: str) -> AsyncIterator[Wire]:
    wire = Wire(database_url)
    yield wire
    await wire.close()
