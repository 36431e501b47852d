"""What only the maintenance role may do: put commitments in the place of a person's data."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.entries import SealedFields
from app.domain.pages import Position
from app.models import AuditEventRow, AuditSaltRow, FamilyRow, UserRow
from app.repositories.audit import SEALED_FIELDS

E = AuditEventRow

REPLACE = """
UPDATE audit_events AS e SET ip = NULL, user_agent = NULL, commitment = given.commitment
  FROM unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::bytea[]) AS given (subject_id, occurred_at, id, commitment)
 WHERE (e.subject_id, e.occurred_at, e.id) = (given.subject_id, given.occurred_at, given.id) AND e.commitment IS NULL
"""


class ErasureRepository:
    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def forget_user(self, user_id: UUID, *, pseudonym: str, now: datetime) -> None:
        """
        Leave of the user's row an id, and of their sessions times and ends. The caller holds the user's lock.

        An erased user is deleted as well: a tombstone without a name.
        """
        values = {
            "username": pseudonym,
            "username_key": None,
            "password_hash": None,
            "must_change_password": False,
            "disabled_at": func.coalesce(UserRow.disabled_at, now),
            "deleted_at": func.coalesce(UserRow.deleted_at, now),
            "erased_at": now,
        }
        await self._db.execute(update(UserRow).where(UserRow.id == user_id).values(values))
        personal = ("created_ip", "last_ip", "user_agent", "device", "browser", "os", "label")
        sessions = update(FamilyRow).where(FamilyRow.user_id == user_id)
        await self._db.execute(sessions.values(dict.fromkeys(personal)))

    async def list_personal(
        self, user_id: UUID, *, of_others: bool, after: Position | None, limit: int
    ) -> list[SealedFields]:
        """Events with personal data about a user, or by them about others; oldest first."""
        whose: tuple[ColumnElement[bool], ...] = (E.subject_id == user_id,)
        if of_others:
            whose = (E.actor_id == user_id, E.actor_id != E.subject_id)
        found = select(*SEALED_FIELDS).where(*whose, or_(E.ip.is_not(None), E.user_agent.is_not(None)))
        if after is not None:
            found = found.where(tuple_(E.occurred_at, E.id) > (after.at, after.id))
        rows = await self._db.execute(found.order_by(E.occurred_at, E.id).limit(limit))
        return [SealedFields._make(row) for row in rows]

    async def replace_personal(self, events: Sequence[SealedFields], commitments: Sequence[bytes | None]) -> int:
        """Write the commitments, and nothing else; how many events changed."""
        values: Any = (
            [event.subject_id for event in events],
            [event.occurred_at for event in events],
            [event.id for event in events],
            list(commitments),
        )
        return (await self._db.exec_driver_sql(REPLACE, values)).rowcount

    async def delete_salt(self, person: UUID) -> None:
        """From now on no commitment to this person's data can be tried out."""
        await self._db.execute(delete(AuditSaltRow).where(AuditSaltRow.subject_id == person))
