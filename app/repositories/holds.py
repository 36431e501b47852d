"""Keeping others from a piece of work for longer than a transaction may last."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.repositories.database import operational
from app.repositories.engine import make_engine

ATTEMPTS: Final = 20
PAUSE_SECONDS: Final = 0.1  # until a server has noticed that a holder was killed


class Holds:
    """
    Advisory locks of a session of their own, which die with it, whatever becomes of the holder.

    The connection leads to the database itself: through a transaction pooler a lock would stay with a session that
    others use.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    @asynccontextmanager
    async def hold(self, what: str) -> AsyncIterator[bool]:
        """Hold it while the body runs; false: somebody else does, and went on doing so for two seconds."""
        engine = make_engine(self._url, pool_size=1, application_name="rota-hold")
        db = engine.connect()
        try:
            with operational():
                held = await _lock(db, what)
            yield held  # what goes wrong in the body is no trouble of the database's
        finally:
            if (connection := db.sync_connection) is not None:  # closed: so the lock is let go
                connection.invalidate()
                connection.close()
            await engine.dispose()


async def _lock(db: AsyncConnection, what: str) -> bool:
    await db.start()
    await db.execution_options(isolation_level="AUTOCOMMIT")
    lock = select(func.pg_try_advisory_lock(func.hashtextextended(f"rota hold {what}", 0)))
    for attempt in range(ATTEMPTS):
        if (await db.execute(lock)).scalar_one():
            return True
        if attempt + 1 < ATTEMPTS:
            await asyncio.sleep(PAUSE_SECONDS)
    return False
