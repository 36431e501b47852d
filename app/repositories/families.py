from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Function, Uuid, case, func, literal, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.clients import IpAddress
from app.domain.errors import StoredStateInvalid
from app.domain.families import EndReason, Family, Grant, ReplayMark
from app.domain.users import Role
from app.models import FamilyRow
from app.models.base import Xid8

# Every field of `Family` is a column of that name; the seed is not among them and leaves only in a `Grant`.
FAMILY_COLUMNS = tuple(getattr(FamilyRow, field.name) for field in fields(Family))
_ENDED = (
    FamilyRow.user_id,
    FamilyRow.id,
    FamilyRow.event_seq,
    FamilyRow.generation,
    FamilyRow.ended_at,
    FamilyRow.end_reason,
)

_HOST_CLOCK = timedelta(days=1)  # by which the clock that made an id may have been ahead of the database's
REMOVE_ENDED: Final = "SELECT families_remove_ended($1::uuid[], $2::uuid[], $3::timestamptz)"

NoteEnded = Callable[[Iterable[tuple[UUID, datetime]]], None]  # sessions by id, and when they ended


@dataclass(frozen=True, slots=True)
class EndedFamily:
    """What the event of an end needs to know."""

    user_id: UUID
    id: UUID
    event_seq: int
    generation: int
    ended_at: datetime
    end_reason: EndReason

    @property
    def lapsed(self) -> bool:
        """Whether it was over before, past a limit, and this only wrote it down."""
        return self.end_reason in {EndReason.IDLE_TIMEOUT, EndReason.ABSOLUTE_TIMEOUT}


