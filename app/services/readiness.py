"""Whether this process should be given requests."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final

from app.domain.clock import Clock
from app.domain.errors import Unavailable
from app.domain.readiness import Check, Finding, Report
from app.domain.schema import Revision, Verdict
from app.observability.logs import describe_failure, get_logger
from app.repositories.database import Database
from app.services import housekeeping
from app.services.ended_view import EndedView
from app.services.migrations import judge_at, read_revisions

log = get_logger()

CHECK_SECONDS: Final = 2.0  # for one check: less than the database's own limits, as a probe does not wait for those
ALL_SECONDS: Final = 4.0  # for all of them; what is left then was not tried
SKEW_MAXIMUM: Final = timedelta(seconds=1)
AHEAD_MINIMUM: Final = timedelta(days=30)

Work = Callable[[], Awaitable[str | None]]


class Readiness:
    """
    Named checks, tried at most once a second however many ask; whoever asks meanwhile gets the last report.

    They have connections of their own: a pool that is busy with requests is no reason to send those elsewhere, where
    the pools are as busy.
    """

    def __init__(
        self, database: Database, clock: Clock, ended_view: EndedView, trail: housekeeping.Housekeeping
    ) -> None:
        self._database = database
        self._clock = clock
        self._ended_view = ended_view
        self._trail = trail
        self._revisions: Sequence[Revision] | None = None
        self._draining = False
        self._looking: asyncio.Task[list[Finding]] | None = None
        self._found: list[Finding] = []
        self._found_at: float | None = None

    @property
    def draining(self) -> bool:
        return self._draining

    def drain(self) -> None:
        """No longer ready, from this moment and for good: the process is about to stop. Requests are still answered."""
        self._draining = True

    async def report(self) -> Report:
        """How it stands now, or stood less than a second ago; whether it drains is never old."""
        now = asyncio.get_running_loop().time()
        old = self._found_at is None or now - self._found_at >= housekeeping.CHECK_SECONDS
        if old and not self._draining:  # the answer is certain then, and must come at once
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look(), name="readiness")
            # Shielded: others wait for the same look, whoever is gone.
            await asyncio.shield(self._looking)
        drains = Finding(Check.DRAINING, "the process is stopping" if self._draining else None)
        return Report([drains, *self._found])

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _look(self) -> list[Finding]:
        loop = asyncio.get_running_loop()
        until = loop.time() + ALL_SECONDS
        database = await self._try(Check.DATABASE, self._check_writable, until)
        found = [database]
        for check, work in (
            (Check.SCHEMA, self._check_schema),
            (Check.CLOCK, self._check_clock),
            (Check.PARTITIONS, self._check_partitions),
            (Check.TRAIL, self._trail.try_trail),
        ):
            if not database.ok:
                found.append(Finding(check, "not tried: the database does not take writes", tried=False))
            else:
                found.append(await self._try(check, work, until))
        found.append(await self._try(Check.REVOCATION, self._check_view, until + CHECK_SECONDS))
        self._found, self._found_at = found, loop.time()
        return found

    async def _try(self, check: Check, work: Work, until: float) -> Finding:
        left = min(CHECK_SECONDS, until - asyncio.get_running_loop().time())
        if left <= 0:
            return Finding(check, "not tried: the checks before it took all the time", tried=False)
        try:
            async with asyncio.timeout(left):
                return Finding(check, await work())
        except TimeoutError:
            return Finding(check, f"no answer within {left:.1f} s")
        except Unavailable as error:
            return Finding(check, error.why or error.code)
        except Exception as error:  # noqa: BLE001 - a check that breaks has not succeeded
            log.error("readiness.broke", check=check, **describe_failure(error))
            return Finding(check, f"broke: {type(error).__name__}")

    async def _check_writable(self) -> str | None:
        async with self._database.begin() as db:
            return await db.facts.find_read_only()

    async def _check_schema(self) -> str | None:
        _, verdict = await self.judge_schema()
        return verdict.refusal.message if verdict.refusal else None

    async def judge_schema(self) -> tuple[str, Verdict]:
        """Where the database's schema is, and whether this release can serve it."""
        if self._revisions is None:
            self._revisions = await asyncio.to_thread(read_revisions)
        async with self._database.begin() as db:
            return await judge_at(db.schema, self._revisions)

    async def _check_clock(self) -> str | None:
        skew = await self.measure_skew()
        if abs(skew) <= SKEW_MAXIMUM:
            return None
        way = "ahead of" if skew > timedelta() else "behind"
        return f"this host's clock is {abs(skew).total_seconds():.1f} s {way} the database's"

    async def measure_skew(self) -> timedelta:
        """How far this host's clock is ahead of the database's, beyond what the question's own way can explain."""
        async with self._database.begin() as db:
            before = self._clock.on_host()
            told = await db.now()
            after = self._clock.on_host()
        if before <= told <= after:
            return timedelta()
        return before - told if told < before else after - told

    async def _check_partitions(self) -> str | None:
        async with self._database.begin() as db:
            partitions, now = await db.partitions.list_all(), await db.now()
        end = max((partition.end for partition in partitions if not partition.half_detached), default=now)
        if end - now >= AHEAD_MINIMUM:
            return None
        return (
            f"the trail's partitions end at {end.isoformat(timespec='seconds')}; run `rota maintain --job partitions`"
        )

    async def _check_view(self) -> str | None:
        if self._ended_view.is_usable:
            return None
        return "the view of ended sessions is stale; each access token asks the database meanwhile"
