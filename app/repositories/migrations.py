"""
The two connections of a migration: one that holds the lock, one that works.

A session's advisory lock is polled, never waited for: a statement that waits holds a snapshot, and a concurrent index
build waits for everybody's snapshot. The working connection has a lock of its own besides. So whoever comes next cannot
begin before the server has ended the last statement of a runner that was killed.
"""

import asyncio
import contextlib
import random
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import asyncpg
from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.errors import RotaError, Unavailable
from app.domain.schema import MigrationFailed, MigrationLockLost, MigrationRunning, PoolerInTheWay
from app.repositories.engine import make_runner_engine
from app.repositories.schema import SchemaRepository

T = TypeVar("T")

LOCKS: Final = 0x726F7461  # "rota": the first key of both locks
RUNNER: Final = 1
WORKER: Final = 2
POLL_SECONDS: Final = 0.2
CONNECT_SECONDS: Final = 5
ALIVE_SECONDS: Final = 1.0  # between two looks at the lock
ANSWER_SECONDS: Final = 5  # for such a look

LOCK_TIMEOUT: Final = "1s"  # whoever waits for a table's lock makes everybody behind it wait
STATEMENT_TIMEOUT: Final = "5s"
_SETTINGS: Final = {
    "lock_timeout": LOCK_TIMEOUT,
    "statement_timeout": STATEMENT_TIMEOUT,
    "client_connection_check_interval": "1s",  # a statement ends with its runner
    "tcp_keepalives_idle": "10s",
    "tcp_keepalives_interval": "5s",
    "tcp_keepalives_count": "3",
    "timezone": "UTC",
}
_NAMED: Final = {"application_name": "rota-migrate-lock"}
# Alone, outside of any transaction, these keep no reader and no writer waiting, and may take hours.
UNBOUNDED: Final = re.compile(
    r"\s*(((CREATE|DROP)\s+(UNIQUE\s+)?INDEX|REINDEX|ALTER\s+TABLE)\b.*\bCONCURRENTLY\b"
    r"|ALTER\s+TABLE\b.*\bVALIDATE\s+CONSTRAINT\b)",
    re.IGNORECASE | re.DOTALL,
)

_HOLDERS: Final = """
SELECT a.pid, a.usename, a.application_name, a.client_addr, a.backend_start
  FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
 WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
   AND l.classid = $1::bigint::oid AND l.objid = $2::bigint::oid
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND a.pid <> pg_backend_pid()
"""
_STILL_MINE: Final = """
SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid() AND objsubid = 2
                  AND classid = $1::bigint::oid AND objid = $2::bigint::oid)
"""
# Those that stand in a migration's way: they hold a lock on a table of ours, the oldest transaction first.
_IN_THE_WAY: Final = """
SELECT a.pid, a.usename, a.application_name, a.state, date_trunc('second', a.xact_start)
  FROM pg_stat_activity AS a
 WHERE a.pid <> pg_backend_pid() AND a.datname = current_database() AND EXISTS (
   SELECT FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation
    WHERE l.pid = a.pid AND l.granted AND c.relnamespace = current_schema()::regnamespace)
 ORDER BY a.xact_start LIMIT 3
"""
_TRY_AGAIN: Final = {"55P03": "its locks were held by others", "40P01": "a deadlock"}
_CANCELED: Final = "57014"
_NO_SUCH_SETTING: Final = "08P01"  # a proxy's word for startup parameters and statements that it cannot hand on


class Blocked(RotaError):
    """A statement did not get its lock. The transaction was rolled back; the next attempt may succeed."""

    code = "migration_blocked"


