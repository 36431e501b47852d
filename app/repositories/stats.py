"""
Counting the trail, and reading the counts.

The count is one statement: horizon, scan, sums and the place up to which it came are of one snapshot and commit
together, so each event is counted exactly once, whatever is killed when. The order is that of sealing (`seals.py`).
Only the holder of the job's lock writes here, so what a statement reads before it adds is what it adds to.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.definitions import ROLLED_UP
from app.domain.entries import SealedFields
from app.domain.events import Action, Outcome
from app.domain.stats import Active, Span, Top, Width
from app.repositories.seals import Place

LAPSED_LIMIT: Final = 5000  # live sessions looked at for an answer, the oldest first
WAITING_LIMIT: Final = 1000
TOP: Final = 10
_TOP_ROWS: Final = 5000  # read for a list of the largest, over all hours and days of the range
_TOP_ROWS_LEAST: Final = 20  # of each
_LOOKUPS: Final = 2000  # of the best of them, in each hour and day
_CANDIDATES: Final = (12, 50)  # how many that is, at least and at most

# How an event counts. A sum counts as often as it says, under the reason that all had. Its detail is canonical JSON,
# so the text of a member is the member, and no other text can make the statement fail.
REASON: Final = f"""
CASE WHEN e.reason = '{ROLLED_UP}' THEN coalesce(substring(e.detail FROM '"of":"([a-z_]+)"'), e.reason)
     ELSE coalesce(e.reason, '') END"""
TIMES: Final = f"""
CASE WHEN e.reason = '{ROLLED_UP}' THEN coalesce(substring(e.detail FROM '"count":([0-9]{{1,9}})')::bigint, 1)
     ELSE 1 END"""
IS_FAILURE: Final = f"e.outcome = '{Outcome.FAILURE}' AND e.action NOT LIKE 'audit.%'"
# Of IPv6 a household has a /64, and failures that are alike are summed up by it.
SOURCES: Final = """
(VALUES ('address', coalesce(CASE family(e.ip) WHEN 6 THEN host(network(set_masklen(e.ip, 64))) || '/64'
                             ELSE host(e.ip) END, '')),
        ('agent', coalesce(e.user_agent, '')))"""
WIDTHS: Final = f"(VALUES ('{Width.HOUR}'), ('{Width.DAY}'))"

_UP_TO_HORIZON: Final = """
e.epoch = $1 AND (e.xact_id, e.seq) > ($2::text::xid8, $3)
     AND e.xact_id < (SELECT pg_snapshot_xmin(pg_current_snapshot()))"""
# Of former epochs everything has committed.
_OF_FORMER: Final = "(e.epoch, e.xact_id, e.seq) > ($1, $2::text::xid8, $3) AND e.epoch < $6"

_COUNT: Final = f"""
WITH e AS MATERIALIZED (
  SELECT e.epoch, e.xact_id, e.seq, e.occurred_at, e.action, e.outcome, {REASON} AS reason, {TIMES} AS times,
         e.subject_id, e.ip, e.user_agent
    FROM audit_events AS e
   WHERE @which
   ORDER BY e.epoch, e.xact_id, e.seq LIMIT $4
), counted AS (
  INSERT INTO stat_counts AS s (width, start, action, outcome, reason, count)
  SELECT w.width, date_trunc(w.width, e.occurred_at, 'UTC'), e.action, e.outcome, e.reason, sum(e.times)
    FROM e CROSS JOIN {WIDTHS} AS w (width) GROUP BY 1, 2, 3, 4, 5
  ON CONFLICT (width, start, action, outcome, reason) DO UPDATE SET count = s.count + excluded.count
), sourced AS (
  INSERT INTO stat_sources AS s (width, kind, start, value, count)
  SELECT w.width, k.kind, date_trunc(w.width, e.occurred_at, 'UTC'), k.value, sum(e.times)
    FROM e CROSS JOIN {WIDTHS} AS w (width) CROSS JOIN LATERAL {SOURCES} AS k (kind, value)
   WHERE {IS_FAILURE} GROUP BY 1, 2, 3, 4
  ON CONFLICT (width, kind, start, value) DO UPDATE SET count = s.count + excluded.count
), moved AS (
  SELECT m.subject_id, m.step, coalesce(u.open, 0) AS open
    FROM (SELECT subject_id, sum(CASE action WHEN '{Action.SESSION_CREATED}' THEN 1 ELSE -1 END)::integer AS step
            FROM e WHERE action IN ('{Action.SESSION_CREATED}', '{Action.SESSION_ENDED}') GROUP BY subject_id) AS m
    LEFT JOIN stat_users AS u ON u.user_id = m.subject_id
   WHERE m.step <> 0
), kept AS (
  INSERT INTO stat_users AS u (user_id, open) SELECT subject_id, open + step FROM moved WHERE open + step <> 0
  ON CONFLICT (user_id) DO UPDATE SET open = excluded.open
), gone AS (
  DELETE FROM stat_users AS u USING moved AS m WHERE u.user_id = m.subject_id AND m.open + m.step = 0
)
UPDATE stat_positions AS p
   SET epoch = l.epoch, xact = l.xact_id, seq = l.seq, events = p.events + l.told, counted_at = $5,
       open_sessions = p.open_sessions + (SELECT coalesce(sum(step), 0) FROM moved),
       open_users = p.open_users + (SELECT coalesce(sum((open + step > 0)::integer - (open > 0)::integer), 0)
                                      FROM moved)
  FROM (SELECT epoch, xact_id, seq, count(*) OVER () AS told FROM e
         ORDER BY epoch DESC, xact_id DESC, seq DESC LIMIT 1) AS l
 WHERE (p.epoch, p.xact, p.seq) = ($1, $2::text::xid8, $3)
