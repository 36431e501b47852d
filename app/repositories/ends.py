"""
The sessions that have ended, in an order in which none is missed.

Ends are followed by the transaction that wrote them (`ended_xact`), from a statement's snapshot to the next one's, as
`app/domain/snapshots.py` argues. This is for the view, which reads several times a second and is told nothing
twice; the feed's statement, for consumers that may be away for long, is in `feed.py`.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.clock import Clock
from app.domain.errors import Unavailable
from app.domain.families import EndReason
from app.domain.session_ends import SessionEnd
from app.domain.snapshots import Snapshot

CHANNEL: Final = "rota_ends"  # the doorbell: rung without a payload by a trigger, once a transaction that ends sessions

# What is read of an end, here and for the feed.
ENDS: Final = (
    "SELECT user_id, id, ended_at, end_reason, ended_xact::text AS xact FROM families WHERE ended_at IS NOT NULL"
)

# Rows of transactions that are not over in this snapshot cannot be seen, and those with a higher id were written by
# another cluster, before a dump of it was restored here: without the upper bound each call would find them again.
_UNSEEN: Final = f"""
{ENDS} AND {{which}} AND ended_xact < pg_snapshot_xmax(pg_current_snapshot())
 ORDER BY ended_xact, id LIMIT $5
"""

# Each arm walks the index from its own place and stops at the limit, however many ends there are before and behind it.
# It has one lower bound: of two, PostgreSQL may begin at the lower one and look at all that is between.
AFTER: Final = f"""
SELECT pg_current_snapshot()::text AS snapshot, coalesce($6, statement_timestamp()) AS now, ended.*
  FROM (VALUES (1)) AS always
  LEFT JOIN (
    SELECT * FROM (
      SELECT late.* FROM unnest($1::text[], $2::uuid[]) AS running (xact, after)
       CROSS JOIN LATERAL ({_UNSEEN.format(which="ended_xact = running.xact::xid8 AND id > running.after")}) AS late
      UNION ALL
      ({_UNSEEN.format(which="(ended_xact, id) > ($3::text::xid8, $4)")})
    ) AS unseen ORDER BY xact::xid8, id LIMIT $5
  ) AS ended ON true
"""  # noqa: S608 - put together of constants

RECENT: Final = f"""
SELECT pg_current_snapshot()::text AS snapshot, coalesce($1, statement_timestamp()) AS now, ended.*
  FROM (VALUES (1)) AS always
  LEFT JOIN (
    {ENDS} AND (ended_at, id) > (coalesce($3, coalesce($1, statement_timestamp()) - $2::interval), $4)
     ORDER BY ended_at, id LIMIT $5
  ) AS ended ON true
"""  # noqa: S608 - likewise

_INCARNATION: Final = "SELECT pg_postmaster_start_time()::text AS started, pg_is_in_recovery() AS standby"

_FIRST: Final = UUID(int=0)


@dataclass(frozen=True, slots=True)
class EndsPage:
    """
    Ends, the snapshot of the statement that read them, and the database's time at it.

    Pages that follow the first only go on in its order. Whoever has read them all goes on from the *first* one's
    snapshot: what was committed meanwhile may have come before the place where the next page began.
    """

    ends: list[SessionEnd]
    snapshot: Snapshot
    now: datetime


class EndRepository:
    """Reads only. The statements are SQL: the type xid8, row comparisons and the snapshot must be read."""

    def __init__(self, db: AsyncConnection, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def list_after(self, seen: Snapshot, *, after: SessionEnd | None = None, limit: int) -> EndsPage:
        """
        Ends that a snapshot could not see, in order of their transactions and ids.

        Args:
            after: The last end of the page before this one.
        """
        done, last = (after.xact, after.id) if after else (0, _FIRST)
        running = [xact for xact in seen.running if xact >= done]
        ids = [last if xact == done else _FIRST for xact in running]
        following = (str(done), last) if done >= seen.xmax else (str(seen.xmax), _FIRST)
        arguments = (list(map(str, running)), ids, *following, limit, self._clock.for_database())
        return await self._page(AFTER, arguments)

    async def list_recent(self, within: timedelta, *, after: SessionEnd | None = None, limit: int) -> EndsPage:
        """Ends of the last while, oldest first."""
        place = (after.ended_at, after.id) if after else (None, _FIRST)
        return await self._page(RECENT, (self._clock.for_database(), within, *place, limit))

    async def get_incarnation(self) -> str:
        """
        Which run of which server this is. After another one began, transaction ids may have gone back.

        Raises:
            Unavailable: a standby; it may lag behind, and its snapshots do not name what runs on the primary.
        """
        found = await self._db.exec_driver_sql(_INCARNATION)
        row: Any = found.one()
        if row.standby:
            raise Unavailable(why="the database is a standby")
        return str(row.started)

    async def _page(self, statement: str, arguments: tuple[Any, ...]) -> EndsPage:
        rows: Any = (await self._db.exec_driver_sql(statement, arguments)).all()
        ends = [
            SessionEnd(user_id, family_id, ended_at, EndReason(reason), int(xact))
            for _, _, user_id, family_id, ended_at, reason, xact in rows  # by place: a million may come
            if family_id is not None
        ]
        return EndsPage(ends, Snapshot.parse(rows[0].snapshot), rows[0].now)