class RunnerLock:
    """
    The right to migrate a database, held by a connection of its own in autocommit: it dies with the process.

    Args:
        wait_seconds: How long to try before giving up.
    """

    def __init__(self, url: str, *, wait_seconds: float) -> None:
        self._url = url.replace("postgresql+asyncpg://", "postgresql://", 1)
        self._wait_seconds = wait_seconds
        self._lost = asyncio.Event()
        self._asking = asyncio.Lock()  # the watch and the work ask on the same connection

    async def __aenter__(self) -> Self:
        """
        Raises:
            PoolerInTheWay: the lock would protect nothing.
            MigrationRunning: somebody else held it all the time; says who.
            Unavailable: the database does not answer.
        """
        with translated():
            await refuse_pooler(self._url)
            self._db = await asyncpg.connect(self._url, timeout=CONNECT_SECONDS, server_settings=_NAMED)
        self._db.add_termination_listener(lambda _: self._lost.set())
        try:
            with translated():
                await self._take()
        except BaseException:
            self._db.terminate()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):  # whatever it was, the lock goes with the connection
            await self._db.close(timeout=ANSWER_SECONDS)

    async def _take(self) -> None:
        await self._db.execute(_set({name: value for name, value in _SETTINGS.items() if name.startswith("tcp")}))
        await poll_for(RUNNER, self._wait_seconds, self._db)

    async def lost(self) -> None:
        """Return when the lock is no longer certain: the connection ended, does not answer, or does not hold it."""
        with contextlib.suppress(Exception):
            while not self._lost.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._lost.wait(), ALIVE_SECONDS)
                if not self._lost.is_set() and not await self._is_held():
                    return

    async def require(self) -> None:
        """
        Raises:
            MigrationLockLost: it is not certain that we hold it at this moment.
        """
        held = False
        with contextlib.suppress(Exception):
            held = await self._is_held()
        if not held:
            raise MigrationLockLost

    async def name_those_in_the_way(self) -> str:
        """Who holds locks on our tables; the connection that works has lost its own when this is asked."""
        async with self._asking:
            found = await self._db.fetch(_IN_THE_WAY)
        said = [f"process {row[0]} ({row[2] or 'unnamed'}) of {row[1]}, {row[3]} since {row[4]}" for row in found]
        return "; ".join(said) or "they have gone by now"

    async def _is_held(self) -> bool:
        async with self._asking:
            held: bool = await self._db.fetchval(_STILL_MINE, LOCKS, RUNNER, timeout=ANSWER_SECONDS)
        return held


