"""Bulk ends as they are done: batch by batch, by whichever process is at hand."""

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final
from uuid import UUID

from app.domain.errors import TookTooLong
from app.domain.events import NO_CLIENT, Action, Event
from app.domain.revocations import Revocation, RevocationState, id_before
from app.domain.session_filters import SessionFilter
from app.domain.vocabulary_check import check
from app.observability.logs import get_logger
from app.repositories.bulk_ends import EndedStretch, Stretch, Target
from app.repositories.database import Database, UnitOfWork
from app.repositories.revocations import Work
from app.services.revocations import actor_of, over_event

log = get_logger()

# A million in 100 s. Left alone, a batch is done in some two thirds of the time that this gives it; in the rest,
# refreshes have processor and disk for themselves.
ENDS_PER_SECOND: Final = 10_000
PAUSE_SECONDS: Final = 0.01  # between batches, at least
# A batch holds its rows for so long, and so much WAL is to be flushed behind it by the next refresh.
AIM: Final = timedelta(milliseconds=80)
STATEMENT_MILLISECONDS: Final = 1000
ENDS_MINIMUM: Final = 50
ENDS_MAXIMUM: Final = 5_000
LOOK_MINIMUM: Final = 500
LOOK_MAXIMUM: Final = 50_000
LISTED_MAXIMUM: Final = 10_000  # so many are found by the filter's own index, each batch anew
LISTED_MILLISECONDS: Final = 300
BEFORE_CUT: Final = timedelta(minutes=2)  # ids are made by hosts whose clocks differ from the database's by a second


class Step(Enum):
    """What became of one attempt at a batch."""

    NOTHING = auto()  # there is nothing to do, or nothing that could be done just now
    WORKED = auto()  # and there is more
    FINISHED = auto()


