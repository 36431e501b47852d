"""The connection that hears when sessions end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.clock import Clock
from app.repositories.database import CLOSE_SECONDS, operational
from app.repositories.ends import CHANNEL, EndRepository


class Doorbell:
    """
    A connection of its own, outside the pool: it is held for good, and what it hears must not wait for anybody's turn.

    The ends are read on it too. So whoever reads often needs no other sign of life: a connection that is dead without
    a word fails to answer the next read.
    """

    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    @asynccontextmanager
    async def listening(self, ring: Callable[[], None]) -> AsyncIterator[EndRepository]:
        """
        Listen while the body runs; statements run in autocommit.

        Args:
            ring: Called at each notification, and when the connection is lost.
        Raises:
            Unavailable: it cannot be had, or was lost.
        """
        with operational():
            async with self._engine.connect() as db:
                try:
                    await db.execution_options(isolation_level="AUTOCOMMIT")
                    driver: Any = (await db.get_raw_connection()).driver_connection
                    driver.add_termination_listener(lambda *_: ring())
                    await driver.add_listener(CHANNEL, lambda *_: ring())
                    yield EndRepository(db, self._clock)
                finally:
                    # Never kept for later: it listens, and what it was doing is unknown if it was interrupted.
                    if (connection := db.sync_connection) is not None:
                        connection.invalidate()
                        connection.close()

    async def close(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._engine.dispose()
