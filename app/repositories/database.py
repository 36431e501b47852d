"""One door to the database: units of work, and single statements in autocommit for the hot paths."""

import asyncio
import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.domain.clock import Clock
from app.domain.errors import RotaError, TookTooLong, Unavailable
from app.domain.events import Action
from app.observability import metrics
from app.observability.metrics import DATABASE_ERRORS
from app.observability.statements import StatementWatch
from app.repositories.api_clients import ApiClientRepository
from app.repositories.audit import AuditRepository
from app.repositories.bulk_ends import BulkEndRepository
from app.repositories.ends import EndRepository
from app.repositories.erasures import ErasureRepository
from app.repositories.facts import FactRepository
from app.repositories.families import FamilyRepository, NoteEnded
from app.repositories.feed import FeedRepository
from app.repositories.jobs import JobRepository
from app.repositories.key_users import KeyUserRepository
from app.repositories.lane import Lane, Usage
from app.repositories.notifications import NotificationRepository
from app.repositories.openings import OpeningRepository
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
from app.repositories.statements import watch_statements
from app.repositories.stats import StatRepository
from app.repositories.stats_checks import StatCheckRepository
from app.repositories.throttles import ThrottleRepository
from app.repositories.tiles import TileRepository
from app.repositories.trail_queries import TrailQueryRepository
from app.repositories.troubles import CANCELED, kind_of, trouble
from app.repositories.user_imports import UserImportRepository
from app.repositories.user_queries import UserQueryRepository
from app.repositories.users import UserRepository

CLOSE_SECONDS: Final = 2
NOW: Final = "SELECT coalesce($1, statement_timestamp())"


class Database:
    """The pool and the clock. Built once a process."""

    def __init__(
        self, engine: AsyncEngine, clock: Clock, *, hot_connections: int, watch: StatementWatch | None = None
    ) -> None:
        self._engine = engine
        self.watch = watch
        self._lane = Lane(engine, hot_connections, watch)
        if watch is not None:
            watch_statements(engine, watch)
        self.units = Usage()
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
        return UnitOfWork(self._engine.connect(), self.clock, self._end_listeners, self.units, self.watch)

    @property
    def hot(self) -> Usage:
        """How the lane of the hot statements is used."""
        return self._lane.usage

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
    user_imports: UserImportRepository
    password_tokens: PasswordTokenRepository
    throttles: ThrottleRepository
    families: FamilyRepository
    openings: OpeningRepository
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
    facts: FactRepository
    positions: PositionRepository
    key_users: KeyUserRepository
    notifications: NotificationRepository

    def __init__(
        self,
        connection: AsyncConnection,
        clock: Clock,
        end_listeners: Sequence[NoteEnded] = (),
        usage: Usage | None = None,
        watch: StatementWatch | None = None,
    ) -> None:
        self._usage = usage or Usage()
        self._watch = watch
        self._db = connection
        self._clock = clock
        self._end_listeners = end_listeners
        self._ended: list[tuple[UUID, datetime]] = []

    async def now(self) -> datetime:
        """The database's time at this statement. Ask after a lock was won, not before the wait for it."""
        result: datetime = (await self._db.exec_driver_sql(NOW, (self._clock.for_database(),))).scalar_one()
        return result

    def note_ended(self, ended: Iterable[tuple[UUID, datetime]]) -> None:
        """Sessions that end if this commits. Those repositories that end any say so themselves."""
        self._ended += ended

    async def commit(self) -> None:
        began = time.perf_counter()
        await self._db.commit()
        if self._watch is not None:
            self._watch.note("COMMIT", time.perf_counter() - began)
        self._count(self.audit.take_added())
        ended, self._ended = self._ended, []
        if ended:
            for listener in self._end_listeners:
                listener(ended)

    def _count(self, added: Iterable[tuple[Action, str | None]]) -> None:
        """What is committed now."""
        for action, reason in added:
            metrics.EVENTS_WRITTEN.add(action)
            if action is Action.SESSION_ENDED:
                metrics.SESSIONS_ENDED.add(reason or metrics.OTHER)

    async def __aenter__(self) -> Self:
        self._usage.waiting += 1
        try:
            with operational():
                await self._db.start()
        finally:
            self._usage.waiting -= 1
        self._usage.busy += 1
        self.users = UserRepository(self._db, self._clock.for_database())
        self.user_queries = UserQueryRepository(self._db)
        self.user_imports = UserImportRepository(self._db)
        self.password_tokens = PasswordTokenRepository(self._db)
        self.throttles = ThrottleRepository(self._db)
        self.families = FamilyRepository(self._db, self._clock.for_database(), self.note_ended)
        self.ends = EndRepository(self._db, self._clock)
        self.feed = FeedRepository(self._db, self._clock.for_database())
        self.refusals = RefusalRepository(self._db)
        self.audit = AuditRepository(self._db)
        self.openings = OpeningRepository(self._db, self.audit)
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
        self.facts = FactRepository(self._db)
        self.positions = PositionRepository(self._db)
        self.key_users = KeyUserRepository(self._db)
        self.notifications = NotificationRepository(self._db)
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
        self._usage.busy -= 1
        if connection is None:
            return
        clean = False
        try:
            if error is None or isinstance(error, RotaError):
                with operational():
                    await self._db.rollback()
                clean = True
        finally:
            if not clean and not connection.closed:  # a transaction that could not begin has closed it already
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
    if (kind := kind_of(error)) is not None:
        DATABASE_ERRORS.add(kind)
    if (why := trouble(error)) is not None:
        raised = TookTooLong if why == CANCELED else Unavailable
        raise raised(why=why) from error
