"""Writing down guesses that were refused unseen: nobody waits for it, and all of a moment are written together."""

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from app.domain.errors import Unavailable
from app.domain.events import NOBODY, Event
from app.domain.throttling import told_one_by_one
from app.observability.logs import get_logger
from app.repositories.database import Database

log = get_logger()

Kind = tuple[UUID, str, str]  # subject, reason, source: what makes refusals alike

PAUSE_SECONDS: Final = 0.25  # until those of a moment are written
KINDS_TOGETHER: Final = 20  # in one transaction: each is a row that other processes may wait for
KINDS_MAXIMUM: Final = 10_000  # that wait; of more kinds, only how many there were


@dataclass(slots=True)
class _Waiting:
    count: int = 0
    events: list[Event] = field(default_factory=list)  # of the first few, which may be told one by one


class RefusalNotes:
    """
    A refusal costs an attacker nothing, so it must cost us little. And it must take as long for a name that somebody
    has, which is a kind of its own, as for all others, which are one kind together: so none waits for its own note, nor
    finds the writer at work for it. A process that is killed, or ends while the database is away, loses count of some.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[Kind, _Waiting] = {}
        self._writer: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def note(self, kind: Kind, event: Event) -> None:
        """Count one more; the first few of a minute that are alike become events, the job sums up the rest."""
        if kind not in self._waiting and len(self._waiting) >= KINDS_MAXIMUM:
            self._waiting.setdefault((NOBODY, kind[1], ""), _Waiting()).count += 1
            return
        waiting = self._waiting.setdefault(kind, _Waiting())
        waiting.count += 1
        if len(waiting.events) < told_one_by_one(kind[1]):
            waiting.events.append(event)
        if self._writer is None:
            self._writer = self.begin(self._write_all())

    def begin(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Do something that nobody waits for; `close` does."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        self._closing.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PAUSE_SECONDS):
                        await self._closing.wait()
                if not await self._write_waiting() and self._closing.is_set():
                    return
        finally:
            self._writer = None

    async def _write_waiting(self) -> bool:
        """What waits now; false: the database is away, and what could not be written waits on."""
        due = list(self._waiting)
        for first in range(0, len(due), KINDS_TOGETHER):
            together = {kind: self._waiting.pop(kind) for kind in due[first : first + KINDS_TOGETHER]}
            try:
                await self._write(together)
            except Unavailable as error:
                log.warning("login.throttled_not_written", why=error.why)
                self._put_back(together)
                return False
        return True

    def _put_back(self, together: dict[Kind, _Waiting]) -> None:
        for kind, noted in together.items():
            later = self._waiting.pop(kind, _Waiting())
            events = [*noted.events, *later.events][: told_one_by_one(kind[1])]
            self._waiting[kind] = _Waiting(noted.count + later.count, events)

    async def _write(self, together: dict[Kind, _Waiting]) -> None:
        async with self._database.begin() as db:
            now = await db.now()
            # Each is a row that is locked, by other processes in the same order; last those of which all have some.
            for kind in sorted(together, key=lambda kind: (kind[0] == NOBODY, kind)):
                noted, (subject_id, reason, source) = together[kind], kind
                total = await db.refusals.count_login(subject_id, reason, source, now, times=noted.count)
                told = min(total, told_one_by_one(reason)) - min(total - noted.count, told_one_by_one(reason))
                await db.audit.add(*noted.events[:told], at=now)
            await db.commit()
