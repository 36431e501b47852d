from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.events import Action
from app.models import LoginFailureRow, RefusalRow


@dataclass(frozen=True, slots=True)
class RefusalCount:
    user_id: UUID
    family_id: UUID
    action: Action
    minute: datetime
    count: int


@dataclass(frozen=True, slots=True)
class LoginFailureCount:
    subject_id: UUID
    reason: str
    source: str
    minute: datetime
    count: int


class RefusalRepository:
    """Counts refusals by family and minute: a flood of them neither fills the trail nor holds a family's row."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def count(self, user_id: UUID, family_id: UUID, action: Action, now: datetime) -> int:
        """Count one more; how many there are in this minute now."""
        first = insert(RefusalRow).values(
            user_id=user_id,
            family_id=family_id,
            action=action,
            minute=now.replace(second=0, microsecond=0),
            count=1,
        )
        more = first.on_conflict_do_update(
            index_elements=[RefusalRow.user_id, RefusalRow.family_id, RefusalRow.action, RefusalRow.minute],
            set_={"count": RefusalRow.count + 1},
        )
        total: int = (await self._db.execute(more.returning(RefusalRow.count))).scalar_one()
        return total

    async def take_batch(self, before: datetime, *, limit: int) -> list[RefusalCount]:
        """Remove and return the counts of minutes that began before a time."""
        key = (RefusalRow.user_id, RefusalRow.family_id, RefusalRow.action, RefusalRow.minute)
        done = select(*key).where(RefusalRow.minute < before).limit(limit).with_for_update(skip_locked=True).cte("done")
        taken = delete(RefusalRow).where(*(column == done.c[column.key] for column in key))
        rows = await self._db.execute(taken.returning(*key, RefusalRow.count))
        return [
            RefusalCount(user, family, Action(action), minute, count) for user, family, action, minute, count in rows
        ]

    async def count_login(self, subject_id: UUID, reason: str, source: str, now: datetime, *, times: int = 1) -> int:
        """Count one more failed sign-in, or several; how many alike there are in this minute now."""
        key = (LoginFailureRow.subject_id, LoginFailureRow.reason, LoginFailureRow.source, LoginFailureRow.minute)
        minute = now.replace(second=0, microsecond=0)
        first = insert(LoginFailureRow).values(
            subject_id=subject_id, reason=reason, source=source, minute=minute, count=times
        )
        more = first.on_conflict_do_update(index_elements=key, set_={"count": LoginFailureRow.count + times})
        total: int = (await self._db.execute(more.returning(LoginFailureRow.count))).scalar_one()
        return total

    async def take_login_batch(
        self, before: datetime | None, *, limit: int, subject_id: UUID | None = None
    ) -> list[LoginFailureCount]:
        """Remove and return the counts of minutes that began before a time, of one subject or of all; no time, all."""
        key = (LoginFailureRow.subject_id, LoginFailureRow.reason, LoginFailureRow.source, LoginFailureRow.minute)
        old = select(*key)
        if before is not None:
            old = old.where(LoginFailureRow.minute < before)
        if subject_id is not None:
            old = old.where(LoginFailureRow.subject_id == subject_id)
        done = old.limit(limit).with_for_update(skip_locked=True).cte("done")
        taken = delete(LoginFailureRow).where(*(column == done.c[column.key] for column in key))
        rows = await self._db.execute(taken.returning(*key, LoginFailureRow.count))
        return [LoginFailureCount(*row) for row in rows]
