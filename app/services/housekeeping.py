"""Work that nobody waits for: one bounded batch a call, one process at a time."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Final, Self
from uuid import UUID

from app.domain.canonical_json import JsonValue
from app.domain.clients import ClientContext
from app.domain.definitions import ROLLED_UP
from app.domain.entries import moment
from app.domain.errors import Unavailable
from app.domain.events import NO_CLIENT, SYSTEM, Action, Event, Outcome
from app.domain.jobs import BUSY, Done
from app.domain.throttling import Limited, told_one_by_one
from app.observability.logs import describe_failure, get_logger
from app.repositories.database import Database, UnitOfWork
from app.repositories.refusals import LoginFailureCount
from app.services.ends import end_events

log = get_logger()

BATCH: Final = 2000  # some 5 ms; ten million live sessions are walked in an hour and a half
CHANGES: Final = 250  # sessions that one batch ends or removes, their rows locked until it commits: some 30 ms
CHECK_SECONDS: Final = 1.0
PARTITIONS_AHEAD: Final = timedelta(days=90)

_START: Final = UUID(int=0)


_SUMMED_AS: Final = {limited.value: Action.LOGIN_THROTTLED for limited in Limited} | {
    Limited.EVERYWHERE.value: Action.LOGIN_FLOODED
}


def login_failure_sums(taken: Sequence[LoginFailureCount]) -> list[Event]:
    """One event for those of each kind that had none of their own."""
    return [
        Event(
            _SUMMED_AS.get(failure.reason, Action.LOGIN_FAILED),
            SYSTEM,
            ClientContext(ip_address(failure.source) if failure.source else None, None, None),
            outcome=Outcome.FAILURE,
            reason=ROLLED_UP,
            subject_id=failure.subject_id,
            detail={
                "count": failure.count - told_one_by_one(failure.reason),
                "minute": failure.minute.isoformat(),
                "of": failure.reason,
            },
        )
        for failure in taken
        if failure.count > told_one_by_one(failure.reason)
    ]


@dataclass(frozen=True, slots=True)
class _Walk:
    """A walk through a table in order of ids, batch by batch, by whichever process comes next."""

    job: str
    position: UUID
    began_at: datetime | None  # `None`: it has left something out

    @classmethod
    async def resume(cls, db: UnitOfWork, job: str, now: datetime) -> Self:
        position, began_at = await db.jobs.find_walk(job)
        return cls(job, position, began_at) if position and position != _START else cls(job, _START, now)

    async def go_on(self, db: UnitOfWork, last: UUID | None, *, rows: int, missed: int) -> Done:
        """Remember where the next batch begins; no `last`: at the beginning. `missed`: rows that others had locked."""
        began_at = None if missed else self.began_at
        await db.jobs.set_cursor(self.job, last or _START, began_at if last else None)
        return Done(rows, more=last is not None, walks=True, whole_since=None if last else began_at)


class Housekeeping:
    """Each method does one bounded batch and says how much that was, and whether there is more to do."""

    def __init__(self, database: Database, *, session_days: int = 0, legal_hold: bool = False) -> None:
        """`session_days`: how long sessions are kept after their end, 0 for ever; a legal hold keeps them all."""
        self._database = database
        self._session_days = 0 if legal_hold else session_days
        self._checking = asyncio.Lock()
        self._checked_at = -CHECK_SECONDS
        self._trouble: str | None = None

    async def end_lapsed_sessions(self) -> Done:
        """
        Write the end, and its event, of sessions past an expiry.

        Walks the live sessions in order of creation from a stored cursor and begins anew at the end, so no index on
        expiry times is needed. Nobody depends on its being on time: expiry is a fact at read time.
        """
        async with self._database.begin() as db:
            if not await db.jobs.try_lock("expiry"):
                return BUSY
            await db.jobs.limit_statements()
            now = await db.now()
            walk = await _Walk.resume(db, "expiry", now)
            live = await db.families.list_live_after(walk.position, limit=BATCH)
            over = [(user, family) for user, family, idle, absolute in live if min(idle, absolute) <= now]
            lapsed = over[:CHANGES]
            ended = await db.families.end_lapsed(lapsed, now=now) if lapsed else []
            await db.audit.add(*end_events(ended, actor=SYSTEM, client=NO_CLIENT), at=now)
            last = lapsed[-1][1] if len(over) > CHANGES else live[-1][1] if len(live) == BATCH else None
            done = await walk.go_on(db, last, rows=len(ended), missed=len(lapsed) - len(ended))
            await db.commit()
        if ended:
            log.info("sessions.lapsed", ended=len(ended))
        return done

    async def remove_ended_sessions(self) -> Done:
        """
        Remove sessions whose end is longer ago than they are kept, and say how many.

        Walks all sessions that were created before then, in that order: no index on the times of ends is needed. A
        token of one of them is refused as that of a session nobody knows.
        """
        if not self._session_days:
            return Done()
        async with self._database.begin() as db:
            if not await db.jobs.try_lock("session retention"):
                return BUSY
            await db.jobs.limit_statements()
            now = await db.now()
            before = now - timedelta(days=self._session_days)
            walk = await _Walk.resume(db, "session retention", now)
            old = await db.families.list_created_before(before, after=walk.position, limit=BATCH)
            over = [(user, family) for user, family, ended_at in old if ended_at is not None and ended_at < before]
            due = over[:CHANGES]
            removed = await db.families.remove_ended(due, before=before) if due else 0
            if removed:
                detail: dict[str, JsonValue] = {"before": moment(before), "count": removed}
                await db.audit.add(Event(Action.SESSION_REMOVED, SYSTEM, NO_CLIENT, detail=detail), at=now)
            last = due[-1][1] if len(over) > CHANGES else old[-1][1] if len(old) == BATCH else None
            done = await walk.go_on(db, last, rows=removed, missed=len(due) - removed)
            await db.commit()
        if removed:
            log.info(Action.SESSION_REMOVED, removed=removed)
        return done

    async def sum_up_refusals(self) -> Done:
        """Turn the counts of past minutes into one event each, for the refusals beyond the first of each minute."""
        async with self._database.begin() as db:
            now = await db.now()
            taken = await db.refusals.take_batch(now.replace(second=0, microsecond=0), limit=BATCH)
            events = [
                Event(
                    refusal.action,
                    SYSTEM,
                    NO_CLIENT,
                    outcome=Outcome.FAILURE,
                    reason=ROLLED_UP,
                    subject_id=refusal.user_id,
                    family_id=refusal.family_id,
                    detail={"count": refusal.count - 1, "minute": refusal.minute.isoformat()},
                )
                for refusal in taken
                if refusal.count > 1
            ]
            await db.audit.add(*events, at=now)
            await db.commit()
        return Done(len(taken), more=len(taken) == BATCH)

    async def sum_up_login_failures(self) -> Done:
        """The same for failed sign-ins beyond the first few that were alike."""
        async with self._database.begin() as db:
            now = await db.now()
            taken = await db.refusals.take_login_batch(now.replace(second=0, microsecond=0), limit=BATCH)
            await db.audit.add(*login_failure_sums(taken), at=now)
            await db.commit()
        return Done(len(taken), more=len(taken) == BATCH)

    async def remove_old_throttles(self) -> Done:
        """Remove counts of failed sign-ins that say nothing any more, so that made-up names do not pile up."""
        async with self._database.begin() as db:
            removed = await db.throttles.delete_stale(await db.now(), limit=BATCH)
            await db.commit()
        return Done(removed, more=removed >= BATCH)

    async def make_partitions(self) -> Done:
        """Keep the trail's partitions made `PARTITIONS_AHEAD`: a month without one could not sign anybody in."""
        async with self._database.begin() as db:
            made = await db.partitions.make(await db.now() + PARTITIONS_AHEAD)
            await db.commit()
        if made:
            log.info("partitions.made", made=made)
        return Done(made)

    async def check_writable(self) -> None:
        """
        Say so if changes cannot be made now: an event is written, and taken back.

        Tried at most once a second; whoever asks more often gets the last finding.

        Raises:
            Unavailable: the database does not answer, or the trail cannot be written.
        """
        async with self._checking:
            now = asyncio.get_running_loop().time()
            if now - self._checked_at >= CHECK_SECONDS:
                self._trouble = await self.try_trail()
                self._checked_at = now
        if self._trouble is not None:
            raise Unavailable(why=self._trouble)

    async def try_trail(self) -> str | None:
        """What is in the way of writing, or `None`."""
        try:
            async with self._database.begin() as db:
                await db.audit.add(Event(Action.AUDIT_HEARTBEAT, SYSTEM, NO_CLIENT), at=await db.now())
        except Unavailable as error:
            return error.why or error.code
        except Exception as error:  # noqa: BLE001 - whatever keeps an event from being written
            log.error("trail.not_writable", **describe_failure(error))
            return "the trail cannot be written"
        return None
