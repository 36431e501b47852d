"""Recounting: what the counts should be, from the trail and the tables, against what they are."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from app.domain.events import NOBODY
from app.domain.stats import LENGTH, SOURCES_DAYS, Width, floor
from app.repositories.database import Database

PAGE: Final = 5000  # users in one statement
DIFFERENCES_LIMIT: Final = 100


@dataclass(slots=True)
class Recounted:
    """
    What was compared, and what differs: place and words, the first `DIFFERENCES_LIMIT`.

    Args:
        since: The trail has nothing older any more, so older counts could not be compared; `None`: it is empty.
    """

    since: datetime | None = None
    hours: int = 0
    users: int = 0
    events: int = 0
    differences: list[tuple[str, str]] = field(default_factory=list)


class StatsCheck:
    def __init__(self, database: Database, *, trail_days: int) -> None:
        """`trail_days`: how long events are kept, 0 for ever."""
        self._database = database
        self._sources_kept = timedelta(days=min(trail_days or SOURCES_DAYS, SOURCES_DAYS))

    async def run(self, progress: Callable[[int, int], None]) -> Recounted:
        """
        Recount every hour of the trail up to where it is counted, days from hours, and users from their sessions; each
        step in one statement, so that what is counted meanwhile is on both sides or on none.
        """
        found = Recounted()
        async with self._database.begin() as db:
            bounds = await db.stats_checks.find_bounds()
            sources_since = floor(await db.now() - self._sources_kept, Width.DAY) + LENGTH[Width.DAY]
            self._note(found, await db.stats_checks.compare_totals())
        if bounds is not None:
            found.since, end = bounds
            at = floor(bounds[0], Width.DAY)
            total = (end - at) // LENGTH[Width.HOUR] + 1
            while at <= end:
                await self._compare_hour(found, at, with_sources=at >= sources_since)
                at += LENGTH[Width.HOUR]
                progress(found.hours, total)
        await self._compare_users(found, progress)
        return found

    async def _compare_hour(self, found: Recounted, at: datetime, *, with_sources: bool) -> None:
        async with self._database.begin() as db:
            events, differences = await db.stats_checks.compare_counts(at)
            if with_sources:
                differences += await db.stats_checks.compare_sources(at)
            if at == floor(at, Width.DAY):
                differences += await db.stats_checks.compare_day(at, with_sources=with_sources)
        found.hours += 1
        found.events += events
        self._note(found, differences)

    async def _compare_users(self, found: Recounted, progress: Callable[[int, int], None]) -> None:
        position = NOBODY
        while True:
            async with self._database.begin() as db:
                last, users, differences = await db.stats_checks.compare_users(position, limit=PAGE)
            found.users += users
            self._note(found, differences)
            progress(found.users, found.users)
            if last is None:
                return
            position = last

    def _note(self, found: Recounted, differences: list[tuple[str, str]]) -> None:
        room = DIFFERENCES_LIMIT - len(found.differences)
        found.differences += differences[:room]
