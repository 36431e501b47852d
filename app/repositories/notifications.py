"""The outbox of what people are to be told."""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from app.domain.notifications import Notification, NotificationKind
from app.models import NotificationRow, UserRow

N = NotificationRow


class NotificationRepository:
    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def add(self, user_id: UUID, kind: NotificationKind, *, now: datetime) -> None:
        """In the transaction of what is to be told; the caller holds the user's lock."""
        values = {"user_id": user_id, "id": uuid7(), "kind": kind, "created_at": now}
        await self._db.execute(insert(N).values(values))

    async def list_pending(self, *, after: UUID | None, limit: int) -> list[Notification]:
        """
        What is to be told, oldest first, by the age of its id.

        One that commits late may stand before others that were read already. It is pending then, and whoever begins
        anew without `after` finds it; nobody may remember how far they have read instead.
        """
        found = (
            select(N.id, N.user_id, UserRow.username, N.kind, N.created_at)
            .join(UserRow, UserRow.id == N.user_id)
            .where(UserRow.deleted_at.is_(None))  # a release that does not know this table leaves rows behind
            .order_by(N.id)
            .limit(limit)
        )
        if after is not None:
            found = found.where(N.id > after)
        rows = await self._db.execute(found)
        return [
            Notification(row_id, user_id, username, NotificationKind(kind), created_at)
            for row_id, user_id, username, kind, created_at in rows
        ]

    async def acknowledge(self, ids: Collection[UUID]) -> list[tuple[UUID, UUID, NotificationKind]]:
        """
        Remove those of them that are pending; their ids, users and kinds. Of two at once, one removes each.

        Locked in order of id, so that two mailers with the same list do not wait for each other in a circle.
        """
        due = select(N.user_id, N.id).where(N.id.in_(ids)).order_by(N.id).with_for_update().cte("due")
        gone = delete(N).where(N.user_id == due.c.user_id, N.id == due.c.id)
        rows = await self._db.execute(gone.returning(N.id, N.user_id, N.kind))
        return sorted((row_id, user_id, NotificationKind(kind)) for row_id, user_id, kind in rows)

    async def remove_of(self, user_id: UUID) -> None:
        """Nobody is to be told any more. The caller holds the user's lock."""
        await self._db.execute(delete(N).where(N.user_id == user_id))

    async def delete_old(self, before: datetime, *, limit: int) -> int:
        """Remove those created before a time, of the oldest ids; how many there were."""
        oldest = select(N.user_id, N.id).where(N.created_at < before).order_by(N.id).limit(limit)
        old = oldest.with_for_update(skip_locked=True).cte("old")
        gone = delete(N).where(N.user_id == old.c.user_id, N.id == old.c.id)
        return (await self._db.execute(gone)).rowcount
