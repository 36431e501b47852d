"""Recounting the trail and the sessions beside the counts, each step in one statement and so in one snapshot."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.events import Action
from app.domain.stats import Width
from app.repositories.stats import IS_FAILURE, REASON, SOURCES, TIMES

Differences = list[tuple[str, str]]

_COUNTED: Final = "JOIN stat_positions AS p ON (e.epoch, e.xact_id, e.seq) <= (p.epoch, p.xact, p.seq)"
_IN_HOUR: Final = "e.occurred_at >= $1::timestamptz AND e.occurred_at < $1::timestamptz + interval '1 hour'"

# From the first event that is there. Older counts are of events that retention has removed; without that, of none.
BOUNDS: Final = f"""
SELECT least(t.first, CASE WHEN NOT EXISTS (SELECT FROM audit_logs WHERE minimum_index > 0) THEN c.first END),
       greatest(t.last, c.last)
  FROM (SELECT min(occurred_at) AS first, max(occurred_at) AS last FROM audit_events) AS t,
       (SELECT min(start) AS first, max(start) AS last FROM stat_counts WHERE width = '{Width.HOUR}') AS c
"""  # noqa: S608 - a constant
TOTALS: Final = """
SELECT p.open_sessions, p.open_users, u.sessions, u.users
  FROM stat_positions AS p,
       (SELECT coalesce(sum(open), 0)::bigint AS sessions, count(*) FILTER (WHERE open > 0) AS users
          FROM stat_users) AS u
"""
COUNTS: Final = f"""
WITH told AS (
  SELECT e.action, e.outcome, {REASON} AS reason, sum({TIMES})::bigint AS count, count(*) AS events
    FROM audit_events AS e {_COUNTED} WHERE {_IN_HOUR} GROUP BY 1, 2, 3
), kept AS (
  SELECT action, outcome, reason, count FROM stat_counts WHERE width = '{Width.HOUR}' AND start = $1
)
SELECT action, outcome, reason, coalesce(told.count, 0), coalesce(kept.count, 0), coalesce(told.events, 0)
  FROM told FULL JOIN kept USING (action, outcome, reason)
"""  # noqa: S608 - constants
COUNTED_SOURCES: Final = f"""
WITH told AS (
  SELECT k.kind, k.value, sum({TIMES})::bigint AS count
    FROM audit_events AS e {_COUNTED} CROSS JOIN LATERAL {SOURCES} AS k (kind, value)
   WHERE {_IN_HOUR} AND {IS_FAILURE} GROUP BY 1, 2
), kept AS (
  SELECT kind, value, count FROM stat_sources
   WHERE width = '{Width.HOUR}' AND kind IN ('address', 'agent') AND start = $1
)
SELECT kind, coalesce(told.count, 0), coalesce(kept.count, 0) FROM told FULL JOIN kept USING (kind, value)
 WHERE told.count IS DISTINCT FROM kept.count LIMIT 100
"""  # noqa: S608 - constants
DAY: Final = """
WITH hours AS (
  SELECT action, outcome, reason, sum(count)::bigint AS count FROM stat_counts
   WHERE width = 'hour' AND start >= $1::timestamptz AND start < $1::timestamptz + interval '1 day' GROUP BY 1, 2, 3
), day AS (
  SELECT action, outcome, reason, count FROM stat_counts WHERE width = 'day' AND start = $1
)
SELECT action, coalesce(hours.count, 0), coalesce(day.count, 0)
  FROM hours FULL JOIN day USING (action, outcome, reason) WHERE hours.count IS DISTINCT FROM day.count
"""
DAY_SOURCES: Final = """
WITH hours AS (
  SELECT kind, value, sum(count)::bigint AS count FROM stat_sources
   WHERE width = 'hour' AND kind IN ('address', 'agent')
     AND start >= $1::timestamptz AND start < $1::timestamptz + interval '1 day' GROUP BY 1, 2
), day AS (
  SELECT kind, value, count FROM stat_sources
   WHERE width = 'day' AND kind IN ('address', 'agent') AND start = $1
)
SELECT kind, coalesce(hours.count, 0), coalesce(day.count, 0)
  FROM hours FULL JOIN day USING (kind, value) WHERE hours.count IS DISTINCT FROM day.count LIMIT 100
