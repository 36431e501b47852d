"""Reading users, sessions and their events side by side, in one snapshot."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.entries import moment
from app.models import AuditEventRow, FamilyRow, UserRow

# Subjects by skipping from one to the next in the primary key: one probe each, however long their trails are.
PEOPLE: Final = """
WITH RECURSIVE subjects (id, n) AS (
  (SELECT subject_id, 1 FROM audit_events WHERE subject_id > $1 ORDER BY subject_id LIMIT 1)
  UNION ALL
  SELECT (SELECT subject_id FROM audit_events WHERE subject_id > subjects.id ORDER BY subject_id LIMIT 1), n + 1
    FROM subjects WHERE id IS NOT NULL AND n < $2
), stored AS (
  SELECT id FROM users WHERE id > $1 ORDER BY id LIMIT $2
)
SELECT id FROM (SELECT id FROM subjects WHERE id IS NOT NULL UNION SELECT id FROM stored) AS people ORDER BY id LIMIT $2
"""

USER_ACTIONS: Final = (
    "user.created",
    "user.disabled",
    "user.enabled",
    "user.role_changed",
    "user.deleted",
    "subject.erased",
)
_EVENT = ("family_seq", "family_id", "subject_id", "action", "reason", "generation", "occurred_at", "detail")


@dataclass(frozen=True, slots=True)
class StoredUser:
    id: UUID
    disabled: bool
    role: str


@dataclass(frozen=True, slots=True)
class StoredFamily:
    id: UUID
    user_id: UUID
    event_seq: int
    generation: int
    end_reason: str | None
    ended_at: datetime | None


class ReconciliationRepository:
    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def list_people(self, *, after: UUID, limit: int) -> list[UUID]:
        """Those who have a row or events, by id."""
        return list((await self._db.exec_driver_sql(PEOPLE, (after, limit))).scalars())

    async def list_users(self, people: Sequence[UUID]) -> list[StoredUser]:
        found = select(UserRow.id, UserRow.disabled_at.is_not(None), UserRow.role).where(UserRow.id.in_(people))
        return [StoredUser(*row) for row in await self._db.execute(found)]

    async def list_families(self, people: Sequence[UUID]) -> list[StoredFamily]:
        columns = (
            FamilyRow.id,
            FamilyRow.user_id,
            FamilyRow.event_seq,
            FamilyRow.generation,
            FamilyRow.end_reason,
            FamilyRow.ended_at,
        )
        found = select(*columns).where(FamilyRow.user_id.in_(people))
        return [StoredFamily(*row) for row in await self._db.execute(found)]

    async def list_events(self, people: Sequence[UUID]) -> list[dict[str, Any]]:
        """What states are made of, oldest first."""
        found = select(*(getattr(AuditEventRow, name) for name in _EVENT)).where(
            AuditEventRow.subject_id.in_(people),
            AuditEventRow.family_seq.is_not(None) | AuditEventRow.action.in_(USER_ACTIONS),
        )
        rows = await self._db.execute(found.order_by(AuditEventRow.occurred_at, AuditEventRow.seq))
        return [
            {
                **dict(zip(_EVENT, row, strict=True)),
                "occurred_at": moment(row.occurred_at),
                "detail": json.loads(row.detail) if row.detail else {},
            }
            for row in rows
        ]

    async def estimate_users(self) -> int:
        """About how many users there are."""
        estimated = text("SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'users'::regclass")
        count: int = (await self._db.execute(estimated)).scalar_one()
        return count
