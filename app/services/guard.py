"""The trail's own checks: that it is protected, that there is room ahead, that nothing came or went behind the seal."""

from datetime import timedelta
from itertools import pairwise
from typing import Final
from uuid import UUID

from app.observability.logs import get_logger
from app.repositories.database import Database
from app.services.sealing import Sealing

log = get_logger()

WINDOW_BATCHES: Final = 2000
WINDOW_EVENTS: Final = 200_000  # counted in one statement, some 100 ms
ALARM_AHEAD: Final = timedelta(days=30)


class Guard:
    def __init__(self, database: Database, sealing: Sealing) -> None:
        self._database = database
        self._sealing = sealing
        self._said: set[tuple[str, str]] = set()

    async def check_some(self) -> bool:
        """
        The cheap checks, and the counts of the next window of batches; round and round, each once a day or oftener.

        What is found is an alarm in the trail and in the log; nothing is mended.
        """
        async with self._database.begin() as db:
            if not await db.jobs.try_lock("audit.guard"):
                return False
            position = await db.jobs.find_cursor("audit.guard")
            found = await self._check_tables()
            miscounted, after = await self._check_window(position.int if position else 0)
            await db.jobs.set_cursor("audit.guard", UUID(int=after))
            await db.commit()
        for reason, what in found + miscounted:
            if (reason, what) not in self._said:
                self._said.add((reason, what))
                await self._sealing.alarm(reason, what)
        return False

    async def check_all(self) -> list[tuple[str, str]]:
        """All of it at once: reasons and what was found."""
        found, position = await self._check_tables(), 0
        while True:
            more, position = await self._check_window(position)
            found += more
            if position == 0:
                return found

    async def _check_tables(self) -> list[tuple[str, str]]:
        async with self._database.begin() as db:
            unprotected = await db.partitions.list_unprotected()
            partitions, now = await db.partitions.list_all(), await db.now()
        found = [("unprotected", f"{name} lacks a trigger that keeps it from being changed") for name in unprotected]
        attached = [partition for partition in partitions if not partition.half_detached]
        end = max((partition.end for partition in attached), default=now)
        if end < now + ALARM_AHEAD:
            found.append(("partitions", f"partitions end at {end.isoformat(timespec='seconds')}"))
        missing = [a.name for a, b in pairwise(attached) if a.end != b.start]
        return found + [("partitions", f"a month is missing after {name}") for name in missing]

    async def _check_window(self, index: int) -> tuple[list[tuple[str, str]], int]:
        """Between the cursors of batches there is what was sealed. Where to go on; 0 at the end."""
        async with self._database.begin() as db:
            head = await db.seals.find_head()
            if head is None or await db.partitions.list_detached():
                return [], 0  # nothing is sealed, or a month is being taken off
            if any(partition.half_detached for partition in await db.partitions.list_all()):
                return [], 0
            batches = await db.seals.list_batches(
                head.epoch, since=max(index, head.minimum_index), limit=WINDOW_BATCHES
            )
            window, events = [], 0
            for batch in batches:
                if events and events + batch.count > WINDOW_EVENTS:
                    break
                window.append(batch)
                events += batch.count
            if not window:
                return [], 0
            counted = await db.seals.count_between(window[0].start, window[-1].end)
        first, last = window[0].first_index, window[-1].first_index + window[-1].count
        found = []
        if counted != events:
            found.append(("miscounted", f"{counted} events where {events} were sealed, entries {first} to {last - 1}"))
        return found, 0 if last == head.size else last