"""
# A user's live sessions are what is counted and what has happened since.
USERS: Final = f"""
WITH page AS MATERIALIZED (
  SELECT id FROM (
    (SELECT user_id AS id FROM stat_users WHERE user_id > $1 ORDER BY user_id LIMIT $2)
    UNION
    (SELECT DISTINCT user_id FROM families WHERE ended_at IS NULL AND user_id > $1 ORDER BY user_id LIMIT $2)
  ) AS both_of_them ORDER BY id LIMIT $2
), live AS (
  SELECT user_id, count(*) AS count FROM families
   WHERE ended_at IS NULL AND user_id > $1 AND user_id <= (SELECT id FROM page ORDER BY id DESC LIMIT 1)
   GROUP BY user_id
), since AS (
  SELECT e.subject_id, sum(CASE e.action WHEN '{Action.SESSION_CREATED}' THEN 1 ELSE -1 END) AS step
    FROM audit_events AS e JOIN stat_positions AS p ON (e.epoch, e.xact_id, e.seq) > (p.epoch, p.xact, p.seq)
   WHERE e.action IN ('{Action.SESSION_CREATED}', '{Action.SESSION_ENDED}') GROUP BY e.subject_id
)
SELECT page.id, coalesce(live.count, 0) - coalesce(since.step, 0), coalesce(kept.open, 0)
  FROM page LEFT JOIN live ON live.user_id = page.id LEFT JOIN since ON since.subject_id = page.id
  LEFT JOIN stat_users AS kept ON kept.user_id = page.id
 ORDER BY page.id
"""  # noqa: S608 - constants


class StatCheckRepository:
    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def _rows(self, statement: str, *values: object) -> Sequence[Any]:
        return (await self._db.exec_driver_sql(statement, values)).all()

    async def find_bounds(self) -> tuple[datetime, datetime] | None:
        """From when to when there is something to compare; `None`: there is nothing."""
        first, last = (await self._rows(BOUNDS))[0]
        return None if first is None or last is None else (first, last)

    async def compare_totals(self) -> Differences:
        """The running sums against the users' counts."""
        sessions, users, sum_of_sessions, sum_of_users = (await self._rows(TOTALS))[0]
        return [
            (f"total of {what}", f"is {kept}, and the users' counts make {summed}")
            for what, kept, summed in (("sessions", sessions, sum_of_sessions), ("users", users, sum_of_users))
            if kept != summed
        ]

    async def compare_counts(self, hour: datetime) -> tuple[int, Differences]:
        """An hour of the trail: how many events, and what is counted otherwise."""
        rows = await self._rows(COUNTS, hour)
        differences = [
            (f"{action} {outcome} {reason}".rstrip() + _at(Width.HOUR, hour), _words(told, kept))
            for action, outcome, reason, told, kept, _ in rows
            if told != kept
        ]
        return sum(row[5] for row in rows), differences

    async def compare_sources(self, hour: datetime) -> Differences:
        """Where the failures of an hour came from. Which address or agent differs is not told: it is personal data."""
        rows = await self._rows(COUNTED_SOURCES, hour)
        return [(f"failures by {kind}" + _at(Width.HOUR, hour), _words(told, kept)) for kind, told, kept in rows]

    async def compare_day(self, day: datetime, *, with_sources: bool) -> Differences:
        """A day against its hours."""
        rows = list(await self._rows(DAY, day))
        if with_sources:
            rows += [(f"failures by {kind}", hours, kept) for kind, hours, kept in await self._rows(DAY_SOURCES, day)]
        return [(name + _at(Width.DAY, day), f"is {kept}, and its hours make {hours}") for name, hours, kept in rows]

    async def compare_users(self, after: UUID, *, limit: int) -> tuple[UUID | None, int, Differences]:
        """The next users by id: the last of them (`None`: there are no more), how many, and what differs."""
        rows = await self._rows(USERS, after, limit)
        differences = [(f"user {row[0]}", f"has {row[1]} live sessions, {row[2]} counted") for row in rows]
        differences = [d for d, row in zip(differences, rows, strict=True) if row[1] != row[2]]
        return (rows[-1][0] if len(rows) == limit else None), len(rows), differences


def _at(width: Width, start: datetime) -> str:
    return f", {width} {start.isoformat(timespec='minutes')}"


def _words(told: int, kept: int) -> str:
    return f"{told} by the trail, {kept} counted"