@dataclass(slots=True)
class Pace:
    """
    How much a batch takes on, by how long the last one took.

    Args:
        ends: Sessions that it ends at most.
        look: Live sessions that it looks at.
        least: To so few `ends` a slow batch leads: smaller ones are mostly way to and fro. Fewer only if they must.
        pause: Seconds to rest after it.
    """

    ends: int = 500
    look: int = 10_000
    least: int = 400
    pause: float = PAUSE_SECONDS

    def learn(self, ended: int, took: timedelta, seconds: float) -> None:
        """
        Grow or shrink towards `AIM`, at most by half or double; and rest from what was done.

        Args:
            took: The statement, by the database's clock.
            seconds: The batch, as seen from here.
        """
        self.pause = max(PAUSE_SECONDS, ended / ENDS_PER_SECOND - seconds)
        factor = min(2.0, max(0.5, AIM / max(took, timedelta(milliseconds=1))))
        if ended * 2 > self.ends:
            self.ends = min(max(int(self.ends * factor), self.least), ENDS_MAXIMUM)
            # Where most match, no more is looked at than ends soon.
            self.look = max(min(self.look, 4 * self.ends), LOOK_MINIMUM)
        else:
            self.look = min(max(int(self.look * factor), LOOK_MINIMUM), LOOK_MAXIMUM)

    def shrink(self) -> bool:
        """After a statement that took too long. False if it cannot be done in smaller parts."""
        smallest = self.ends <= ENDS_MINIMUM and self.look <= LOOK_MINIMUM
        self.ends, self.look = max(self.ends // 4, ENDS_MINIMUM), max(self.look // 4, LOOK_MINIMUM)
        self.least = max(min(self.least, self.ends // 2), ENDS_MINIMUM)
        return not smallest


class RevocationWork:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._pace = Pace()
        self._at_work = False

    async def work(self) -> bool:
        """One batch of the bulk end that has waited longest, and a rest; whether there is more to do."""
        if not self._at_work:
            async with self._database.begin() as db:
                if not await db.revocations.has_open():
                    return False
        self._at_work = await self.advance() is not Step.NOTHING
        if self._at_work:
            await self.rest()
        return self._at_work

    async def rest(self) -> None:
        """Leave the database to others for a moment after a batch."""
        await asyncio.sleep(self._pace.pause)

    async def advance(self, revocation_id: UUID | None = None) -> Step:
        """
        End the next batch: sessions, their events and the place where to go on, in one transaction.

        Whoever is killed in it leaves nothing half done, and anybody goes on. One batch at a time, of whatever bulk
        end. Its end is written together with the last batch.

        Args:
            revocation_id: Of this one only; else of the one that has waited longest.
        Raises:
            TookTooLong: the smallest batch does not end within a second.
        """
        try:
            return await self._advance(revocation_id)
        except TookTooLong:
            if self._pace.shrink():
                return Step.WORKED
            async with self._database.begin() as db:
                if not await db.revocations.stop_listing():
                    raise
                await db.commit()
            return Step.WORKED

    async def _advance(self, revocation_id: UUID | None) -> Step:
        clock = asyncio.get_running_loop().time
        began = clock()
        async with self._database.begin() as db:
            now = await db.revocations.begin_batch(STATEMENT_MILLISECONDS)
            found = await db.revocations.lock_next(revocation_id) if now is not None else None
            if now is None or found is None:
                return Step.NOTHING
            target = Target(found.order, found.revocation.cut, found.revocation.spared, now)
            if found.revocation.state is RevocationState.QUEUED:
                found = await self._prepare(db, found, target)
            stretch = await self._next(db, found, target)
            done = await self._end(db, found, stretch, target)
            step, finished = await self._write_down(db, found, stretch, done, now)
            await db.commit()
        self._pace.learn(done.ended, done.took, clock() - began)
        if finished is not None:
            log.info(Action.REVOCATION_FINISHED, revocation=str(finished.id), ended=finished.ended)
        return step

    async def _prepare(self, db: UnitOfWork, work: Work, target: Target) -> Work:
        """Decide how to find them, and whether sign-ins from before the cut may still be about to commit."""
        listed = work.listed
        if listed is None:
            listed = work.order.wanted != SessionFilter() and await db.bulk_ends.are_few(
                target, LISTED_MAXIMUM, milliseconds=LISTED_MILLISECONDS
            )
        return replace(work, listed=listed, settled=await db.revocations.is_settled(work.revocation, target.now))

    async def _next(self, db: UnitOfWork, work: Work, target: Target) -> Stretch:
        if work.listed:
            return await db.bulk_ends.list_matching(target, work.cursor, limit=self._pace.ends)
        return await db.bulk_ends.measure_live(work.cursor, look=self._pace.look)

    async def _end(self, db: UnitOfWork, work: Work, stretch: Stretch, target: Target) -> EndedStretch:
        revocation = work.revocation
        actor = actor_of(revocation)
        pattern = Event(
            Action.SESSION_ENDED,
            actor,
            NO_CLIENT,
            reason=revocation.end_reason,
            family_id=revocation.id,
            family_seq=1,
            generation=0,
        )
        check(pattern)  # the statement writes all of them like it
        return await db.bulk_ends.end(
            stretch,
            target,
            reason=revocation.end_reason,
            actor=actor,
            request_id=revocation.id,
            limit=self._pace.ends,
        )

    async def _write_down(
        self, db: UnitOfWork, work: Work, stretch: Stretch, done: EndedStretch, now: datetime
    ) -> tuple[Step, Revocation | None]:
        """Where to go on; or that it is over, if nothing was left and nothing can come any more."""
        revocation = work.revocation
        # A full batch goes on after the last that it ended. What was left before that is held by somebody: the walk
        # comes back to it.
        cursor = done.last if done.ended >= self._pace.ends and done.left is not None else stretch.until
        if cursor is not None:
            held = done.left if done.left is not None and done.left <= cursor else None
            await db.revocations.note(
                revocation,
                now,
                ended=done.ended,
                looked_at=done.ended if cursor == done.last else stretch.looked_at,
                cursor=cursor,
                again_from=_first(work.again_from, held),
                listed=work.listed,
                settled=work.settled,
            )
            return Step.WORKED, None
        late = None if work.settled else id_before(revocation.cut - BEFORE_CUT)
        again = _first(_first(work.again_from, done.left), late)
        if again is not None:
            settled = work.settled or await db.revocations.is_settled(revocation, now)
            await db.revocations.note(
                revocation,
                now,
                ended=done.ended,
                looked_at=stretch.looked_at,
                cursor=_before(again),
                again_from=None,
                listed=work.listed,
                settled=settled,
            )
            return Step.NOTHING, None
        await db.revocations.note(
            revocation, now, ended=done.ended, looked_at=stretch.looked_at, listed=work.listed, settled=True
        )
        finished = await db.revocations.finish(revocation, RevocationState.DONE, now)
        await db.revocations.wait_for_disk()
        client = replace(NO_CLIENT, request_id=revocation.id)
        await db.audit.add(over_event(Action.REVOCATION_FINISHED, finished, actor_of(finished), client), at=now)
        return Step.FINISHED, finished


def _first(one: UUID | None, other: UUID | None) -> UUID | None:
    return min((each for each in (one, other) if each is not None), default=None)


def _before(place: UUID) -> UUID:
    return UUID(int=max(place.int - 1, 0))