async def poll_for(key: int, seconds: float, db: asyncpg.Connection) -> None:
    """
    Take one of the two locks for the connection's life.

    Raises:
        MigrationRunning: not in that time; says who holds it.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while not await db.fetchval("SELECT pg_try_advisory_lock($1::int, $2::int)", LOCKS, key):
        if loop.time() >= until:
            holders = [_described(row) for row in await db.fetch(_HOLDERS, LOCKS, key)]
            who = "; ".join(holders) or "who held it has just gone"
            raise MigrationRunning(f"Another migration is running, and was after {seconds:g} s: {who}.")
        await asyncio.sleep(POLL_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - to come one by one


def _described(row: Any) -> str:
    named = f" ({row['application_name']})" if row["application_name"] else ""
    where = f" from {row['client_addr']}" if row["client_addr"] else ""
    since = f"{row['backend_start']:%Y-%m-%d %H:%M:%S %Z}" if row["backend_start"] else "a time that we may not see"
    return f"process {row['pid']}{named} of {row['usename']}{where}, connected since {since}"


async def refuse_pooler(url: str) -> None:
    """
    Look whether each of our sessions is one session of the server.

    A direct connection knows the number of its server process from the first word on; a proxy tells another. Then two
    sessions and their transactions are interleaved: if one of them moves between server processes, or meets the
    other's, transactions are handed around.

    Raises:
        PoolerInTheWay: they are.
    """
    connect = partial(asyncpg.connect, url, timeout=CONNECT_SECONDS, statement_cache_size=0, server_settings=_NAMED)
    first = await connect()
    second = None
    try:
        seen = await _process(first)
        if seen == first.get_server_pid():
            return
        second = await connect()
        for _ in range(3):
            async with asyncio.timeout(CONNECT_SECONDS), second.transaction():
                other = await second.fetchval("SELECT pg_backend_pid()")
                if other == seen or await _process(first) != seen:
                    raise PoolerInTheWay
    except TimeoutError:  # all of its few sessions are in use by our own two
        raise PoolerInTheWay from None
    except asyncpg.PostgresError as error:
        if error.sqlstate == _NO_SUCH_SETTING or "prepared statement" in str(error):
            raise PoolerInTheWay from None
        raise
    finally:
        first.terminate()
        if second is not None:
            second.terminate()


async def _process(db: asyncpg.Connection) -> int:
    async with db.transaction():  # in one, even a pooler keeps to one session
        process: int = await db.fetchval("SELECT pg_backend_pid()")
        return process


class Worker:
    """The connection that works: what it may wait for is bounded, and it has the second lock."""

    def __init__(self, url: str, lock: RunnerLock, *, wait_seconds: float) -> None:
        self._engine = make_runner_engine(url)
        self._lock = lock
        self._wait_seconds = wait_seconds

    async def __aenter__(self) -> Self:
        """
        Raises:
            MigrationRunning: the server still works for a runner that is gone.
            MigrationLockLost: the first lock is not ours any more.
        """
        event.listen(self._engine.sync_engine, "before_cursor_execute", _lift_bounds)
        event.listen(self._engine.sync_engine, "after_cursor_execute", _restore_bounds)
        try:
            with translated():
                self._db: AsyncConnection = await self._engine.connect()
                driver: Any = (await self._db.get_raw_connection()).driver_connection
                await driver.execute(_set(_SETTINGS))
                await poll_for(WORKER, self._wait_seconds, driver)
            await self._lock.require()  # only now nobody else can begin
        except BaseException:
            await self._engine.dispose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(Exception):
            if error is not None:
                await self._db.invalidate()
            await self._db.close()
        await self._engine.dispose()

    @property
    def schema(self) -> SchemaRepository:
        return SchemaRepository(self._db)

    async def run(self, work: Callable[[Connection], T]) -> T:
        """
        Do synchronous work, Alembic's, on this connection.

        Raises:
            Blocked: it did not get its locks; this worker is not to be used again.
            MigrationFailed: the database refused a statement.
        """
        with translated():
            return await self._db.run_sync(work)

    async def alone(self, statement: str) -> None:
        """One statement outside any transaction."""
        with translated():
            await self._db.rollback()
            driver: Any = (await self._db.get_raw_connection()).driver_connection
            await driver.execute("SET lock_timeout = 0")
            await driver.execute("SET statement_timeout = 0")
            await driver.execute(statement)
            await driver.execute(_set(_SETTINGS))


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[SchemaRepository]:
    """A look at the schema, as the login and, where it may, as the server; changes nothing."""
    engine = make_runner_engine(url)
    try:
        with translated():
            async with engine.connect() as db:
                yield SchemaRepository(db)
    finally:
        await engine.dispose()


def _lift_bounds(db: Connection, cursor: Any, statement: str, *_: Any) -> None:
    if db.get_execution_options().get("isolation_level") == "AUTOCOMMIT" and UNBOUNDED.match(statement):
        cursor.execute("SET lock_timeout = 0")
        cursor.execute("SET statement_timeout = 0")
        db.info["unbounded"] = True


def _restore_bounds(db: Connection, cursor: Any, _statement: str, *_: Any) -> None:
    if db.info.pop("unbounded", False):
        cursor.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
        cursor.execute(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'")


def _set(settings: dict[str, str]) -> str:
    return "; ".join(f"SET {name} = '{value}'" for name, value in settings.items())


@contextlib.contextmanager
def translated() -> Any:
    """Errors of the driver by what they mean for a migration."""
    try:
        yield
    except (DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise _translate(error) from error


def _translate(error: Exception) -> RotaError:
    cause: Any = (error.orig and error.orig.__cause__) or error if isinstance(error, DBAPIError) else error
    state = getattr(cause, "sqlstate", None)
    message = (str(cause).splitlines() or [""])[0]
    if state in _TRY_AGAIN:
        return Blocked(_TRY_AGAIN[state])
    if state == _CANCELED:
        return MigrationFailed(f"a statement took longer than {STATEMENT_TIMEOUT} ({message})")
    if state is None or state[:2] in {"08", "53", "57"}:
        return Unavailable(why=f"SQLSTATE {state}" if state else type(cause).__name__)
    return MigrationFailed(f"{message} (SQLSTATE {state})")
