"""Set-password tokens: at most one a user, of which the keyed hash is kept until it is spent."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.models import PasswordTokenRow

T = PasswordTokenRow


@dataclass(frozen=True, slots=True)
class StoredPasswordToken:
    digest: bytes
    expires_at: datetime


class PasswordTokenRepository:
    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def find(self, user_id: UUID) -> StoredPasswordToken | None:
        """The user's only token; locks nothing."""
        row = (await self._db.execute(select(T.digest, T.expires_at).where(T.user_id == user_id))).one_or_none()
        return None if row is None else StoredPasswordToken(*row)

    async def replace(self, user_id: UUID, digest: bytes, *, now: datetime, expires_at: datetime) -> None:
        """Store a token in the place of the one before it. The caller holds the user's lock."""
        values = {"digest": digest, "created_at": now, "expires_at": expires_at}
        stored = insert(T).values(user_id=user_id, **values)
        await self._db.execute(stored.on_conflict_do_update(index_elements=[T.user_id], set_=values))

    async def spend(self, user_id: UUID, digest: bytes, *, now: datetime) -> bool:
        """Remove this very token, if it is there and good. Of two at once, one does."""
        spent = delete(T).where(T.user_id == user_id, T.digest == digest, T.expires_at > now)
        return (await self._db.execute(spent)).rowcount == 1

    async def remove(self, user_id: UUID) -> None:
        """Void whatever token the user has."""
        await self._db.execute(delete(T).where(T.user_id == user_id))

    async def delete_expired(self, now: datetime, *, limit: int) -> int:
        """Remove tokens past their time; how many there were."""
        oldest = select(T.user_id).where(T.expires_at <= now).order_by(T.expires_at).limit(limit)
        # A token that takes the place of one of these meanwhile has another time, and stays.
        gone = delete(T).where(T.user_id.in_(oldest.with_for_update(skip_locked=True)), T.expires_at <= now)
        return (await self._db.execute(gone)).rowcount
