"""The feed of ended sessions, read from the database."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.domain.ended_sessions import KEPT
from app.domain.errors import FeedCursorGone
from app.domain.snapshots import FeedCursor, Place, Snapshot
from app.repositories.database import Database
from app.repositories.feed import FeedRows
from app.services.feed_batches import Batch, FeedWriter

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
        self._floor = 0
        self._floor_at = -float(FLOOR_SECONDS)
        self._floor_identity: bytes | None = None

    async def read(self, cursor: FeedCursor, identity: bytes | None, *, limit: int) -> Reading:
        """
        Ends that the cursor does not know, at most `limit`; all of them unless `more`.

        Args:
            identity: The history that the cursor is of; `None` if it begins.
        Raises:
            FeedCursorGone: of another history than the database's.
            Unavailable: the database cannot be asked.
        """
        async with self._places, self._database.begin() as db:
            now = asyncio.get_running_loop().time()
            if now - self._floor_at >= FLOOR_SECONDS:
                self._floor = await db.feed.find_floor(KEPT)
                self._floor_at, self._floor_identity = now, None
            rows = await self._list(db.feed.list_unseen, cursor, limit)
        return self._reading(cursor, identity, rows, limit)

    async def _list(self, list_unseen: Callable[..., Awaitable[FeedRows]], cursor: FeedCursor, limit: int) -> FeedRows:
        rows = await list_unseen(cursor, floor=self._floor, within=KEPT, limit=limit)
        if self._floor_identity not in {None, rows.identity} or self._floor > rows.snapshot.xmax:
            # The floor is of another history: once more, from the bottom.
            self._floor_at = -float(FLOOR_SECONDS)
            rows = await list_unseen(cursor, floor=0, within=KEPT, limit=limit)
            self._floor_identity = None
            return rows
        self._floor_identity = rows.identity
        return rows

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