RETURNING l.told
"""  # noqa: S608 - constants
COUNT: Final = _COUNT.replace("@which", _UP_TO_HORIZON)
COUNT_FORMER: Final = _COUNT.replace("@which", _OF_FORMER)

POSITION: Final = "SELECT epoch, xact::text, seq FROM stat_positions"
# Ids of transactions that begin anew are those of another cluster: nothing would ever be past the place again.
IS_OF_THIS_CLUSTER: Final = "SELECT $1::text::xid8 < pg_snapshot_xmax(pg_current_snapshot())"

# What is visible and not counted. An event that commits later cannot be seen, and is later than this answer.
STANDING: Final = f"""
SELECT p.open_sessions, p.open_users, u.waiting, u.oldest
  FROM stat_positions AS p
 CROSS JOIN LATERAL (
   SELECT count(*) AS waiting, min(occurred_at) AS oldest FROM (
     SELECT e.occurred_at FROM audit_events AS e WHERE (e.epoch, e.xact_id, e.seq) > (p.epoch, p.xact, p.seq)
      ORDER BY e.epoch, e.xact_id, e.seq LIMIT {WAITING_LIMIT}) AS next) AS u
"""  # noqa: S608 - a constant
LAPSED: Final = f"""
WITH live AS (
  SELECT user_id, least(idle_expires_at, expires_at) <= $1::timestamptz AS lapsed
    FROM families WHERE ended_at IS NULL ORDER BY id LIMIT {LAPSED_LIMIT} + 1
), lapsed AS (
  SELECT user_id, count(*) AS count FROM live WHERE lapsed GROUP BY user_id
)
SELECT (SELECT count(*) FROM live), coalesce(sum(l.count), 0)::bigint,
       count(*) FILTER (WHERE l.count >= (SELECT open FROM stat_users AS u WHERE u.user_id = l.user_id))
  FROM lapsed AS l
"""  # noqa: S608 - a constant
SERIES: Final = f"""
SELECT start, action, CASE WHEN action = '{Action.SESSION_ENDED}' THEN reason ELSE '' END, sum(count)::bigint
  FROM stat_counts
 WHERE width = $1 AND start >= $2 AND start < $3
   AND (action IN ('{Action.SESSION_CREATED}', '{Action.SESSION_REFRESHED}', '{Action.SESSION_ENDED}')
        OR (outcome = '{Outcome.FAILURE}' AND action NOT LIKE 'audit.%'))
 GROUP BY 1, 2, 3
