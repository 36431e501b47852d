"""Ended means ended: what every process knows of the sessions that are over, without asking per request."""

import asyncio
import contextlib
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from app.domain.clock import Clock
from app.domain.ended_sessions import KEPT, EndedSessions
from app.domain.errors import Unavailable
from app.domain.snapshots import Snapshot
from app.observability.logs import describe_failure, get_logger
from app.repositories.doorbell import Doorbell
from app.repositories.ends import EndRepository, EndsPage

log = get_logger()

PAGE: Final = 500  # some 5 ms of the loop's time, between which it serves others
READ_SECONDS: Final = 3  # for a page; what is dead without a word is noticed by it
RETRY_SECONDS: Final = 0.25
POLLS: Final = 4  # within the time after which the view is stale, so that a lost notification does not matter


class EndedView:
    """
    The view: ids of ended sessions, how long ago they were read, and the database's time.

    Ends of this process are in it before their request is answered. Those of others come by a notification within
    milliseconds, or with the next poll; a view that was not read for the staleness bound is not asked at all.

    `found` is for those who tell others: the event that is set when sessions have next ended, here or elsewhere. Take
    it before you read, and wait for it after.
    """

    def __init__(self, doorbell: Doorbell, clock: Clock, *, staleness: timedelta, strict: bool) -> None:
        self._doorbell = doorbell
        self._clock = clock
        self._staleness = staleness.total_seconds()
        self._strict = strict
        self._ended = EndedSessions()
        self._bell = asyncio.Event()
        self.found = asyncio.Event()
        self._incarnation = ""
        self._seen: Snapshot | None = None
        self._read_at: float | None = None  # when the read began after which the view was complete
        self._time: tuple[datetime, float] | None = None
        self._trouble = False
        self._followed = False

    def now(self) -> datetime | None:
        """
        The database's time, if the view may be asked; `None` sends the caller to the database.

        Counted from the beginning of the last read by a clock that nobody can set, so it is never behind, and ahead by
        no more than that read took.
        """
        if self._strict or self._read_at is None or self._time is None:
            return None
        elapsed = self._clock.elapsed()
        if elapsed - self._read_at > self._staleness:
            return None
        told, at = self._time
        return self._clock.for_database() or told + timedelta(seconds=elapsed - at)

    @property
    def is_usable(self) -> bool:
        """
        Whether access tokens are checked as they should be: by a view that is fresh, or by the database on purpose.

        That is so in strict mode, and in a process that keeps no view at all.
        """
        return self._strict or not self._followed or self.now() is not None

    @property
    def age(self) -> float | None:
        """Seconds since the view was read; `None`: it is not there yet, or is not asked."""
        return None if self._strict or self._read_at is None else self._clock.elapsed() - self._read_at

    @property
    def size(self) -> int:
        """How many ended sessions it knows."""
        return len(self._ended)

    def has_ended(self, session_id: UUID) -> bool:
        """Whether a session is known to be over. Only of use right after `now` has answered."""
        return session_id in self._ended

    def note(self, ended: Iterable[tuple[UUID, datetime]]) -> None:
        """What this process has just committed."""
        for session_id, ended_at in ended:
            self._ended.add(session_id, ended_at)
        self._pulse()

    async def close(self) -> None:
        await self._doorbell.close()

    async def follow(self) -> None:
        """Keep the view, until cancelled. Whatever happens to the connection, there will be another."""
        self._followed = True
        while True:
            why: dict[str, object] = {}
            try:
                async with self._doorbell.listening(self._bell.set) as ends:
                    await self._follow(ends)
            except Unavailable as error:
                why = {"why": error.why}
            except TimeoutError:
                why = {"why": "no answer"}
            except Exception as error:  # noqa: BLE001 - the view must not end for good; it is stale meanwhile
                why = describe_failure(error)
            if not self._trouble:  # said once, not at each attempt
                self._trouble = True
                log.warning("revocation.interrupted", **why)
            await asyncio.sleep(RETRY_SECONDS)

    async def _follow(self, ends: EndRepository) -> None:
        async with asyncio.timeout(READ_SECONDS):
            incarnation = await ends.get_incarnation()
        if incarnation != self._incarnation:
            self._seen, self._incarnation = None, incarnation  # its transaction ids may have gone back
        while True:
            self._bell.clear()  # before the read: what rings during it is read by the next
            await self._read(ends)
            if self._trouble:
                self._trouble = False
                log.info("revocation.resumed", known=len(self._ended))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._staleness / POLLS):
                    await self._bell.wait()

    async def _read(self, ends: EndRepository) -> None:
        """Read what has ended since the last time, or at first within the time that matters, to the end."""
        seen, began = self._seen, self._clock.elapsed()
        page = await self._page(ends, seen, None)
        if seen is not None and page.snapshot.xmax < seen.xmax:
            self._seen = None
            raise Unavailable(why="transaction ids went back")
        first = page.snapshot
        self._time = page.now, began
        while len(page.ends) == PAGE:
            await asyncio.sleep(0)
            page = await self._page(ends, seen, page)
        self._seen, self._read_at = first, began
        if page.snapshot is not first:
            self._bell.set()  # that took a while: look again at once
        forgetting = True
        while forgetting:
            forgetting = self._ended.forget(page.now, limit=PAGE)
            await asyncio.sleep(0)

    async def _page(self, ends: EndRepository, seen: Snapshot | None, before: EndsPage | None) -> EndsPage:
        after = before.ends[-1] if before else None
        async with asyncio.timeout(READ_SECONDS):
            if seen is None:
                page = await ends.list_recent(KEPT, after=after, limit=PAGE)
            else:
                page = await ends.list_after(seen, after=after, limit=PAGE)
        for end in page.ends:
            self._ended.add(end.id, end.ended_at)
        if page.ends:
            self._pulse()
        return page

    def _pulse(self) -> None:
        found, self.found = self.found, asyncio.Event()
        found.set()
