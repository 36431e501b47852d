"""The ends of sessions as the feed reads them. Why nothing is missed is told in `app/domain/snapshots.py`."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.families import EndReason
from app.domain.session_ends import SessionEnd
from app.domain.snapshots import IDENTITY_BYTES, NOTHING, FeedCursor, Snapshot
from app.repositories.ends import ENDS

# What tells one history of one database from another. A failover or a restore begins a new timeline. The file's name
# begins with the timeline; asked of a standby it is an error, which is right: a standby's snapshots are not the
# primary's.
_HERE: Final = """
SELECT pg_current_snapshot()::text AS snapshot, coalesce($1::timestamptz, statement_timestamp()) AS now,
       (SELECT system_identifier FROM pg_control_system())::text || '/'
         || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) || '/'
         || (SELECT oid FROM pg_database WHERE datname = current_database()) AS history
"""

# A visible row whose transaction this database has not had came with a dump of another one. Who begins gets those too
# ($8), and nobody else, or each answer would hold them again.
# The age is compared as a sum, so that no plan goes by time and sorts all of the last minutes for each page.
_UNSEEN: Final = f"""
SELECT here.snapshot, here.now, here.history, ended.*
  FROM ({_HERE}) AS here
  LEFT JOIN LATERAL (
    {ENDS} AND ended_xact >= $3::text::xid8 AND (ended_xact, id) > ($4::text::xid8, $5::uuid)
       AND ended_at + $6::interval > here.now
       AND NOT pg_visible_in_snapshot(ended_xact, $2::text::pg_snapshot)
       AND ($8 OR pg_visible_in_snapshot(ended_xact, pg_current_snapshot()))
     ORDER BY ended_xact, id LIMIT $7
  ) AS ended ON true
"""  # noqa: S608 - put together of constants

# What this statement does not see was ended by a transaction that still runs, or by a later one.
# Without a floor the last minutes are looked at, by time; they may hold a million ends. From a floor one walks upwards,
# over those that have grown old since, to the first that has not: there the sum keeps the plan from going by time.
_BY_TIME: Final = """
SELECT ended_xact::text::numeric FROM families
 WHERE ended_at IS NOT NULL AND ended_at > here.now - $2::interval AND $3::text IS NULL
 ORDER BY ended_xact::text::numeric LIMIT 1
"""
_UPWARDS: Final = """
SELECT ended_xact::text::numeric FROM families
 WHERE ended_at IS NOT NULL AND ended_xact >= $3::text::xid8 AND ended_at + $2::interval > here.now
 ORDER BY ended_xact, id LIMIT 1
"""
_FLOOR: Final = f"""
SELECT least(pg_snapshot_xmin(here.snapshot::pg_snapshot)::text::numeric, ({{lowest}}))::text AS floor, here.history
  FROM ({_HERE}) AS here
"""  # noqa: S608 - put together of constants

_FIRST: Final = UUID(int=0)


@dataclass(frozen=True, slots=True)
class FeedRows:
    """
    A statement's ends, and what it saw.

    Args:
        identity: Of the history in which the snapshot means something.
        full: As many ends as were asked for; there may be more.
    """

    ends: list[SessionEnd]
    snapshot: Snapshot
    now: datetime
    identity: bytes
    full: bool


@dataclass(frozen=True, slots=True)
class Floor:
    """A transaction below which nothing is new to anybody, and in which history."""

    xact: int
    identity: bytes


class FeedRepository:
    """Reads only."""

    def __init__(self, db: AsyncConnection, now: datetime | None) -> None:
        self._db = db
        self._now = now

    async def list_unseen(self, cursor: FeedCursor, *, floor: int, within: timedelta, limit: int) -> FeedRows:
        """
        Ends of the last while that the cursor's snapshot did not see, after its place, by transaction and id.

        Args:
            floor: From `find_floor`, at any time before; saves walking over what is too old.
            within: How old an end may be.
        """
        place = cursor.place
        arguments = (
            self._now,
            str(cursor.seen),
            str(max(floor, cursor.lowest)),
            str(place.xact) if place else "0",
            place.id if place else _FIRST,
            within,
            limit,
            cursor.seen == NOTHING,
        )
        rows = (await self._db.exec_driver_sql(_UNSEEN, arguments)).all()
        ends = [_end(row) for row in rows if row.id is not None]
        snapshot = Snapshot.parse(rows[0].snapshot)
        return FeedRows(ends, snapshot, rows[0].now, _identity(rows[0]), full=len(ends) == limit)

    async def find_floor(self, within: timedelta, *, above: int | None) -> Floor:
        """
        No end of the last while, and none that comes, has a lower transaction. Holds for ever in this history.

        Args:
            above: A floor that was found before, from which little has to be looked at.
        """
        statement = _FLOOR.format(lowest=_BY_TIME if above is None else _UPWARDS)
        found = await self._db.exec_driver_sql(statement, (self._now, within, None if above is None else str(above)))
        row = found.one()
        return Floor(int(row.floor), _identity(row))


def _identity(row: Any) -> bytes:
    return sha256(row.history.encode()).digest()[:IDENTITY_BYTES]


def _end(row: Any) -> SessionEnd:
    return SessionEnd(row.user_id, row.id, row.ended_at, EndReason(row.end_reason), int(row.xact))
