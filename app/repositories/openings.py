"""
How a session is written: the cap is looked at, the row and its event go in, in one round trip.

Written as SQL, and not built for each sign-in: beside the hash, building and sending four statements was what a sign-in
cost most.
"""

from dataclasses import fields
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.events import Event
from app.domain.families import Family
from app.repositories.audit import EVENT_VALUES, AuditRepository

_FAMILY: Final = tuple(field.name for field in fields(Family))
_COUNT: Final = len(_FAMILY) + 1 + len(EVENT_VALUES)


def _parameters(first: int, number: int) -> str:
    return ", ".join(f"${place}" for place in range(first, first + number))


# The user's row has been locked by a statement before this one, so that this one sees all sessions of sign-ins that
# held the lock earlier: no two of them pass the cap together.
OPEN: Final = f"""
WITH live AS (
  SELECT count(*) AS number FROM families
   WHERE user_id = ${_FAMILY.index("user_id") + 1} AND ended_at IS NULL
     AND idle_expires_at > ${_COUNT + 1}::timestamptz AND expires_at > ${_COUNT + 1}::timestamptz
), opened AS (
  INSERT INTO families ({", ".join(_FAMILY)}, seed)
  SELECT {_parameters(1, len(_FAMILY) + 1)} FROM live WHERE number < ${_COUNT + 2}::int OR ${_COUNT + 2} = 0
  RETURNING id
), logged AS (
  INSERT INTO audit_events ({", ".join(EVENT_VALUES)})
  SELECT {_parameters(len(_FAMILY) + 2, len(EVENT_VALUES))} FROM opened
)
SELECT id FROM opened
"""  # noqa: S608 - names of our own columns


class OpeningRepository:
    def __init__(self, db: AsyncConnection, audit: AuditRepository) -> None:
        self._db = db
        self._audit = audit

    async def add(self, family: Family, seed: bytes, created: Event, *, limit: int, now: datetime) -> bool:
        """
        Write a family and its event, unless the user has as many active ones as may be. The caller holds their lock.

        Args:
            limit: How many that is; 0 for as many as they like.
        Returns:
            Whether it was written.
        Raises:
            ValueError: an event that the vocabulary does not know.
        """
        columns = tuple(getattr(family, name) for name in _FAMILY)
        values = (*columns, seed, *self._audit.values_of(created, now), now, limit)
        opened = (await self._db.exec_driver_sql(OPEN, values)).one_or_none() is not None
        if opened:
            self._audit.note_added(created)
        return opened
