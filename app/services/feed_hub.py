"""
One read for a whole process, and its consumers woken from memory.

The hub follows the ends as one consumer, from its own cursor, when the view of ended sessions has found any and every
second besides (what the view has found may not be all that the hub's next statement sees). What it reads goes into a
ring of batches, and every follower walks that ring at its own pace: a batch is written and signed once, and nothing is
queued for anybody, so a slow follower costs nobody anything. Who falls off the ring's end goes on from its cursor, in
the database.

A follower may begin amid the ring at the last batch before which nothing is unknown to it: what comes then is all that
it can lack. If there is none, it reads the database until there is.
"""

import asyncio
import contextlib
import weakref
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final
from uuid import UUID

from app.domain.errors import FeedCursorGone, RotaError, Unavailable
from app.domain.snapshots import BEGINNING, FeedCursor
from app.observability.logs import describe_failure, get_logger
from app.services.feed_batches import Batch, FeedWriter
from app.services.feed_reader import FeedReader, Reading

log = get_logger()

POLL_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 0.5
FRESH_SECONDS: Final = 3.0  # since the last read to the end; after that the hub knows no longer that it is at the end
LINGER_SECONDS: Final = 60.0  # without followers; those who poll come back
RECHECK_SECONDS: Final = 5.0
RING_ENDS: Final = 4096  # some 5 MB with tokens
PRELOADED_ENDS: Final = 2048  # at the start: those who come back after a restart find what they lack in memory
BATCH_ENDS: Final = 64  # one write to a follower, under 64 KB with tokens
READ_ENDS: Final = 256
WOKEN_AT_ONCE: Final = 8  # some 0.3 ms of work; then the other requests have their turn
PAUSE_SHARE: Final = 2.0  # between two wakings of all, as a multiple of how long the last one took
PAUSE_SECONDS_MAXIMUM: Final = 0.1

Check = Callable[[], Awaitable[object]]


class FollowerDismissed(Exception):
    """The follower is to end: the server stops, or its client may no longer follow. Its cursor remains good."""


class Follower:
    """
    One consumer. Its cursor says what it has been given.

    Args:
        check: Raises if the client may no longer follow.
    """

    def __init__(
        self,
        hub: "Hub",
        cursor: FeedCursor,
        identity: bytes | None,
        *,
        client: UUID,
        check: Check,
        with_tokens: bool,
    ) -> None:
        self._hub = hub
        self.client = client
        self.check = check
        self.cursor = cursor
        self.identity = identity
        self.with_tokens = with_tokens
        self.dismissed = False
        self._place: int | None = None  # in the ring
        self._skip: FeedCursor | None = None  # what it knew when it came to its place, and the ring may hold
        self._checked = identity is None  # whether the database has had what its cursor has seen
        self._pending: Batch | None = None
        self._wake = asyncio.Event()

    def wake(self) -> None:
        self._wake.set()

    def dismiss(self) -> None:
        self.dismissed = True
        self._wake.set()

    async def next(self, seconds: float) -> Batch | None:
        """
        The next batch, or `None` if there is nothing new in that time.

        Raises:
            FollowerDismissed: it is to end.
            FeedCursorGone: its cursor is of another history.
            Unavailable: the database was needed and cannot be asked.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            if self.dismissed:
                raise FollowerDismissed
            self._wake.clear()
            batch = await self._take()
            if batch is not None:
                return await self._hub.writer.sign(batch) if self.with_tokens else batch
            if loop.time() >= deadline:
                return None
            timer = loop.call_at(deadline, self._wake.set)  # a third of what a timeout costs, times a thousand
            try:
                await self._wake.wait()
            finally:
                timer.cancel()

    async def begin(self) -> None:
        """
        Make sure that its cursor is of this history, before anything is promised.

        Raises:
            FeedCursorGone: it is of another.
            Unavailable: the database was needed and cannot be asked.
        """
        if not self._checked and self._find() is None:
            self._pending = await self._catch_up()

    @property
    def at_the_end(self) -> bool:
        """Whether it has been given everything that there was a moment ago."""
        return self._place == self._hub.end and self._hub.is_fresh

    @property
    def is_behind(self) -> bool:
        """Whether there is more for it at once."""
        return self._place != self._hub.end

    async def _take(self) -> Batch | None:
        hub = self._hub
        if self._pending is not None:
            pending, self._pending = self._pending, None
            return pending
        while True:
            if self._place is None or self._place < hub.first:
                self._place, self._skip = self._find(), self.cursor
            if self._place is None:
                if not hub.has_begun and self._checked:
                    return None  # the hub wakes all when it has
                if (batch := await self._catch_up()) is not None:
                    return batch
                continue
            if self._place == hub.end:
                self._move_on()
                return None
            batch = hub.ring[self._place]
            self._place += 1
            unseen = self._unseen(batch)
            self.cursor = batch.after
            if unseen.ends:
                return unseen

    async def _catch_up(self) -> Batch | None:
        reading = await self._hub.read(self.cursor, self.identity)
        self._checked, self.identity = True, reading.identity
        self.cursor = reading.batch.after
        return reading.batch if reading.batch.ends else None

    def _find(self) -> int | None:
        place = self._hub.find(self.cursor, None if self._checked else self.identity)
        self._checked = self._checked or place is not None
        return place

    def _unseen(self, batch: Batch) -> Batch:
        if self._skip is None:
            return batch
        keep = [n for n, end in enumerate(batch.ends) if not self._skip.knows(end.xact, end.id)]
        if self._skip.within(batch.after):
            self._skip = None
        return batch if len(keep) == len(batch.ends) else self._hub.writer.part(batch, keep)

    def _move_on(self) -> None:
        """To the hub's own cursor, if that knows all that this one knows."""
        head = self._hub.head
        if head is not None and self.cursor is not head and self.cursor.within(head):
            self.cursor, self._skip = head, None


