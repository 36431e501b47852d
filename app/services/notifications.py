"""The outbox of what people are to be told, as mailers empty it."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from app.domain.canonical_json import JsonValue
from app.domain.clients import ClientContext
from app.domain.entries import moment
from app.domain.errors import InputInvalid
from app.domain.events import NO_CLIENT, SYSTEM, Action, Actor, Event
from app.domain.jobs import Done
from app.domain.notifications import ACKNOWLEDGE_MAXIMUM, KEPT, Notification
from app.observability.logs import get_logger
from app.repositories.database import Database
from app.services.admin_reads import AdminReads

log = get_logger()

BATCH: Final = 2000


class Notifications:
    """
    Each is handed out until somebody acknowledges it: at least once, and to two mailers at once if both ask.

    What a mailer acknowledges after it has sent it may be sent twice, and is never lost.
    """

    def __init__(self, database: Database, admin_reads: AdminReads) -> None:
        self._database = database
        self._admin_reads = admin_reads

    async def list_pending(self, *, after: UUID | None, limit: int) -> tuple[list[Notification], UUID | None]:
        """
        What is to be told, oldest first, and where the next page begins; `None`: there is none.

        `after` goes past those that cannot be told now. Who looks for new ones begins without it: one that was
        committed late may stand before others that were read already.
        """
        async with self._database.begin() as db:
            rows = await db.notifications.list_pending(after=after, limit=limit + 1)
        return rows[:limit], rows[limit - 1].id if len(rows) > limit else None

    async def look(
        self, *, after: UUID | None, limit: int, actor: Actor, client: ClientContext
    ) -> tuple[list[Notification], UUID | None]:
        """The same for a person, who is no mailer: that they looked is an event."""
        found, following = await self.list_pending(after=after, limit=limit)
        await self._admin_reads.record("notifications", {}, len(found), actor=actor, client=client)
        return found, following

    async def acknowledge(self, ids: Sequence[UUID], *, actor: Actor, client: ClientContext) -> int:
        """
        Take those of them that are pending out of the outbox; how many there were. The others are so already.

        Raises:
            InputInvalid: none at all, or more than `ACKNOWLEDGE_MAXIMUM`.
        """
        if not 1 <= len(ids) <= ACKNOWLEDGE_MAXIMUM:
            raise InputInvalid(f"ids must have 1 to {ACKNOWLEDGE_MAXIMUM} items.", field="ids")
        async with self._database.begin() as db:
            gone = await db.notifications.acknowledge(ids)
            events = [
                Event(
                    Action.NOTIFICATION_ACKNOWLEDGED,
                    actor,
                    client,
                    subject_id=user_id,
                    detail={"kind": kind.value, "notification": str(notification_id)},
                )
                for notification_id, user_id, kind in gone
            ]
            if events:
                await db.audit.add(*events, at=await db.now())
            await db.commit()
        log.info(Action.NOTIFICATION_ACKNOWLEDGED, acknowledged=len(gone))
        return len(gone)

    async def remove_old(self) -> Done:
        """Remove what has not been fetched for so long that it is no news any more."""
        async with self._database.begin() as db:
            now = await db.now()
            before = now - KEPT
            removed = await db.notifications.delete_old(before, limit=BATCH)
            if removed:
                detail: dict[str, JsonValue] = {"before": moment(before), "count": removed}
                await db.audit.add(Event(Action.NOTIFICATION_REMOVED, SYSTEM, NO_CLIENT, detail=detail), at=now)
            await db.commit()
        if removed:
            log.warning(Action.NOTIFICATION_REMOVED, removed=removed)
        return Done(removed, more=removed == BATCH)