class FamilyRepository:
    """Reads and guarded writes of `families`. Spending a token is not here: see `rotations.py`."""

    def __init__(self, db: AsyncConnection, now: datetime | None, note_ended: NoteEnded) -> None:
        """
        Without `now`, the time of an end is the database's at the moment its row was won.

        Args:
            note_ended: Told of each end, so that it can be told on when it is committed.
        """
        self._db = db
        self._note_ended = note_ended
        self._now = now

    @property
    def _moment(self) -> Function[datetime]:
        # Unlike the statement's own time, this one is read again when the statement had to wait for the row: an end
        # is never dated before the refresh that it came after.
        return func.coalesce(self._now, func.clock_timestamp())

    async def find(self, user_id: UUID, family_id: UUID) -> Family | None:
        row = (await self._db.execute(select(*FAMILY_COLUMNS).where(*_is(user_id, family_id)))).one_or_none()
        return None if row is None else read_family(row)

    async def find_owner(self, family_id: UUID) -> UUID | None:
        """Whose a session is, for those who may ask about anybody's."""
        found = select(FamilyRow.user_id).where(FamilyRow.id == family_id).limit(1)
        return (await self._db.execute(found)).scalar_one_or_none()

    async def find_seed(self, user_id: UUID, family_id: UUID) -> bytes | None:
        """For checking a proof. Locks nothing, so that a wrong proof cannot hold anybody's row."""
        found = select(FamilyRow.seed).where(*_is(user_id, family_id))
        return (await self._db.execute(found)).scalar_one_or_none()

    async def lock(self, user_id: UUID, family_id: UUID) -> Family | None:
        """Lock the row until the end of the transaction; rotation, logout and all other ends wait."""
        found = select(*FAMILY_COLUMNS).where(*_is(user_id, family_id)).with_for_update(key_share=True)
        row = (await self._db.execute(found)).one_or_none()
        return None if row is None else read_family(row)

    async def list_page(self, user_id: UUID, *, ended_since: datetime, before: UUID | None, limit: int) -> list[Family]:
        """Live families and those ended since, newest first, those created before `before`. Served by the key."""
        found = select(*FAMILY_COLUMNS).where(
            FamilyRow.user_id == user_id, FamilyRow.ended_at.is_(None) | (FamilyRow.ended_at >= ended_since)
        )
        if before is not None:
            found = found.where(FamilyRow.id < before)
        rows = await self._db.execute(found.order_by(FamilyRow.id.desc()).limit(limit))
        return [read_family(row) for row in rows]

    async def end(self, user_id: UUID, family_id: UUID, *, reason: EndReason, by: UUID | None) -> EndedFamily | None:
        """End one family; `None` if there is none that has not ended. A lapsed one ends as what it is: lapsed."""
        ended = await self._end(FamilyRow.id == family_id, user_id=user_id, reason=reason, by=by)
        return ended[0] if ended else None

    async def end_all(
        self, user_id: UUID, *, keep: UUID | None = None, reason: EndReason, by: UUID | None
    ) -> list[EndedFamily]:
        """End all of a user's families but one. The caller holds the user's lock, so no sign-in slips between."""
        others = FamilyRow.id != keep if keep else FamilyRow.id.is_not(None)
        return await self._end(others, user_id=user_id, reason=reason, by=by)

    async def evict_oldest(self, user_id: UUID, *, keep: int, now: datetime) -> list[EndedFamily]:
        """End the oldest active families until `keep` are left. The caller holds the user's lock."""
        newest_first = select(FamilyRow.id).where(FamilyRow.user_id == user_id, *_active(now))
        too_many = newest_first.order_by(FamilyRow.id.desc()).offset(keep)
        oldest = FamilyRow.id.in_(too_many)
        return await self._end(oldest, user_id=user_id, reason=EndReason.EVICTED, by=None)

    async def end_lapsed(self, ids: Sequence[tuple[UUID, UUID]], *, now: datetime) -> list[EndedFamily]:
        """
        Write the ends of families past their expiry, each with the limit that passed.

        Rows locked by somebody are left for the next round: whoever holds them may be ending them.
        """
        lapsed = (
            select(FamilyRow.user_id, FamilyRow.id)
            .where(tuple_(FamilyRow.user_id, FamilyRow.id).in_(ids), *_lapsed(now))
            .with_for_update(skip_locked=True, key_share=True)
            .cte("lapsed")
        )
        change = update(FamilyRow).where(FamilyRow.user_id == lapsed.c.user_id, FamilyRow.id == lapsed.c.id)
        return await self._apply_end(change, reason=EndReason.IDLE_TIMEOUT, by=None)

    async def list_live_after(self, position: UUID, *, limit: int) -> list[tuple[UUID, UUID, datetime, datetime]]:
        """Live families in order of creation: user, id, idle and absolute expiry. Served by a partial index."""
        found = (
            select(FamilyRow.user_id, FamilyRow.id, FamilyRow.idle_expires_at, FamilyRow.expires_at)
            .where(FamilyRow.ended_at.is_(None), FamilyRow.id > position)
            .order_by(FamilyRow.id)
            .limit(limit)
        )
        return [(row.user_id, row.id, row.idle_expires_at, row.expires_at) for row in await self._db.execute(found)]

    async def list_created_before(
        self, moment: datetime, *, after: UUID, limit: int
    ) -> list[tuple[UUID, UUID, datetime | None]]:
        """Families in order of creation, those that may be older than a time: user, id, end. Served by their ids."""
        newest = UUID(int=int((moment + _HOST_CLOCK).timestamp() * 1000) << 80)
        found = (
            select(FamilyRow.user_id, FamilyRow.id, FamilyRow.ended_at)
            .where(FamilyRow.id > after, FamilyRow.id < newest)
            .order_by(FamilyRow.id)
            .limit(limit)
        )
        return [(row.user_id, row.id, row.ended_at) for row in await self._db.execute(found)]

    async def remove_ended(self, ids: Sequence[tuple[UUID, UUID]], *, before: datetime) -> int:
        """
        Remove those of them that ended before a time; how many. Locked ones are left.

        By a function of the owner's: the server itself may delete no session.
        """
        users, families = [user for user, _ in ids], [family for _, family in ids]
        removed: int = (await self._db.exec_driver_sql(REMOVE_ENDED, (users, families, before))).scalar_one()
        return removed

    async def fast_forward(
        self,
        family: Family,
        *,
        presented: int,
        attempt: bytes | None,
        ip: IpAddress | None,
        now: datetime,
        idle: timedelta,
    ) -> Grant:
        """Spend a generation that the database has lost. The caller holds the family's lock."""
        change = (
            update(FamilyRow)
            .where(*_is(family.user_id, family.id), FamilyRow.generation == family.generation)
            .values(
                generation=presented + 1,
                event_seq=FamilyRow.event_seq + 1,
                rotated_at=now,
                idle_expires_at=func.least(now + idle, FamilyRow.expires_at),
                last_ip=ip,
                attempt=attempt,
            )
            .returning(*_GRANT)
        )
        return _grant((await self._db.execute(change)).one(), now)

    async def get_grant(self, family: Family, now: datetime) -> Grant:
        """What the live generation's pair is made of. The caller holds the family's lock."""
        return _grant((await self._db.execute(select(*_GRANT).where(*_is(family.user_id, family.id)))).one(), now)

    async def mark_replay(self, family: Family, mark: ReplayMark, *, events: int, now: datetime) -> Grant:
        """Note a replay and take as many event numbers as it has events. The caller holds the family's lock."""
        change = (
            update(FamilyRow)
            .where(*_is(family.user_id, family.id))
            .values(
                event_seq=FamilyRow.event_seq + events,
                replayed_generation=FamilyRow.generation,
                ride_along_generation=mark.ride_along_generation,
                ride_along_count=mark.ride_along_count,
            )
            .returning(*_GRANT)
        )
        return _grant((await self._db.execute(change)).one(), now)

    async def take_event_number(self, user_id: UUID, family_id: UUID) -> int:
        """The next number in the family's trail. The caller holds the family's lock."""
        change = update(FamilyRow).where(*_is(user_id, family_id)).values(event_seq=FamilyRow.event_seq + 1)
        number: int = (await self._db.execute(change.returning(FamilyRow.event_seq))).scalar_one()
        return number

    async def set_label(self, user_id: UUID, family_id: UUID, label: str | None) -> int:
        """Set the label; the number of its event. The caller holds the family's lock."""
        values = {"label": label, "event_seq": FamilyRow.event_seq + 1}
        change = update(FamilyRow).where(*_is(user_id, family_id)).values(values)
        number: int = (await self._db.execute(change.returning(FamilyRow.event_seq))).scalar_one()
        return number

    async def _end(
        self, which: ColumnElement[bool], *, user_id: UUID, reason: EndReason, by: UUID | None
    ) -> list[EndedFamily]:
        change = update(FamilyRow).where(FamilyRow.user_id == user_id, FamilyRow.ended_at.is_(None), which)
        return await self._apply_end(change, reason=reason, by=by)

    async def _apply_end(self, change: Any, *, reason: EndReason, by: UUID | None) -> list[EndedFamily]:
        # Expiry is a fact: whoever writes the end of a family past its limit, the limit is the reason.
        past_absolute, past_idle = FamilyRow.expires_at <= self._moment, FamilyRow.idle_expires_at <= self._moment
        lapsed = case(
            (past_absolute, EndReason.ABSOLUTE_TIMEOUT.value), (past_idle, EndReason.IDLE_TIMEOUT.value), else_=None
        )
        values = {
            "ended_at": self._moment,
            "end_reason": func.coalesce(lapsed, reason.value),
            "ended_by": case((lapsed.is_(None), literal(by, Uuid)), else_=None),
            "ended_xact": func.pg_current_xact_id(type_=Xid8),
            "event_seq": FamilyRow.event_seq + 1,
        }
        rows = await self._db.execute(change.values(values).returning(*_ENDED))
        ended = [EndedFamily(**{**row._asdict(), "end_reason": EndReason(row.end_reason)}) for row in rows]
        self._note_ended((family.id, family.ended_at) for family in ended)
        return ended


