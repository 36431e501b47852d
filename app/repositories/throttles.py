"""
Counts of guesses: each is one conditional statement, so that it holds across processes and however many come at once.

What they refuse is decided in `domain/throttling.py`; a test compares the two on any state. Lock order: the rows of one
account by their key, then the address, then all together (`*`). The user's row, where it is locked, comes before them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    DateTime,
    Integer,
    Interval,
    LargeBinary,
    Text,
    TextClause,
    and_,
    bindparam,
    delete,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.throttling import DECAY, DELAY_MAXIMUM, FIRST_DELAY, SLACK, Counted, Rate, Tally
from app.domain.users import User
from app.models import AddressThrottleRow, LoginThrottleRow
from app.repositories.users import COLUMNS, read_user

if TYPE_CHECKING:
    from app.repositories.database import Database

EVERYWHERE: Final = "*"
_BESIDES: Final = 3  # values before those of the tallies: as many are asked with as are answered

L = LoginThrottleRow
A = AddressThrottleRow

_NOW: Final = ":now"
_STALE: Final = f"(t.last_failure_at <= {_NOW} - :decay OR t.last_failure_at >= {_NOW} + :decay)"
_BLOCKED: Final = f"coalesce(t.blocked_until > {_NOW} AND t.blocked_until <= {_NOW} + :longest + :slack, false)"


def _delay(failures: str) -> str:
    return f"least(:first * power(2, least({failures} - :free, 16)), :longest)"


_TYPES: Final[tuple[BindParameter[Any], ...]] = (
    bindparam("account", type_=LargeBinary),
    bindparam("way", type_=Text),
    bindparam("holder", type_=LargeBinary),
    bindparam("place", type_=Text),
    *(bindparam(name, type_=DateTime(timezone=True)) for name in ("now", "reserved_at")),
    *(bindparam(name, type_=Integer) for name in ("free", "together", "most", "more")),
    *(bindparam(name, type_=Interval) for name in ("decay", "first", "longest", "slack", "step", "window")),
    *(bindparam(name, type_=Interval) for name in ("everywhere_step", "everywhere_window")),
)


def _typed(statement: str) -> TextClause:
    return text(statement).bindparams(*(each for each in _TYPES if f":{each.key}" in statement))


RESERVE: Final = _typed(f"""
INSERT INTO login_throttle AS t (account, way, holder, failures, begun_at, last_failure_at)
VALUES (:account, :way, :holder, 1, :now, :now)
ON CONFLICT (account, way, holder) DO UPDATE
   SET failures = CASE WHEN {_STALE} THEN 1 ELSE t.failures + 1 END,
       begun_at = CASE WHEN {_STALE} THEN :now ELSE least(t.begun_at, :now) END,
       blocked_until = CASE WHEN NOT {_STALE} AND t.failures + 1 >= :together
                            THEN :now + {_delay("t.failures + 1")} END,
       last_failure_at = :now
 WHERE {_STALE} OR (t.failures < :most AND NOT {_BLOCKED})
RETURNING failures
""")  # noqa: S608 - constants of this module

# The row may have been cleared since the guess was reserved, and begun anew by another one: then this one is not in it.
_MORE: Final = "CASE WHEN t.begun_at > :reserved_at THEN 1 ELSE :more END"
FAILED: Final = _typed(f"""
INSERT INTO login_throttle AS t (account, way, holder, failures, begun_at, last_failure_at)
VALUES (:account, :way, :holder, 1, :now, :now)
ON CONFLICT (account, way, holder) DO UPDATE
   SET failures = CASE WHEN {_STALE} THEN 1 ELSE t.failures + {_MORE} END,
       begun_at = CASE WHEN {_STALE} THEN :now ELSE t.begun_at END,
       blocked_until = greatest(
         CASE WHEN {_BLOCKED} THEN t.blocked_until END,
         CASE WHEN NOT {_STALE} AND t.failures + {_MORE} >= :free
              THEN :now + {_delay(f"t.failures + {_MORE}")} END),
       last_failure_at = :now
