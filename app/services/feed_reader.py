"""The feed of ended sessions, read from the database."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.domain.ended_sessions import KEPT
from app.domain.errors import FeedCursorGone, TookTooLong
from app.domain.snapshots import FeedCursor, Place, Snapshot
from app.observability.logs import get_logger
from app.repositories.database import Database
from app.repositories.feed import FeedRows, Floor
from app.services.feed_batches import Batch, FeedWriter

log = get_logger()

READERS_MAXIMUM: Final = 3  # catching up at a time: after a restart all come at once, and refreshes need the database
FLOOR_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Reading:
    """A batch from the database, in which history, as of when, and whether there may be more at once."""

    batch: Batch
    identity: bytes
    snapshot: Snapshot
    now: datetime
    more: bool


class FeedReader:
    """Reads the feed from the database."""

    def __init__(self, database: Database, writer: FeedWriter) -> None:
        self._database = database
        self._writer = writer
        self._places = asyncio.Semaphore(READERS_MAXIMUM)
        self._floor: Floor | None = None
        self._floor_at = -float(FLOOR_SECONDS)

    async def read(self, cursor: FeedCursor, identity: bytes | None, *, limit: int) -> Reading:
        """
        Ends that the cursor does not know, at most `limit`; all of them unless `more`.

        Args:
            identity: The history that the cursor is of; `None` if it begins.
        Raises:
            FeedCursorGone: of another history than the database's.
            Unavailable: the database cannot be asked.
        """
        async with self._places:
            now = asyncio.get_running_loop().time()
            if now - self._floor_at >= FLOOR_SECONDS:
                self._floor_at = now
                await self._raise_floor()
            async with self._database.begin() as db:
                rows = await self._list(db.feed.list_unseen, cursor, limit)
        return self._reading(cursor, identity, rows, limit)

    async def _raise_floor(self) -> None:
        """It only saves work, so after a bulk end that makes it hard to find the one that is known must do."""
        known, self._floor = self._floor, None
        try:
            async with self._database.begin() as db:
                self._floor = await db.feed.find_floor(KEPT, above=known.xact if known else None)
        except TookTooLong:
            self._floor = known
            log.warning("feed.floor_delayed")
            return
        if known is not None and known.identity != self._floor.identity:
            self._floor, self._floor_at = None, -float(FLOOR_SECONDS)

    async def _list(self, list_unseen: Callable[..., Awaitable[FeedRows]], cursor: FeedCursor, limit: int) -> FeedRows:
        floor = self._floor
        rows = await list_unseen(cursor, floor=floor.xact if floor else 0, within=KEPT, limit=limit)
        if floor is None or (floor.identity == rows.identity and floor.xact <= rows.snapshot.xmax):
            return rows
        # The floor is of another history: once more, from the bottom.
        self._floor, self._floor_at = None, -float(FLOOR_SECONDS)
        return await list_unseen(cursor, floor=0, within=KEPT, limit=limit)

    def _reading(self, cursor: FeedCursor, identity: bytes | None, rows: FeedRows, limit: int) -> Reading:
        if identity is not None and (identity != rows.identity or cursor.highest > rows.snapshot.xmax):
            raise FeedCursorGone
        place = cursor.place
        target = place.target if place else rows.snapshot
        # What the first page's snapshot did not see comes after the last page; but what came with a dump of another
        # database, by a transaction that this one has not had, would come never.
        ends = [end for end in rows.ends if target.sees(end.xact) or end.xact >= rows.snapshot.xmax]
        after = FeedCursor(target)
        if rows.full:
            last = rows.ends[limit - 1]
            after = FeedCursor(cursor.seen, Place(target, last.xact, last.id))
        batch = self._writer.batch(ends, cursor, after, target, rows.identity)
        return Reading(batch, rows.identity, rows.snapshot, rows.now, more=rows.full or place is not None)
