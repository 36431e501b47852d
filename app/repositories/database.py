"""One door to the database: units of work, and single statements in autocommit for the hot paths."""

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID

import asyncpg
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.domain.clock import Clock
from app.domain.errors import RotaError, TookTooLong, Unavailable
from app.repositories.api_clients import ApiClientRepository
from app.repositories.audit import AuditRepository
from app.repositories.bulk_ends import BulkEndRepository
from app.repositories.ends import EndRepository
from app.repositories.erasures import ErasureRepository
from app.repositories.families import FamilyRepository, NoteEnded
from app.repositories.feed import FeedRepository
from app.repositories.jobs import JobRepository
from app.repositories.lane import Lane
from app.repositories.partitions import Partition, PartitionRepository
from app.repositories.password_tokens import PasswordTokenRepository
from app.repositories.positions import PositionRepository
from app.repositories.reconciliations import ReconciliationRepository
from app.repositories.refusals import RefusalRepository
from app.repositories.revocations import RevocationRepository
from app.repositories.schema import SchemaRepository
from app.repositories.seals import SealRepository
from app.repositories.session_events import SessionEventRepository
from app.repositories.session_lists import SessionListRepository
from app.repositories.stats import StatRepository
from app.repositories.stats_checks import StatCheckRepository
from app.repositories.tiles import TileRepository
from app.repositories.trail_queries import TrailQueryRepository
from app.repositories.user_queries import UserQueryRepository
from app.repositories.users import UserRepository

CLOSE_SECONDS: Final = 3

# Trouble that passes, by SQLSTATE or its class: nothing was decided, and the same request may succeed a moment later.
_PASSING_CLASSES: Final = (
    "08",
    "53",
    "57",
)  # connection, resources, operator intervention (cancel, shutdown)
_PASSING_STATES: Final = frozenset(
    {
        "25006",  # read-only: a standby, or a primary being demoted
        "25P03",  # idle in transaction too long
        "40001",  # serialization
        "40P01",  # deadlock
        "55P03",  # lock timeout
    }
)
_CANCELED: Final = "SQLSTATE 57014"  # by a statement's deadline
_NO_PARTITION: Final = "no partition of relation"  # the trail cannot be written, so the change must not happen