""")  # noqa: S608 - likewise

_WINDOW: Final = f"CASE WHEN t.place = '{EVERYWHERE}' THEN :everywhere_window ELSE :window END"
_FULL_AT: Final = f"CASE WHEN t.full_at BETWEEN :now AND :now + {_WINDOW} + :slack THEN t.full_at ELSE :now END"
_NEXT: Final = f"{_FULL_AT} + (excluded.full_at - :now)"
# Address first, then all together: the order of the locks.
_PLACES: Final = {
    (True, True): f"(:place, :now + :step), ('{EVERYWHERE}', :now + :everywhere_step)",
    (True, False): "(:place, :now + :step)",
    (False, True): f"('{EVERYWHERE}', :now + :everywhere_step)",
}
_INSERT: Final = "INSERT INTO address_throttle AS t (place, full_at) VALUES"
_CONFLICT: Final = "ON CONFLICT (place) DO UPDATE SET full_at ="
TAKE: Final = {
    which: _typed(f"{_INSERT} {values} {_CONFLICT} {_NEXT} WHERE {_NEXT} <= :now + {_WINDOW} RETURNING place")
    for which, values in _PLACES.items()
}
# From whatever is there: `now` is of when the guess was counted, and a bucket that was filled since is not implausible.
PUT_BACK: Final = {
    which: _typed(f"{_INSERT} {values} {_CONFLICT} t.full_at + (excluded.full_at - :now)")
    for which, values in _PLACES.items()
}


@dataclass(frozen=True, slots=True)
class Buckets:
    """The rates that a guess counts in. `place` is the address; `None`: it has none, or only the address counts."""

    place: str | None
    address: Rate
    everywhere: Rate | None

    @property
    def which(self) -> tuple[bool, bool]:
        return self.place is not None, self.everywhere is not None

    def values(self, now: datetime, *, back: bool = False) -> dict[str, Any]:
        sign, everywhere = -1 if back else 1, self.everywhere or self.address
        return {
            "place": self.place,
            "now": now,
            "slack": SLACK,
            "step": sign * self.address.step,
            "window": self.address.window,
            "everywhere_step": sign * everywhere.step,
            "everywhere_window": everywhere.window,
        }


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a sign-in before it is begun: one read, locks nothing. Times are when a bucket is full again."""

    now: datetime
    user: User | None
    counted: tuple[Counted | None, ...]  # of each tally that was asked for
    address_full_at: datetime | None
    everywhere_full_at: datetime | None


@cache
def _looking_at(tallies: int) -> str:
    """Each row by its primary key, or the user's by the unique one of the name. No row is none, not an error."""
    counts, joins = [], []
    for number in range(tallies):
        account = _BESIDES + 3 * number + 1
        counts.append(f"t{number}.failures, t{number}.blocked_until, t{number}.last_failure_at")
        joins.append(
            f"LEFT JOIN login_throttle t{number} ON t{number}.account = ${account}"
            f" AND t{number}.way = ${account + 1} AND t{number}.holder = ${account + 2}"
        )
    columns = ", ".join([*counts, *(f"u.{column.key}" for column in COLUMNS)])
    return f"""
SELECT coalesce($1, statement_timestamp()) AS now, here.full_at, everywhere.full_at, {columns}
  FROM (SELECT 1) AS one
  LEFT JOIN users u ON u.username_key = $2
  LEFT JOIN address_throttle here ON here.place = $3
  LEFT JOIN address_throttle everywhere ON everywhere.place = '{EVERYWHERE}'
  {" ".join(joins)}
"""  # noqa: S608 - names of our own columns


class KnownRepository:
    """What is known before a guess: one statement in autocommit, since it stands before each sign-in of all."""

    def __init__(self, database: "Database") -> None:
        self._database = database

    async def find(self, username_key: str | None, tallies: Sequence[Tally], place: str | None) -> Known:
        """The user of that name, if there is one, with what is counted."""
        holders = [part for tally in tallies for part in (tally.account, tally.way, tally.holder)]
        clock = self._database.clock.for_database()
        row = await self._database.fetch_one(_looking_at(len(tallies)), clock, username_key, place, *holders)
        user = _BESIDES + 3 * len(tallies)
        counts = [row[at : at + 3] for at in range(_BESIDES, user, 3)]
        return Known(
            row[0],
            read_user(row[user:]) if row[user] is not None else None,
            tuple(Counted(*count) if count[0] is not None else None for count in counts),
            row[1],
            row[2],
        )


