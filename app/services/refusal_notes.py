"""Writing down guesses that were refused unseen: however many of a kind come, one writer is at work."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from uuid import UUID

from app.domain.errors import Unavailable
from app.domain.events import Event
from app.domain.throttling import told_one_by_one
from app.observability.logs import get_logger
from app.repositories.database import Database

log = get_logger()

Kind = tuple[UUID, str, str]  # subject, reason, source: what makes refusals alike


@dataclass(slots=True)
class _Waiting:
    count: int = 0
    events: list[Event] = field(default_factory=list)  # of the first few, which may be told one by one


class RefusalNotes:
    """
    A refusal costs an attacker nothing, so it must cost us little: those of a kind that come while one is being written
    are written together by whoever is at it. Only a process that is killed then loses count of some.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[Kind, _Waiting] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def note(self, kind: Kind, event: Event) -> None:
        """Count one more; the first few of a minute that are alike become events, the job sums up the rest."""
        if (waiting := self._waiting.get(kind)) is not None:
            waiting.count += 1
            if len(waiting.events) < told_one_by_one(kind[1]):
                waiting.events.append(event)
            return
        self._waiting[kind] = _Waiting()
        try:
            await self._write(kind, _Waiting(1, [event]))
        finally:
            if self._waiting[kind].count:
                self.begin(self._write_rest(kind))
            else:
                del self._waiting[kind]

    def begin(self, work: Coroutine[None, None, None]) -> None:
        """Do something that nobody waits for; `close` does."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _write_rest(self, kind: Kind) -> None:
        try:
            while (rest := self._waiting[kind]).count:
                self._waiting[kind] = _Waiting()
                await self._write(kind, rest)
        except Unavailable as error:
            log.warning("login.throttled_not_written", why=error.why)
        finally:
            del self._waiting[kind]

    async def _write(self, kind: Kind, noted: _Waiting) -> None:
        subject_id, reason, source = kind
        async with self._database.begin() as db:
            now = await db.now()
            total = await db.refusals.count_login(subject_id, reason, source, now, times=noted.count)
            told = min(total, told_one_by_one(reason)) - min(total - noted.count, told_one_by_one(reason))
            await db.audit.add(*noted.events[:told], at=now)
            await db.commit()
