"""The doctor's way to the database: as the login itself, without asking for anything that a proxy might refuse."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.repositories.database import operational
from app.repositories.diagnostics import DiagnosticRepository
from app.repositories.engine import make_engine, make_runner_engine
from app.repositories.migrations import refuse_pooler, translated
from app.repositories.partitions import PartitionRepository
from app.repositories.schema import SchemaRepository

CHANNEL: Final = "rota_doctor"
POSTGRESQL_PORT: Final = 5432


class Look:
    """One connection's repositories, in a transaction that is rolled back."""

    def __init__(self, db: AsyncConnection) -> None:
        self.diagnostics = DiagnosticRepository(db)
        self.partitions = PartitionRepository(db)
        self.schema = SchemaRepository(db)


class Inspection:
    """Connections to look around with; each question has one of its own, so that none inherits another's trouble."""

    def __init__(self, url: str, *, seconds: float) -> None:
        self._url = url
        self._milliseconds = int(1000 * seconds)

    @asynccontextmanager
    async def look(self) -> AsyncIterator[Look]:
        """
        Raises:
            Unavailable: the database does not answer.
        """
        async with self._connected(make_runner_engine(self._url)) as db:
            await db.execute(text(f"SET LOCAL statement_timeout = {self._milliseconds}"))
            yield Look(db)

    @asynccontextmanager
    async def as_server(self) -> AsyncIterator[Look]:
        """As a server's connection is: acting as its role, and with the bounds that it asked for, if it got them."""
        async with self._connected(make_engine(self._url, pool_size=1, application_name="rota-doctor")) as db:
            yield Look(db)

    async def hears(self, seconds: float) -> bool:
        """Whether a notification arrives within that time."""
        heard = asyncio.Event()
        async with self._connected(make_runner_engine(self._url)) as listener:
            await listener.execution_options(isolation_level="AUTOCOMMIT")
            driver: Any = (await listener.get_raw_connection()).driver_connection
            await driver.add_listener(CHANNEL, lambda *_: heard.set())
            # Behind a transaction pooler this is now another session's, which may be handed to the next one.
            async with self._connected(make_runner_engine(self._url)) as other:
                await other.execution_options(isolation_level="AUTOCOMMIT")
                await other.execute(text("BEGIN"))
                await other.execute(text(f"NOTIFY {CHANNEL}"))
                await other.execute(text("COMMIT"))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await heard.wait()
            with contextlib.suppress(Exception):
                driver.terminate()
        return heard.is_set()

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port; `None`: it is a socket of this host."""
        parts = urlsplit(self._url)
        query = parse_qs(parts.query)
        host = parts.hostname or (query.get("host") or [""])[0]
        if not host or host.startswith("/"):
            return None
        return host, parts.port or int((query.get("port") or [str(POSTGRESQL_PORT)])[0])

    @asynccontextmanager
    async def _connected(self, engine: Any) -> AsyncIterator[AsyncConnection]:
        try:
            with operational():
                async with engine.connect() as db:
                    try:
                        yield db
                    finally:
                        if (connection := db.sync_connection) is not None:  # never kept: what it did is unknown here
                            connection.invalidate()
                            connection.close()
        finally:
            await engine.dispose()


async def refuse_transaction_pooler(url: str) -> None:
    """
    Raises:
        PoolerInTheWay: the URL leads to a transaction pooler.
        Unavailable: the database does not answer.
    """
    with translated():
        await refuse_pooler(url.replace("postgresql+asyncpg://", "postgresql://", 1))