"""  # noqa: S608 - constants
# The largest of each hour and day, added up; then the best of those looked up in all hours and days, one by one: joins
# would read the whole table. `rest` is what a value that was nowhere among the largest can have at most.
TOPS: Final = f"""
WITH pieces AS (
  SELECT * FROM unnest($1::text[], $2::timestamptz[]) AS p (width, start)
), near AS MATERIALIZED (
  SELECT p.width, p.start, s.value, s.count
    FROM pieces AS p CROSS JOIN LATERAL (
      SELECT value, count FROM stat_sources
       WHERE width = p.width AND kind = $3 AND start = p.start AND value <> ''
       ORDER BY count DESC LIMIT $4) AS s
), cut AS (
  SELECT coalesce(sum(least_of), 0) AS rest
    FROM (SELECT min(count) AS least_of FROM near GROUP BY width, start HAVING count(*) = $4) AS full_ones
), ranked AS MATERIALIZED (
  SELECT value, sum(count) AS known FROM near GROUP BY value
   ORDER BY known DESC, value COLLATE "C" LIMIT $5 + 1
), told AS (
  SELECT r.value,
         (SELECT sum(found.count)::bigint
            FROM pieces AS p CROSS JOIN LATERAL (
              SELECT s.count FROM stat_sources AS s
               WHERE s.width = p.width AND s.kind = $3 AND s.start = p.start AND s.value = r.value LIMIT 1) AS found
         ) AS count
    FROM (SELECT value FROM ranked LIMIT $5) AS r
)
SELECT value, count,
       (SELECT rest FROM cut) + coalesce((SELECT known FROM ranked OFFSET $5), 0)
  FROM told ORDER BY count DESC, value COLLATE "C" LIMIT {TOP}
"""  # noqa: S608 - constants
# The counts of failures that lose their address and agent. Those not counted yet will come without.
FORGET: Final = f"""
WITH lost AS MATERIALIZED (
  SELECT w.width, k.kind, date_trunc(w.width, e.occurred_at, 'UTC') AS start, k.value, sum({TIMES}) AS count
    FROM unnest($1::uuid[], $2::timestamptz[], $3::uuid[]) AS given (subject_id, occurred_at, id)
    JOIN audit_events AS e ON (e.subject_id, e.occurred_at, e.id) = (given.subject_id, given.occurred_at, given.id)
    JOIN stat_positions AS p ON (e.epoch, e.xact_id, e.seq) <= (p.epoch, p.xact, p.seq)
   CROSS JOIN {WIDTHS} AS w (width) CROSS JOIN LATERAL {SOURCES} AS k (kind, value)
   WHERE {IS_FAILURE} AND e.commitment IS NULL AND k.value <> ''
   GROUP BY 1, 2, 3, 4
), held AS (
  SELECT l.* FROM lost AS l JOIN stat_sources AS s USING (width, kind, start, value)
), gone AS (
  DELETE FROM stat_sources AS s USING held AS h
   WHERE (s.width, s.kind, s.start, s.value) = (h.width, h.kind, h.start, h.value) AND s.count <= h.count
), less AS (
  UPDATE stat_sources AS s SET count = s.count - h.count FROM held AS h
   WHERE (s.width, s.kind, s.start, s.value) = (h.width, h.kind, h.start, h.value) AND s.count > h.count
)
INSERT INTO stat_sources AS s (width, kind, start, value, count)
SELECT width, kind, start, '', sum(count) FROM held GROUP BY 1, 2, 3
ON CONFLICT (width, kind, start, value) DO UPDATE SET count = s.count + excluded.count
"""  # noqa: S608 - constants
REMOVE_SOURCES: Final = """
DELETE FROM stat_sources WHERE ctid IN (
  SELECT ctid FROM stat_sources
   WHERE width IN ('hour', 'day') AND kind IN ('address', 'agent') AND start < $1::timestamptz LIMIT $2)
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """The running sums, and what is not in them yet: how many events, and when the oldest of them was."""

    open_sessions: int
    open_users: int
    waiting: int
    oldest_waiting: datetime | None


