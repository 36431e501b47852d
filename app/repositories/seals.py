"""
The sealed tree's tables, and reading the trail in the order in which it is sealed.

The order is `(epoch, xact_id, seq)`. What is read has committed, and nothing that commits later can come before it:
only rows below the oldest transaction still running are taken, and that horizon is seen by the same snapshot as the
rows. A cursor on `seq` alone would lose late commits, one on `xact_id` alone a lower sequence of a higher transaction,
and a horizon from another statement whatever committed between the two.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.entries import SealedFields
from app.domain.event_filters import time_of
from app.domain.merkle import Tree
from app.models import AuditLogRow


@dataclass(frozen=True, slots=True)
class Place:
    """An event's place in the order of sealing. `xact` is an xid8 as text, so that no driver need know the type."""

    epoch: int
    xact: str
    seq: int


START: Final = Place(0, "0", 0)
_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(2200, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Head:
    """An incarnation of the log, and how far it has come."""

    epoch: int
    origin: str
    opening: str | None
    size: int
    root: bytes
    edge: Sequence[bytes]
    cursor: Place
    minimum_index: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """Events in the order of sealing, without gaps."""

    events: list[SealedFields]
    end: Place  # of the last of them


@dataclass(frozen=True, slots=True)
class Batch:
    """What was sealed in one step: after `start`, up to and with `end`."""

    epoch: int
    first_index: int
    count: int
    start: Place
    end: Place
    root: bytes
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Holder:
    """A transaction that keeps the horizon back."""

    kind: str
    pid: int | None
    database: str | None
    username: str | None
    application: str | None
    state: str | None
    since: datetime | None


_FIELDS: Final = (
    "e.id, e.occurred_at, e.action, e.version, e.outcome, e.reason, e.actor_kind, e.actor_id, e.subject_id,"
    " e.family_id, e.family_seq, e.generation, e.request_id, e.detail, host(e.ip), e.user_agent, e.commitment,"
    " e.epoch, e.xact_id::text, e.seq"
)
_COUNT_OF_FIELDS: Final = 17

# The horizon is a sub-select in the scan's own statement: as a join it would sort the whole backlog.
COMMITTED: Final = f"""
SELECT {_FIELDS} FROM audit_events AS e
 WHERE e.epoch = $1 AND (e.xact_id, e.seq) > ($2::text::xid8, $3)
   AND e.xact_id < (SELECT pg_snapshot_xmin(pg_current_snapshot()))
 ORDER BY e.epoch, e.xact_id, e.seq LIMIT $4
"""  # noqa: S608 - constants
# Of former epochs everything has committed, and their transaction ids compare with no horizon of today.
FORMER: Final = f"""
SELECT {_FIELDS} FROM audit_events AS e
 WHERE (e.epoch, e.xact_id, e.seq) > ($1, $2::text::xid8, $3) AND e.epoch < $4
 ORDER BY e.epoch, e.xact_id, e.seq LIMIT $5
"""  # noqa: S608 - constants
BETWEEN: Final = f"""
SELECT {_FIELDS} FROM audit_events AS e
 WHERE (e.epoch, e.xact_id, e.seq) > ($1, $2::text::xid8, $3)
   AND (e.epoch, e.xact_id, e.seq) <= ($4, $5::text::xid8, $6)
 ORDER BY e.epoch, e.xact_id, e.seq LIMIT $7
"""  # noqa: S608 - constants
BY_ID: Final = f"""
SELECT {_FIELDS} FROM audit_events AS e WHERE e.occurred_at BETWEEN $1 AND $2 AND e.id = $3 LIMIT 1
"""  # noqa: S608 - constants
NEWEST: Final = f"""
SELECT {_FIELDS} FROM audit_events AS e
 WHERE e.xact_id < (SELECT pg_snapshot_xmin(pg_current_snapshot())) OR e.epoch < (SELECT max(epoch) FROM audit_logs)
 ORDER BY e.epoch DESC, e.xact_id DESC, e.seq DESC LIMIT $1
"""  # noqa: S608 - constants
COUNT: Final = """
SELECT count(*) FROM audit_events AS e
 WHERE (e.epoch, e.xact_id, e.seq) > ($1, $2::text::xid8, $3)
   AND (e.epoch, e.xact_id, e.seq) <= ($4, $5::text::xid8, $6)
"""
OLDEST_UNSEALED: Final = """
SELECT min(occurred_at) FROM (
  SELECT occurred_at FROM audit_events WHERE epoch = $1 AND (xact_id, seq) > ($2::text::xid8, $3)
   ORDER BY epoch, xact_id, seq LIMIT 100) AS next
"""
ADD_SALTS: Final = """
INSERT INTO audit_salts (subject_id, salt) SELECT * FROM unnest($1::uuid[], $2::bytea[]) ON CONFLICT DO NOTHING
"""
ADD_BATCH: Final = """
INSERT INTO audit_batches (epoch, first_index, count, from_epoch, from_xact, from_seq, to_epoch, to_xact, to_seq, root,
                           first_at, last_at, sealed_at)
VALUES ($1, $2, $3, $4, $5::text::xid8, $6, $7, $8::text::xid8, $9, $10, $11, $12, clock_timestamp())
"""
MOVE_HEAD: Final = """
UPDATE audit_logs
   SET tree_size = $2, root = $3, edge = $4, cursor_epoch = $5, cursor_xact = $6::text::xid8, cursor_seq = $7
 WHERE epoch = $1 AND tree_size = $8
"""
_BATCH: Final = (
    "epoch, first_index, count, from_epoch, from_xact::text, from_seq, to_epoch, to_xact::text, to_seq, root,"
    " first_at, last_at"
)
BATCHES: Final = f"""
SELECT {_BATCH} FROM audit_batches WHERE epoch = $1 AND first_index >= $2 ORDER BY first_index LIMIT $3
"""  # noqa: S608 - constants
BATCH_AT: Final = f"""
SELECT {_BATCH} FROM audit_batches WHERE epoch = $1 AND first_index <= $2 ORDER BY first_index DESC LIMIT 1
"""  # noqa: S608 - constants
BATCH_OF: Final = f"""
SELECT {_BATCH} FROM audit_batches
 WHERE epoch = $1 AND (to_epoch, to_xact, to_seq) >= ($2, $3::text::xid8, $4)
 ORDER BY to_epoch, to_xact, to_seq LIMIT 1
"""  # noqa: S608 - constants
# Batches follow one another in time but for some minutes: the outermost of the nearest few are the ends.
RANGE: Final = """
SELECT (SELECT min(first_index) FROM (
          SELECT first_index FROM audit_batches
           WHERE epoch = $1 AND last_at >= coalesce($2::timestamptz, '-infinity') ORDER BY last_at LIMIT 2000
        ) AS early),
       (SELECT max(first_index + count) FROM (
          SELECT first_index, count FROM audit_batches
           WHERE epoch = $1 AND first_at <= coalesce($3::timestamptz, 'infinity') ORDER BY first_at DESC LIMIT 2000
        ) AS late)
"""
ESTIMATE: Final = """
SELECT coalesce(sum(count), 0)::bigint FROM audit_batches
 WHERE epoch = $1 AND last_at >= coalesce($2::timestamptz, '-infinity')
   AND first_at <= coalesce($3::timestamptz, 'infinity')
"""

_HEAD = (
    AuditLogRow.epoch,
    AuditLogRow.origin,
    AuditLogRow.opening,
    AuditLogRow.tree_size,
    AuditLogRow.root,
    AuditLogRow.edge,
    AuditLogRow.cursor_epoch,
    text("cursor_xact::text AS cursor_xact"),
    AuditLogRow.cursor_seq,
    AuditLogRow.minimum_index,
)


class SealRepository:
    """Statements about places in the order of sealing are SQL: the type xid8 and row comparisons must be read."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def _rows(self, statement: str, *values: object) -> Sequence[Any]:
        return (await self._db.exec_driver_sql(statement, values)).all()

    async def _many(self, statement: str, *values: object) -> Sequence[Any]:
        """Thousands of rows, from the driver itself: SQLAlchemy's rows take as long as the hashing."""
        pooled = await self._db.get_raw_connection()
        rows: Sequence[Any] = await pooled.driver_connection.fetch(statement, *values)  # type: ignore[union-attr]
        return rows

    async def freeze(self) -> None:
        """Let all that is read until the end of this transaction be of one moment. The first thing in it."""
        await self._db.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))

    async def find_head(self) -> Head | None:
        """The newest incarnation; `None`: nothing was ever sealed."""
        found = select(*_HEAD).order_by(AuditLogRow.epoch.desc()).limit(1)
        row = (await self._db.execute(found)).one_or_none()
        return None if row is None else _head(row)

    async def has_removed(self) -> bool:
        """Whether retention has ever removed anything, under whatever name."""
        removed = select(AuditLogRow.epoch).where(AuditLogRow.minimum_index > 0).limit(1)
        return (await self._db.execute(removed)).one_or_none() is not None

    async def list_origins(self) -> list[str]:
        return list((await self._db.execute(select(AuditLogRow.origin).order_by(AuditLogRow.epoch))).scalars())

    async def lock_head(self) -> Head | None:
        """The same, locked; `None` also while another sealer has it."""
        newest = select(func.max(AuditLogRow.epoch)).scalar_subquery()
        found = select(*_HEAD).where(AuditLogRow.epoch == newest).with_for_update(skip_locked=True)
        row = (await self._db.execute(found)).one_or_none()
        return None if row is None else _head(row)

    async def found(self, origin: str) -> None:
        """Found the log, unless there is one."""
        await self._rows("SELECT audit_found($1)", origin)

    async def open_epoch(self, *, epoch: int, origin: str, opening: str, leaf: bytes) -> None:
        """Found the next incarnation; waits for writers under way. Only the maintenance role may."""
        await self._rows("SELECT audit_open_epoch($1, $2, $3, $4)", epoch, origin, opening, leaf)

    async def in_recovery(self) -> bool:
        answer: bool = (await self._db.execute(select(func.pg_is_in_recovery()))).scalar_one()
        return answer

    async def is_of_this_cluster(self, head: Head) -> bool:
        """False if transaction ids have begun anew since the last seal: this is a copy in another cluster."""
        behind = "SELECT $1::text::xid8 < pg_snapshot_xmax(pg_current_snapshot())"
        return head.cursor.epoch < head.epoch or bool((await self._rows(behind, head.cursor.xact))[0][0])

    async def read_unsealed(self, head: Head, *, limit: int) -> Stretch:
        """The next events to seal, in order."""
        after = head.cursor
        if after.epoch < head.epoch:
            rows = await self._many(FORMER, after.epoch, after.xact, after.seq, head.epoch, limit)
            if rows:
                return _stretch(rows, after)
            after = START
        return _stretch(await self._many(COMMITTED, head.epoch, after.xact, after.seq, limit), after)

    async def find_event(self, event_id: UUID, around: timedelta) -> Stretch:
        """One event by its id, looked for around the time that the id begins with. Served by the index on times."""
        made_at = time_of(event_id)
        if made_at is None:
            return _stretch([], START)
        first, last = max(made_at, _FIRST + around) - around, min(made_at, _LAST - around) + around
        return _stretch(await self._rows(BY_ID, first, last, event_id), START)

    async def read_newest(self, limit: int) -> Stretch:
        """The newest events that have committed for good, in order."""
        rows = await self._rows(NEWEST, limit)
        return _stretch(list(reversed(rows)), START)

    async def read_committed_after(self, place: Place, *, limit: int) -> Stretch:
        """What has committed for good after a place, in order."""
        head = Head(await self._current_epoch(), "", None, 0, b"", [], place, 0)
        return await self.read_unsealed(head, limit=limit)

    async def _current_epoch(self) -> int:
        newest = func.coalesce(func.max(AuditLogRow.epoch), 1)
        epoch: int = (await self._db.execute(select(newest))).scalar_one()
        return epoch

    async def read_between(self, start: Place, end: Place, *, limit: int | None = None) -> Stretch:
        """Events after one place, up to and with another, in order."""
        return _stretch(
            await self._many(BETWEEN, start.epoch, start.xact, start.seq, end.epoch, end.xact, end.seq, limit), start
        )

    async def count_between(self, start: Place, end: Place) -> int:
        counted: int = (await self._rows(COUNT, start.epoch, start.xact, start.seq, end.epoch, end.xact, end.seq))[0][0]
        return counted

    async def find_oldest_unsealed(self, head: Head) -> datetime | None:
        """When the oldest event happened that is not sealed yet; `None` if all are."""
        after = head.cursor
        if after.epoch < head.epoch:
            former = await self._rows(FORMER, after.epoch, after.xact, after.seq, head.epoch, 1)
            if former:
                oldest: datetime = former[0].occurred_at
                return oldest
            after = START
        found: datetime | None = (await self._rows(OLDEST_UNSEALED, head.epoch, after.xact, after.seq))[0][0]
        return found

    async def list_horizon_holders(self) -> list[Holder]:
        """Who keeps events from being sealed, the oldest first."""
        return [Holder(*row) for row in await self._rows("SELECT * FROM audit_horizon_holders()")]

    async def get_salts(self, people: Iterable[UUID], new_salt: Callable[[], bytes]) -> dict[UUID, bytes]:
        """Everybody's salt; who has none gets a new one."""
        wanted = list(people)
        salts = await self.find_salts(wanted)
        missing = [person for person in wanted if person not in salts]
        if missing:
            await self._db.exec_driver_sql(ADD_SALTS, (missing, [new_salt() for _ in missing]))
            salts |= await self.find_salts(missing)
        return salts

    async def find_salts(self, people: Iterable[UUID]) -> dict[UUID, bytes]:
        """The salts that there are."""
        rows = await self._rows(
            "SELECT subject_id, salt FROM audit_salts WHERE subject_id = ANY($1::uuid[])", list(people)
        )
        return {row[0]: row[1] for row in rows}

    async def add_batch(self, batch: Batch) -> None:
        s, e = batch.start, batch.end
        places = (s.epoch, s.xact, s.seq, e.epoch, e.xact, e.seq)
        values = (batch.epoch, batch.first_index, batch.count, *places, batch.root, batch.first_at, batch.last_at)
        await self._db.exec_driver_sql(ADD_BATCH, values)

    async def move_head(self, head: Head, tree: Tree, cursor: Place) -> bool:
        """Put the new head in the place of the one that was read; false if it is not there any more."""
        place = (cursor.epoch, cursor.xact, cursor.seq)
        values = (head.epoch, tree.size, tree.root(), tree.stored_edge(), *place, head.size)
        return (await self._db.exec_driver_sql(MOVE_HEAD, values)).rowcount == 1

    async def raise_minimum_index(self, epoch: int, index: int) -> None:
        """Entries below are gone from here. As the owner."""
        raised = update(AuditLogRow).where(AuditLogRow.epoch == epoch, AuditLogRow.minimum_index < index)
        await self._db.execute(raised.values(minimum_index=index))

    async def list_batches(self, epoch: int, *, since: int, limit: int) -> list[Batch]:
        """Batches from an index on, in order."""
        rows = await self._rows(BATCHES, epoch, since, limit)
        return [_batch(row) for row in rows]

    async def find_batch_at(self, epoch: int, index: int) -> Batch | None:
        """The batch that an index is in."""
        rows = await self._rows(BATCH_AT, epoch, index)
        return _batch(rows[0]) if rows else None

    async def find_batch_of(self, epoch: int, place: Place) -> Batch | None:
        """The batch that an event is in; `None`: it is not sealed."""
        rows = await self._rows(BATCH_OF, epoch, place.epoch, place.xact, place.seq)
        return _batch(rows[0]) if rows else None

    async def find_range(self, epoch: int, since: datetime | None, until: datetime | None) -> tuple[int, int] | None:
        """The indexes, first and past the last, of the batches that have anything of a time range."""
        first, last = (await self._rows(RANGE, epoch, since, until))[0]
        return None if first is None or last is None or first >= last else (first, last)

    async def estimate_count(self, epoch: int, since: datetime | None, until: datetime | None) -> int:
        """How many sealed events fall into a time range, to within a batch at either end."""
        counted: int = (await self._rows(ESTIMATE, epoch, since, until))[0][0]
        return counted


def _head(row: Any) -> Head:
    return Head(
        row.epoch,
        row.origin,
        row.opening,
        row.tree_size,
        row.root,
        row.edge,
        Place(row.cursor_epoch, row.cursor_xact, row.cursor_seq),
        row.minimum_index,
    )


def _stretch(rows: Sequence[Any], start: Place) -> Stretch:
    events = [SealedFields._make(row[:_COUNT_OF_FIELDS]) for row in rows]
    return Stretch(events, Place(*rows[-1][_COUNT_OF_FIELDS:]) if rows else start)


def _batch(row: Any) -> Batch:
    epoch, first_index, count, *places, root, first_at, last_at = row
    return Batch(epoch, first_index, count, Place(*places[:3]), Place(*places[3:]), root, first_at, last_at)