class Database:
    """The pool and the clock. Built once a process."""

    def __init__(self, engine: AsyncEngine, clock: Clock, *, hot_connections: int) -> None:
        self._engine = engine
        self._lane = Lane(engine, hot_connections)
        self._end_listeners: list[NoteEnded] = []
        self.clock = clock

    def on_ended(self, listener: NoteEnded) -> None:
        """
        Have the ends of each unit of work told as soon as they are committed, before anybody is answered.

        Whether they were is unknown when the answer to a commit was lost; then nothing is told, and nobody answered.
        """
        self._end_listeners.append(listener)

    def begin(self) -> "UnitOfWork":
        """
        A unit of work: `async with database.begin() as db: ...; await db.commit()`.

        Leaving without a commit rolls back. Operational errors leave as `Unavailable`.
        """
        return UnitOfWork(self._engine.connect(), self.clock, self._end_listeners)

    async def fetch_one(self, statement: str, *arguments: object) -> Any:
        """
        One statement, one round trip, autocommit: the first row or `None`. Only for the hot paths, see `Lane`.

        Raises:
            Unavailable: operational trouble; whether the statement took effect is unknown if the answer was lost.
        """
        with operational():
            return await self._lane.fetch_one(statement, arguments)

    async def detach(self, partition: Partition) -> None:
        """Take a partition off the trail, which no transaction may do. As the owner."""
        with operational():
            async with self._engine.connect() as db:
                await db.execution_options(isolation_level="AUTOCOMMIT")
                await PartitionRepository(db).detach(partition)
                await PartitionRepository(db).protect(partition.name)  # its row triggers went with the parent

    async def close(self) -> None:
        """Take leave of the server; of one that no longer answers, without waiting for its good-bye."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                self._lane.close()
                await self._engine.dispose()


class UnitOfWork:
    """One transaction, READ COMMITTED, with the repositories that work in it. Lock order: user, then family."""

    users: UserRepository
    user_queries: UserQueryRepository
    password_tokens: PasswordTokenRepository
    families: FamilyRepository
    ends: EndRepository
    feed: FeedRepository
    refusals: RefusalRepository
    audit: AuditRepository
    jobs: JobRepository
    seals: SealRepository
    tiles: TileRepository
    trail: TrailQueryRepository
    partitions: PartitionRepository
    erasures: ErasureRepository
    reconciliations: ReconciliationRepository
    session_lists: SessionListRepository
    session_events: SessionEventRepository
    revocations: RevocationRepository
    bulk_ends: BulkEndRepository
    stats: StatRepository
    stats_checks: StatCheckRepository
    api_clients: ApiClientRepository
    schema: SchemaRepository
    positions: PositionRepository

    def __init__(self, connection: AsyncConnection, clock: Clock, end_listeners: Sequence[NoteEnded] = ()) -> None:
        self._db = connection
        self._clock = clock
        self._end_listeners = end_listeners
        self._ended: list[tuple[UUID, datetime]] = []

    async def now(self) -> datetime:
        """The database's time at this statement. Ask after a lock was won, not before the wait for it."""
        moment = func.coalesce(self._clock.for_database(), func.statement_timestamp())
        result: datetime = (await self._db.execute(select(moment))).scalar_one()
        return result

    def note_ended(self, ended: Iterable[tuple[UUID, datetime]]) -> None:
        """Sessions that end if this commits. Those repositories that end any say so themselves."""
        self._ended += ended

    async def commit(self) -> None:
        await self._db.commit()
        ended, self._ended = self._ended, []
        if ended:
            for listener in self._end_listeners:
                listener(ended)

    async def __aenter__(self) -> Self:
        with operational():
            await self._db.start()
        self.users = UserRepository(self._db)
        self.user_queries = UserQueryRepository(self._db)
        self.password_tokens = PasswordTokenRepository(self._db)
        self.families = FamilyRepository(self._db, self._clock.for_database(), self.note_ended)
        self.ends = EndRepository(self._db, self._clock)
        self.feed = FeedRepository(self._db, self._clock.for_database())
        self.refusals = RefusalRepository(self._db)
        self.audit = AuditRepository(self._db)
        self.jobs = JobRepository(self._db)
        self.seals = SealRepository(self._db)
        self.tiles = TileRepository(self._db)
        self.trail = TrailQueryRepository(self._db)
        self.partitions = PartitionRepository(self._db)
        self.erasures = ErasureRepository(self._db)
        self.reconciliations = ReconciliationRepository(self._db)
        self.revocations = RevocationRepository(self._db, self._clock.for_database())
        self.session_lists = SessionListRepository(self._db)
        self.session_events = SessionEventRepository(self._db)
        self.bulk_ends = BulkEndRepository(self._db, self._clock.for_database(), self.note_ended)
        self.stats = StatRepository(self._db)
        self.stats_checks = StatCheckRepository(self._db)
        self.api_clients = ApiClientRepository(self._db)
        self.schema = SchemaRepository(self._db)
        self.positions = PositionRepository(self._db)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """
        Roll back what was not committed, and return the connection only if that is certain.

        A task cancelled amid a statement may leave a transaction that the pool does not see (SQLAlchemy issue 13381);
        such a connection is closed without another word to the server.
        """
        connection = self._db.sync_connection
        if connection is None:
            return
        clean = False
        try:
            if error is None or isinstance(error, RotaError):
                with operational():
                    await self._db.rollback()
                clean = True
        finally:
            if not clean:
                connection.invalidate()
            connection.close()  # no transaction is left, so this says nothing to the server and needs no await
        if isinstance(error, Exception) and not isinstance(error, RotaError):
            _raise_if_operational(error)


@contextmanager
def operational() -> Iterator[None]:
    """Turn trouble that passes into `Unavailable`."""
    try:
        yield
    except RotaError:
        raise
    except Exception as error:
        _raise_if_operational(error)
        raise


def _raise_if_operational(error: Exception) -> None:
    if (why := _trouble(error)) is not None:
        kind = TookTooLong if why == _CANCELED else Unavailable
        raise kind(why=why) from error


def _trouble(error: Exception) -> str | None:
    """A word for the log if the error is trouble that passes, else `None`."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    state = getattr(cause, "sqlstate", None)
    if state is not None:
        passing = state[:2] in _PASSING_CLASSES or state in _PASSING_STATES or _NO_PARTITION in str(cause)
        return f"SQLSTATE {state}" if passing else None
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return "connection lost"
    lost = (OSError, TimeoutError, PoolTimeoutError, DisconnectionError, asyncpg.InterfaceError)
    defect = isinstance(error, ValueError)  # asyncpg's word for a value it cannot send
    return type(error).__name__ if isinstance(error, lost) and not defect else None