class StatRepository:
    """The statements are SQL: xid8, row comparisons and sums that commit with their place must be read."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def _rows(self, statement: str, *values: object) -> Sequence[Any]:
        return (await self._db.exec_driver_sql(statement, values)).all()

    async def get_position(self) -> Place:
        """Up to where the trail is counted."""
        return Place(*(await self._rows(POSITION))[0])

    async def is_of_this_cluster(self, place: Place) -> bool:
        """False if transaction ids have begun anew since then: this is a copy in another cluster."""
        return bool((await self._rows(IS_OF_THIS_CLUSTER, place.xact))[0][0])

    async def count_next(self, after: Place, *, limit: int, now: datetime) -> int:
        """
        Count the next events of the place's own epoch that have committed for good; how many. The holder of the job's
        lock.
        """
        counted = await self._rows(COUNT, after.epoch, after.xact, after.seq, limit, now)
        return counted[0][0] if counted else 0

    async def count_former(self, after: Place, *, before_epoch: int, limit: int, now: datetime) -> int:
        """The same for what is left of former epochs."""
        counted = await self._rows(COUNT_FORMER, after.epoch, after.xact, after.seq, limit, now, before_epoch)
        return counted[0][0] if counted else 0

    async def enter_epoch(self, epoch: int) -> None:
        """Begin with the first event of an epoch. The holder of the job's lock."""
        await self._rows_of("UPDATE stat_positions SET epoch = $1, xact = '0', seq = 0", epoch)

    async def _rows_of(self, statement: str, *values: object) -> int:
        return (await self._db.exec_driver_sql(statement, values)).rowcount

    async def get_standing(self) -> Standing:
        return Standing(*(await self._rows(STANDING))[0])

    async def get_active(self, standing: Standing, *, now: datetime, ends_written_until: datetime | None) -> Active:
        """Those alive: of all that have not ended, less the lapsed among the oldest `LAPSED_LIMIT`."""
        seen, lapsed, users = (await self._rows(LAPSED, now))[0]
        return Active(
            as_of=min(now, standing.oldest_waiting or now),
            sessions=max(standing.open_sessions - lapsed, 0),
            users=max(standing.open_users - users, 0),
            lapsed=lapsed,
            is_exact=seen <= LAPSED_LIMIT,
            ends_written_until=ends_written_until,
        )

    async def list_series(self, span: Span) -> list[tuple[datetime, str, str, int]]:
        """By bucket, action and, of ends, reason: how often."""
        rows = await self._rows(SERIES, span.width.value, span.since, span.until)
        return [(row[0], row[1], row[2], row[3]) for row in rows]

    async def list_top(self, kind: str, pieces: Sequence[tuple[Width, datetime]]) -> Top:
        """The addresses or agents with most failures in these hours and days together."""
        each = max(_TOP_ROWS // max(len(pieces), 1), _TOP_ROWS_LEAST)
        widths, starts = [width.value for width, _ in pieces], [start for _, start in pieces]
        candidates = min(max(_LOOKUPS // max(len(pieces), 1), _CANDIDATES[0]), _CANDIDATES[1])
        rows = await self._rows(TOPS, widths, starts, kind, each, candidates)
        items = [(row[0], row[1]) for row in rows]
        return Top(items, is_exact=not rows or rows[-1][1] >= rows[-1][2])

    async def forget_sources(self, events: Sequence[SealedFields]) -> None:
        """
        Take failures that are about to lose their address and agent out of the counts by these. The holder of the
        job's lock, before they lose them.
        """
        subjects: list[UUID] = [event.subject_id for event in events]
        times, ids = [event.occurred_at for event in events], [event.id for event in events]
        await self._rows_of(FORGET, subjects, times, ids)

    async def remove_sources(self, before: datetime, *, limit: int) -> int:
        """Remove counts by address and agent of hours and days that began before a time; how many rows."""
        return await self._rows_of(REMOVE_SOURCES, before, limit)