_GRANT = (
    FamilyRow.user_id,
    FamilyRow.id.label("family_id"),
    FamilyRow.generation,
    FamilyRow.seed,
    FamilyRow.client_id,
    FamilyRow.scope,
    FamilyRow.role,
    FamilyRow.authenticated_at,
    FamilyRow.amr,
    FamilyRow.acr,
    FamilyRow.idle_expires_at,
    FamilyRow.expires_at,
)


def _is(user_id: UUID, family_id: UUID) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return FamilyRow.user_id == user_id, FamilyRow.id == family_id


def _active(now: datetime) -> tuple[ColumnElement[bool], ...]:
    return FamilyRow.ended_at.is_(None), FamilyRow.idle_expires_at > now, FamilyRow.expires_at > now


def _lapsed(now: datetime) -> tuple[ColumnElement[bool], ...]:
    return FamilyRow.ended_at.is_(None), (FamilyRow.idle_expires_at <= now) | (FamilyRow.expires_at <= now)


def read_family(row: Any) -> Family:
    """
    The family in a row that has `FAMILY_COLUMNS`, whatever else it has.

    Raises:
        StoredStateInvalid: a role or a reason that is not in its list.
    """
    values = {column.key: getattr(row, column.key) for column in FAMILY_COLUMNS}
    try:
        values["role"] = Role(values["role"])
        if values["end_reason"] is not None:
            values["end_reason"] = EndReason(values["end_reason"])
    except ValueError:
        raise StoredStateInvalid(why="family role or end reason") from None
    return Family(**values)


def _grant(row: Any, now: datetime) -> Grant:
    return Grant(**{**row._asdict(), "role": Role(row.role)}, now=now)