class ThrottleRepository:
    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def reserve(self, tally: Tally, now: datetime) -> bool:
        """Count a guess before it is looked at; false: it must not be."""
        return (await self._db.execute(RESERVE, _values(tally, now))).one_or_none() is not None

    async def note_failure(self, tally: Tally, now: datetime, *, counted: bool, reserved_at: datetime) -> None:
        """The guess was wrong: the next one is delayed. `counted`: it was reserved before, at that time."""
        await self._db.execute(FAILED, _values(tally, now, more=0 if counted else 1) | {"reserved_at": reserved_at})

    async def give_back(self, tally: Tally, *, reserved_at: datetime) -> None:
        """The guess was not looked at after all."""
        row = and_(_is(L, tally), L.begun_at <= reserved_at)
        if not (await self._db.execute(delete(L).where(row, L.failures <= 1))).rowcount:
            less = update(L).where(row, L.failures > 1)
            await self._db.execute(less.values(failures=L.failures - 1))

    async def clear(self, account: bytes, *tallies: Tally) -> int:
        """
        Forget these failures of an account, or all of them; how many rows there were.

        Locked in the order of their key, so that this waits for nobody who waits for it.
        """
        found = L.account == account
        if tallies:
            found = and_(found, or_(*(_is(L, tally) for tally in tallies)))
        rows = select(L.account, L.way, L.holder).where(found).order_by(L.way, L.holder).with_for_update().cte("due")
        due = (L.account == rows.c.account, L.way == rows.c.way, L.holder == rows.c.holder)
        return (await self._db.execute(delete(L).where(*due))).rowcount

    async def take(self, buckets: Buckets, now: datetime) -> bool:
        """Count a guess in the rates; false: one of them has none left, and the caller must roll back."""
        if not any(buckets.which):
            return True
        taken = await self._db.execute(TAKE[buckets.which], buckets.values(now))
        return len(taken.all()) == sum(buckets.which)

    async def put_back(self, buckets: Buckets, now: datetime) -> None:
        """The guess was right, or not looked at: it counts for nothing."""
        if any(buckets.which):
            await self._db.execute(PUT_BACK[buckets.which], buckets.values(now, back=True))

    async def delete_stale(self, now: datetime, *, limit: int) -> int:
        """Remove what says nothing any more: decayed counts, full buckets. How many rows there were."""
        stale = or_(L.last_failure_at <= now - DECAY, L.last_failure_at >= now + 2 * DECAY)
        old = select(L.account, L.way, L.holder).where(stale).limit(limit).with_for_update(skip_locked=True).cte("old")
        due = (L.account == old.c.account, L.way == old.c.way, L.holder == old.c.holder)
        removed = (await self._db.execute(delete(L).where(*due))).rowcount
        full = or_(A.full_at <= now, A.full_at >= now + 2 * DECAY)
        places = select(A.place).where(full, A.place != EVERYWHERE).limit(limit).with_for_update(skip_locked=True)
        gone = delete(A).where(A.place.in_(select(places.cte("full").c.place)))
        return removed + (await self._db.execute(gone)).rowcount


def _is(row: Any, tally: Tally) -> ColumnElement[bool]:
    return and_(row.account == tally.account, row.way == tally.way, row.holder == tally.holder)


def _values(tally: Tally, now: datetime, **more: int) -> dict[str, Any]:
    limit = tally.limit
    return {
        "account": tally.account,
        "way": tally.way,
        "holder": tally.holder,
        "now": now,
        "free": limit.free,
        "together": limit.together,
        "most": limit.most,
        "decay": DECAY,
        "first": FIRST_DELAY,
        "longest": DELAY_MAXIMUM,
        "slack": SLACK,
        **more,
    }
