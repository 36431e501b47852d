"""What an operator wants to know of the database, asked by probes and by whoever collects the metrics."""

from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.repositories.seals import START, Head

# Served by the index of the sealing's order. Bounded: a backlog is no reason to read it all, again and again.
UNSEALED: Final = """
SELECT count(*) FROM (
  SELECT FROM audit_events WHERE epoch = $1 AND (xact_id, seq) > ($2::text::xid8, $3)
   ORDER BY epoch, xact_id, seq LIMIT $4) AS next
"""


class FactRepository:
    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def find_read_only(self) -> str | None:
        """Why nothing can be written here, or `None`."""
        asked = text("SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'")
        standby, read_only = (await self._db.execute(asked)).one()
        if standby:
            return "the database is a standby"
        return "the database takes no writes" if read_only else None

    async def count_unsealed(self, head: Head, *, limit: int) -> int:
        """How many events of this incarnation are not sealed yet; counts no further than `limit`."""
        after = head.cursor if head.cursor.epoch == head.epoch else START
        values = (head.epoch, after.xact, after.seq, limit)
        counted: int = (await self._db.exec_driver_sql(UNSEALED, values)).scalar_one()
        return counted
