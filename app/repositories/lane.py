"""Connections kept at hand for the hot statements."""

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import PoolProxiedConnection

from app.observability.statements import StatementWatch
from app.repositories.engine import POOL_WAIT_SECONDS
from app.repositories.pooled import as_pooled

LOCK_MILLISECONDS: Final = 300


@dataclass(slots=True)
class Usage:
    """How many work with a connection, and how many wait for one."""

    busy: int = 0
    waiting: int = 0


class Lane:
    """
    A few of the engine's connections, for single statements in autocommit.

    SQLAlchemy's pool, like asyncpg's own, takes about as long to lend a connection as asyncpg takes for the statement
    (100 µs each, measured), and lets a newcomer pass those who wait. Here lending is a deque, and waiting is in turn.
    The connections still come from the engine, with its deadlines and settings.

    Through a transaction pooler a statement is a transaction of four round trips (`PooledConnection.run_alone`): in
    one, it would run as whoever used the server's session before.
    """

    def __init__(self, engine: AsyncEngine, size: int, watch: StatementWatch | None = None) -> None:
        self._engine = engine
        self._watch = watch
        self.usage = Usage()
        self._places: Final = asyncio.Semaphore(size)
        self._idle: deque[PoolProxiedConnection] = deque()

    async def fetch_one(self, statement: str, arguments: tuple[object, ...]) -> Any:
        """
        One statement, one round trip, in autocommit: the first row or `None`.

        A connection that did not come to the end of its statement is closed, not kept: what it was doing is unknown.
        """
        await self._take_place()
        usage = self.usage
        usage.busy += 1
        try:
            pooled = self._take() or await self._connect()
            began = time.perf_counter()
            try:
                row = await _fetch(_driver(pooled), statement, arguments)
                if self._watch is not None:
                    self._watch.note(statement, time.perf_counter() - began)
            except BaseException as error:
                if self._watch is not None:
                    self._watch.note(statement, time.perf_counter() - began, type(error).__name__)
                # An answer of the server leaves the connection as good as it was.
                if not isinstance(error, asyncpg.PostgresError):
                    pooled.invalidate()
                pooled.close()
                raise
            self._idle.append(pooled)
            return row
        finally:
            usage.busy -= 1
            self._places.release()

    async def _take_place(self) -> None:
        if not self._places.locked():  # then this does not wait, and needs no timer
            await self._places.acquire()
            return
        self.usage.waiting += 1
        try:
            async with asyncio.timeout(POOL_WAIT_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            raise PoolTimeoutError from None
        finally:
            self.usage.waiting -= 1

    async def _connect(self) -> PoolProxiedConnection:
        pooled = await self._engine.raw_connection()
        driver = _driver(pooled)
        try:
            # A row that somebody sits on must not keep a place of which all others have a share.
            if (pooling := as_pooled(driver)) is not None:
                pooling.bound("lock_timeout", str(LOCK_MILLISECONDS))
            else:
                await driver.execute(f"SET lock_timeout = {LOCK_MILLISECONDS}")
        except BaseException:
            pooled.invalidate()
            pooled.close()
            raise
        return pooled

    def _take(self) -> PoolProxiedConnection | None:
        """The connection used last, which the server's caches know best; those that died are left out."""
        while self._idle:
            pooled = self._idle.pop()
            if not _driver(pooled).is_closed():
                return pooled
            pooled.invalidate()
            pooled.close()
        return None

    def close(self) -> None:
        """Give the connections back to the engine, which closes them."""
        while self._idle:
            self._idle.pop().close()


async def _fetch(driver: Any, statement: str, arguments: tuple[object, ...]) -> Any:
    if (pooling := as_pooled(driver)) is not None:
        return await pooling.run_alone(statement, arguments)
    return await driver.fetchrow(statement, *arguments)


def _driver(pooled: PoolProxiedConnection) -> Any:
    return pooled.driver_connection