class Hub:
    """`found` gives the event that is set when sessions have next ended."""

    def __init__(self, reader: FeedReader, writer: FeedWriter, found: Callable[[], asyncio.Event]) -> None:
        self._reader = reader
        self.writer = writer
        self._found = found
        self.followers: weakref.WeakSet[Follower] = weakref.WeakSet()
        self.ring: dict[int, Batch] = {}
        self.first = self.end = 0
        self.head: FeedCursor | None = None
        self.settled = BEGINNING  # after the last batch; no end lies between this and the head
        self.identity: bytes | None = None
        self.current_at: datetime | None = None  # by the database: all that had ended then has been read
        self.stopped = False
        self._held = 0
        self._fresh_at = -FRESH_SECONDS
        self._checked_at = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def has_begun(self) -> bool:
        return self.head is not None

    @property
    def is_fresh(self) -> bool:
        return asyncio.get_running_loop().time() - self._fresh_at < FRESH_SECONDS

    def add(self, follower: Follower) -> None:
        if self.stopped:
            raise Unavailable(why="stopping")
        self.followers.add(follower)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="feed")

    def remove(self, follower: Follower) -> None:
        self.followers.discard(follower)

    def find(self, cursor: FeedCursor, claimed: bytes | None) -> int | None:
        """
        From which place in the ring a follower lacks nothing if it goes on there; `None`: the ring does not tell.

        Args:
            claimed: Of which history an unchecked cursor says to be. Such a one that is ahead of the hub is not ours
                to judge: a restore may have undone what it has seen.
        """
        if self.head is None:
            return None
        if claimed is not None and (claimed != self.identity or cursor.highest > self.head.highest):
            return None
        if self.settled.within(cursor):
            return self.end
        # What is known before a batch only grows, so the last batch before which all is known can be halved for.
        low, high = self.first, self.end
        while low < high:
            middle = (low + high) // 2
            if self.ring[middle].before.within(cursor):
                low = middle + 1
            else:
                high = middle
        return low - 1 if low > self.first else None

    async def read(self, cursor: FeedCursor, identity: bytes | None) -> Reading:
        return await self._reader.read(cursor, identity, limit=READ_ENDS)

    def stop(self) -> None:
        """Dismiss everybody, now: the server does not wait for consumers that never leave."""
        self.stopped = True
        for follower in list(self.followers):
            follower.dismiss()

    async def close(self) -> None:
        self.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        """Follow the ends as long as somebody follows the hub."""
        loop = asyncio.get_running_loop()
        left_alone_at = loop.time()
        delayed = False
        while not self.stopped:
            more = False
            found = self._found()  # before the read: what is found during it is read by the next
            try:
                more = await self._advance()
                await self._recheck()
                delayed = False
            except Unavailable as error:
                if not delayed:
                    log.warning("feed.delayed", why=error.why)
                delayed = True
                await asyncio.sleep(RETRY_SECONDS)
            except Exception as error:  # noqa: BLE001 - whatever it was, the consumers still wait
                log.error("feed.broke", **describe_failure(error))
                await asyncio.sleep(RETRY_SECONDS)
            if self.followers:
                left_alone_at = loop.time()
            elif loop.time() - left_alone_at > LINGER_SECONDS:
                break
            if not more:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await found.wait()
        self._forget()

    async def _advance(self) -> bool:
        """Read once, and hand on what there is. Whether there may be more."""
        if self.head is None:
            await self._begin()
            await self._wake_all()
            return False
        try:
            reading = await self._reader.read(self.head, self.identity, limit=READ_ENDS)
        except FeedCursorGone:
            # The history is another one: what is remembered means nothing in it, nor do the followers' cursors.
            log.warning("feed.history_changed")
            self._forget()
            for follower in list(self.followers):
                follower.dismiss()
            return True
        await self._publish(reading)
        return reading.more

    async def _begin(self) -> None:
        """With all that still matters, if that is little; else with what comes from now on."""
        reading = await self._reader.read(BEGINNING, None, limit=PRELOADED_ENDS)
        self.identity = reading.identity
        self.settled = BEGINNING
        if reading.more:
            self.settled = FeedCursor(reading.snapshot)
            self._stand_at(self.settled, reading)
        else:
            self._keep(reading.batch)
            self._stand_at(reading.batch.after, reading)

    async def _publish(self, reading: Reading) -> None:
        batch = reading.batch
        if any(follower.with_tokens for follower in self.followers):
            await self.writer.sign(batch)
        self._keep(batch)
        self._stand_at(batch.after, reading)
        if batch.ends:
            await self._wake_all()

    def _keep(self, batch: Batch) -> None:
        """Put it into the ring, in pieces of one write each."""
        for start in range(0, len(batch.ends), BATCH_ENDS):
            piece = self.writer.part(batch, range(start, min(start + BATCH_ENDS, len(batch.ends))))
            piece.before, piece.after = self.settled, piece.places[-1]
            self.settled = piece.after
            self._append(piece)

    def _append(self, batch: Batch) -> None:
        self.ring[self.end] = batch
        self.end += 1
        self._held += len(batch.ends)
        while self._held > RING_ENDS:
            self._held -= len(self.ring.pop(self.first).ends)
            self.first += 1

    def _stand_at(self, head: FeedCursor, reading: Reading) -> None:
        self.head = head
        if head.place is None:
            self._fresh_at = asyncio.get_running_loop().time()
            self.current_at = reading.now

    async def _wake_all(self) -> None:
        """A few at a time, so that nobody else waits for all of them; then a rest that grows with their number."""
        started = asyncio.get_running_loop().time()
        for number, follower in enumerate(list(self.followers), 1):
            follower.wake()
            if number % WOKEN_AT_ONCE == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(0)
        took = asyncio.get_running_loop().time() - started
        await asyncio.sleep(min(PAUSE_SHARE * took, PAUSE_SECONDS_MAXIMUM))

    async def _recheck(self) -> None:
        """Dismiss the followers whose client has been disabled, or has lost its secret, its token or the scope."""
        now = asyncio.get_running_loop().time()
        if now - self._checked_at < RECHECK_SECONDS:
            return
        for number, follower in enumerate(list(self.followers), 1):
            try:
                await follower.check()
            except Unavailable:
                return  # nothing was refused; the next time
            except Exception as error:  # noqa: BLE001 - one request's trouble must not keep the hub from the others
                if not isinstance(error, RotaError):
                    log.error("feed.check_broke", **describe_failure(error))
                follower.dismiss()
            if number % WOKEN_AT_ONCE == 0:
                await asyncio.sleep(0)
        self._checked_at = now

    def _forget(self) -> None:
        self.ring.clear()
        self.end += 1  # so that nobody's place is in what comes
        self.first = self.end
        self._held = 0
        self.head = self.identity = self.current_at = None
        self._fresh_at = -FRESH_SECONDS
