"""Numbers: counting the trail batch by batch, and answering from the counts."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from app.domain.canonical_json import JsonValue
from app.domain.clients import ClientContext
from app.domain.errors import StoredStateInvalid
from app.domain.events import Action, Actor
from app.domain.jobs import BUSY, Done
from app.domain.stats import SOURCES_DAYS, Counts, Numbers, Width, floor, read_span
from app.repositories.database import Database, UnitOfWork
from app.repositories.stats import WAITING_LIMIT
from app.services.admin_reads import AdminReads
from app.services.replica import Replica

BATCH: Final = 5000  # events, some 30 ms
SOURCES_BATCH: Final = 5000
JOB: Final = "stats"

NOT_THIS_CLUSTER: Final = (
    "This database was copied into another cluster, whose transaction ids have not come so far: nothing would be "
    "counted. After `rota audit open-epoch` the counts go on; `rota stats --check` says what they miss."
)


class Stats:
    def __init__(self, database: Database, reads: AdminReads, replica: Replica, *, trail_days: int) -> None:
        """`trail_days`: how long events are kept, 0 for ever; counts by address and agent are not kept longer."""
        self._database = database
        self._reads = reads
        self._replica = replica
        self._sources_kept = timedelta(days=min(trail_days or SOURCES_DAYS, SOURCES_DAYS))

    async def count(self) -> Done:
        """
        Count the next events of the trail, up to `BATCH`.

        One statement moves the sums and the place up to which they go: broken off anywhere, both have moved or neither
        has. While another process counts, nothing is done.

        Raises:
            StoredStateInvalid: the place is in the future of this cluster.
        """
        async with self._database.begin() as db:
            if await db.seals.in_recovery():
                return Done()
            if not await db.jobs.try_lock(JOB):
                return BUSY
            now, place = await db.now(), await db.stats.get_position()
            head = await db.seals.find_head()
            epoch = head.epoch if head else 1
            if place.epoch < epoch:
                counted = await db.stats.count_former(place, before_epoch=epoch, limit=BATCH, now=now)
                if not counted:
                    await db.stats.enter_epoch(epoch)
                await db.commit()
                return Done(counted, more=True)
            if not await db.stats.is_of_this_cluster(place):
                raise StoredStateInvalid(NOT_THIS_CLUSTER, why="transaction ids are behind the counts")
            counted = await db.stats.count_next(place, limit=BATCH, now=now)
            await db.commit()
        return Done(counted, more=counted == BATCH)

    async def remove_old_sources(self) -> Done:
        """Remove counts by address and agent that are past their time: they are personal data."""
        async with self._database.begin() as db:
            if not await db.jobs.try_lock(JOB):
                return BUSY
            await db.jobs.limit_statements()
            removed = await db.stats.remove_sources(self._kept_since(await db.now()), limit=SOURCES_BATCH)
            await db.commit()
        return Done(removed, more=removed == SOURCES_BATCH)

    async def answer(
        self, since: datetime | None, until: datetime | None, width: Width, *, actor: Actor, client: ClientContext
    ) -> Numbers:
        """
        The numbers of a range, all of one moment. That somebody asked is an event itself.

        Raises:
            InputInvalid: the range is out of order or too long.
        """
        numbers = await self._replica.read(partial(self._look, since, until, width))
        asked: dict[str, JsonValue] = {
            "bucket": width.value,
            "from": numbers.span.since.isoformat(),
            "to": numbers.span.until.isoformat(),
        }
        await self._reads.record("stats", asked, len(numbers.buckets), actor=actor, client=client)
        return numbers

    async def _look(self, since: datetime | None, until: datetime | None, width: Width, db: UnitOfWork) -> Numbers:
        await db.seals.freeze()
        now = await db.now()
        span = read_span(since, until, width, now=now)
        standing = await db.stats.get_standing()
        expiry = (await db.jobs.list_runs()).get("expiry")
        active = await db.stats.get_active(standing, now=now, ends_written_until=expiry.whole_since if expiry else None)
        buckets, totals = _series(await db.stats.list_series(span), span.starts())
        return Numbers(
            as_of=active.as_of,
            waiting=min(standing.waiting, WAITING_LIMIT),
            active=active,
            span=span,
            buckets=buckets,
            totals=totals,
            addresses=await db.stats.list_top("address", span.pieces()),
            agents=await db.stats.list_top("agent", span.pieces()),
            sources_since=self._kept_since(now),
        )

    def _kept_since(self, now: datetime) -> datetime:
        return floor(now - self._sources_kept, Width.DAY)


Series = Sequence[tuple[datetime, str, str, int]]


def _series(series: Series, starts: Sequence[datetime]) -> tuple[list[tuple[datetime, Counts]], Counts]:
    found: dict[datetime, dict[tuple[str, str], int]] = defaultdict(dict)
    totals: dict[tuple[str, str], int] = defaultdict(int)
    for start, action, reason, count in series:
        found[start][action, reason] = count
        totals[action, reason] += count
    return [(start, _counts(found.get(start, {}))) for start in starts], _counts(totals)


_NO_FAILURES: Final = {Action.SESSION_CREATED, Action.SESSION_REFRESHED, Action.SESSION_ENDED}


def _counts(found: Mapping[tuple[str, str], int]) -> Counts:
    ends = {reason: count for (action, reason), count in found.items() if action == Action.SESSION_ENDED}
    failures = {action: count for (action, _), count in found.items() if action not in _NO_FAILURES}
    return Counts(
        sign_ins=found.get((Action.SESSION_CREATED, ""), 0),
        refreshes=found.get((Action.SESSION_REFRESHED, ""), 0),
        failures=sum(failures.values()),
        reuse_detections=failures.get(Action.REFRESH_REUSED, 0),
        failures_by_action=dict(sorted(failures.items())),
        ends=dict(sorted(ends.items())),
    )
