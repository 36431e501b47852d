"""Who uses which secret, as far as the trail and the tables tell."""

import json
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.events import Action
from app.domain.key_calendar import Start
from app.models import AuditEventRow

STARTS_LIMIT: Final = 1000  # of a server, the newest: those of the last change of secrets and many more

# A token is minted with each sign-in and each rotation; both write the time.
SESSIONS: Final = """
SELECT count(*) FROM families
 WHERE ended_at IS NULL AND coalesce(rotated_at, created_at) < :since AND idle_expires_at > :now AND expires_at > :now
"""
UNSPENT: Final = "SELECT count(*) FROM password_tokens WHERE created_at < :since AND expires_at > :now"
CLIENTS: Final = """
SELECT key_id, count(DISTINCT id) FROM (
  SELECT id, secret_key_id AS key_id FROM api_clients
  UNION ALL
  SELECT id, former_secret_key_id FROM api_clients
   WHERE former_secret_expires_at IS NULL OR former_secret_expires_at > :now
) AS used WHERE key_id IS NOT NULL GROUP BY key_id
"""


class KeyUserRepository:
    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def list_starts(self) -> list[Start]:
        """Starts of servers, the newest first."""
        rows = await self._newest(Action.SERVER_STARTED, STARTS_LIMIT)
        return [Start(at, tuple(json.loads(detail)["key_ids"])) for at, detail in rows]

    async def find_last_stop(self) -> datetime | None:
        rows = await self._newest(Action.SERVER_STOPPED, 1)
        return rows[0][0] if rows else None

    async def count_sessions(self, since: datetime, now: datetime) -> int:
        """Live sessions whose refresh token was made before; walks all live ones."""
        return await self._count(SESSIONS, since, now)

    async def count_password_tokens(self, since: datetime, now: datetime) -> int:
        return await self._count(UNSPENT, since, now)

    async def count_clients(self, now: datetime) -> dict[int, int]:
        """API clients by the key id under which a secret of theirs is hashed."""
        rows = (await self._db.execute(text(CLIENTS), {"now": now})).all()
        return {row[0]: row[1] for row in rows}

    async def _newest(self, action: Action, limit: int) -> list[Any]:
        found = select(AuditEventRow.occurred_at, AuditEventRow.detail).where(AuditEventRow.action == action)
        return list((await self._db.execute(found.order_by(AuditEventRow.occurred_at.desc()).limit(limit))).all())

    async def _count(self, statement: str, since: datetime, now: datetime) -> int:
        counted: int = (await self._db.execute(text(statement), {"since": since, "now": now})).scalar_one()
        return counted
