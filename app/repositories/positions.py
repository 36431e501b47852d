"""How far a primary has written, and how far a standby has come."""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

_WRITTEN: Final = """
SELECT pg_current_wal_flush_lsn()::text AS position, (pg_control_system()).system_identifier AS cluster
"""
_REPLAYED: Final = """
SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()::text END AS position,
       (pg_control_system()).system_identifier AS cluster
"""


@dataclass(frozen=True, slots=True)
class WalPosition:
    """
    A place in a cluster's log.

    Args:
        cluster: A standby has its primary's; a copy that was promoted keeps it.
        at: In bytes from the beginning; `None`: not a standby, so what it has is not only the primary's.
    """

    cluster: int
    at: int | None


class PositionRepository:
    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def get_written(self) -> WalPosition:
        """Of a primary: all that was committed for good by now stands before it."""
        return await self._get(_WRITTEN)

    async def get_replayed(self) -> WalPosition:
        """Of a standby: all before it can be read there."""
        return await self._get(_REPLAYED)

    async def _get(self, statement: str) -> WalPosition:
        row: Any = (await self._db.exec_driver_sql(statement)).one()
        return WalPosition(row.cluster, None if row.position is None else _bytes(row.position))


def _bytes(position: str) -> int:
    """PostgreSQL's spelling: the upper and the lower half, in hexadecimal."""
    high, low = position.split("/")
    return (int(high, 16) << 32) + int(low, 16)
