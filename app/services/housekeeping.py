"""Work that nobody waits for: one bounded batch a call, one process at a time."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from ipaddress import ip_address
from typing import Final
from uuid import UUID

from app.domain.clients import ALIKE_FAILURES, ClientContext
from app.domain.errors import Unavailable
from app.domain.events import NO_CLIENT, SYSTEM, Action, Event, Outcome
from app.domain.vocabulary import ROLLED_UP
from app.observability.logs import describe_failure, get_logger
from app.repositories.database import Database
from app.repositories.refusals import LoginFailureCount
from app.services.ends import end_events

log = get_logger()

BATCH: Final = 2000  # some 5 ms; ten million live sessions are walked in an hour and a half
CHECK_SECONDS: Final = 1.0
PARTITIONS_AHEAD: Final = timedelta(days=90)

_START: Final = UUID(int=0)


def login_failure_sums(taken: Sequence[LoginFailureCount]) -> list[Event]:
    """One event for those of each kind that had none of their own."""
    return [
        Event(
            Action.LOGIN_FAILED,
            SYSTEM,
            ClientContext(ip_address(failure.source) if failure.source else None, None, None),
            outcome=Outcome.FAILURE,
            reason=ROLLED_UP,
            subject_id=failure.subject_id,
            detail={
                "count": failure.count - ALIKE_FAILURES,
                "minute": failure.minute.isoformat(),
                "of": failure.reason,
            },
        )
        for failure in taken
        if failure.count > ALIKE_FAILURES
    ]


class Housekeeping:
    """Each method returns whether there is more to do."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._checking = asyncio.Lock()
        self._checked_at = -CHECK_SECONDS
        self._trouble: str | None = None

    async def end_lapsed_sessions(self) -> bool:
        """
        Write the end, and its event, of sessions past an expiry.

        Walks the live sessions in order of creation from a stored cursor and begins anew at the end, so no index on
        expiry times is needed. Nobody depends on its being on time: expiry is a fact at read time.
        """
        async with self._database.begin() as db:
            if not await db.jobs.try_lock("expiry"):
                return False
            now = await db.now()
            position = await db.jobs.find_cursor("expiry") or _START
            live = await db.families.list_live_after(position, limit=BATCH)
            lapsed = [(user, family) for user, family, idle, absolute in live if min(idle, absolute) <= now]
            ended = await db.families.end_lapsed(lapsed, now=now) if lapsed else []
            await db.audit.add(*end_events(ended, actor=SYSTEM, client=NO_CLIENT), at=now)
            more = len(live) == BATCH
            await db.jobs.set_cursor("expiry", live[-1][1] if more else _START)
            await db.commit()
        if ended:
            log.info("sessions.lapsed", ended=len(ended))
        return more

    async def sum_up_refusals(self) -> bool:
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
        return len(taken) == BATCH

    async def sum_up_login_failures(self) -> bool:
        """The same for failed sign-ins beyond the first few that were alike."""
        async with self._database.begin() as db:
            now = await db.now()
            taken = await db.refusals.take_login_batch(now.replace(second=0, microsecond=0), limit=BATCH)
            await db.audit.add(*login_failure_sums(taken), at=now)
            await db.commit()
        return len(taken) == BATCH

    async def make_partitions(self) -> bool:
        """Keep the trail's partitions made `PARTITIONS_AHEAD`: a month without one could not sign anybody in."""
        async with self._database.begin() as db:
            made = await db.partitions.make(await db.now() + PARTITIONS_AHEAD)
            await db.commit()
        if made:
            log.info("partitions.made", made=made)
        return False

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
                self._trouble = await self._try_trail()
                self._checked_at = now
        if self._trouble is not None:
            raise Unavailable(why=self._trouble)

    async def _try_trail(self) -> str | None:
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
