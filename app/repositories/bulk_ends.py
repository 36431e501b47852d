"""
Sessions found and ended many at a time: each statement bounded, each in the order of creation.

The order is that of ids, which never change; a session that a refresh moves to another row version meanwhile is where
it was. Rows that somebody holds are passed by (SKIP LOCKED), so that a batch, which holds many, never waits for one and
cannot be part of a deadlock; the caller is told the first that was left.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Function,
    Text,
    Uuid,
    and_,
    exists,
    func,
    insert,
    literal,
    literal_column,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.events import EVENT_VERSION, Action, Actor, Outcome
from app.domain.families import EndReason, Family
from app.domain.revocations import Order
from app.domain.session_filters import AddressScope
from app.models import AuditEventRow, FamilyRow
from app.models.base import Xid8
from app.repositories.audit import QUERY_CANCELED
from app.repositories.families import FAMILY_COLUMNS, NoteEnded, read_family
from app.repositories.session_queries import USES, conditions, of_network

F = FamilyRow
E = AuditEventRow

# An event's id as the application makes them (48 bits of time, version 7, the rest random), but made where the rows
# are: a thousand of them cost the event loop 8 ms to make and to send, and PostgreSQL before 18 has no uuidv7().
UUIDV7: Final = (
    "encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) PLACING substring(int8send("
    "floor(date_part('epoch', ended.ended_at) * 1000)::bigint) FROM 3) FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid"
)


@dataclass(frozen=True, slots=True)
class Target:
    """Which sessions a bulk end may end, at a moment."""

    order: Order
    cut: datetime
    spared: UUID | None
    now: datetime

    def conditions(self, *, walking: bool) -> list[ColumnElement[bool]]:
        """
        Active sessions of the order, created up to the cut. A session past a limit is over already; its end is the
        expiry job's to write.

        Args:
            walking: Each row is looked at by itself: then the trail is asked about one session at a time, and not for
                all that a network ever touched.
        """
        found = [F.ended_at.is_(None), F.idle_expires_at > self.now, F.expires_at > self.now, F.created_at <= self.cut]
        if self.spared is not None:
            found.append(F.id != self.spared)
        if self.order.issued_before is not None:
            return [*found, F.created_at < self.order.issued_before]
        wanted = self.order.wanted
        if walking and wanted.network is not None and wanted.scope is AddressScope.ANY:
            used = exists().where(
                E.subject_id == F.user_id,
                E.family_id == F.id,
                E.occurred_at >= F.created_at,
                of_network(E.ip, wanted.network),
                E.action.in_(USES),
            )
            found.append(or_(of_network(F.created_ip, wanted.network), of_network(F.last_ip, wanted.network), used))
            wanted = replace(wanted, network=None, scope=AddressScope.FIRST)
        return [*found, *conditions(wanted, self.now)]


@dataclass(frozen=True, slots=True)
class Stretch:
    """
    A part of the live sessions, in the order of ids, after `after`.

    Args:
        until: The last of it; `None`: to the end.
        ids: If the sessions are known one by one.
        looked_at: How many live sessions it has.
    """

    after: UUID
    until: UUID | None
    ids: Sequence[UUID] | None
    looked_at: int

    @property
    def conditions(self) -> list[ColumnElement[bool]]:
        if self.ids is not None:
            return [F.id == func.any(literal(list(self.ids), ARRAY(Uuid)))]
        upper = [] if self.until is None else [F.id <= self.until]
        return [F.id > self.after, *upper]


@dataclass(frozen=True, slots=True)
class EndedStretch:
    """
    Args:
        last: The last that was locked.
        left: The first that matches and has not ended: held by somebody, or, after `last`, one too many.
        took: By the database's clock.
    """

    ended: int
    last: UUID | None
    left: UUID | None
    took: timedelta


class BulkEndRepository:
    def __init__(self, db: AsyncConnection, now: datetime | None, note_ended: NoteEnded) -> None:
        """`now` and `note_ended` as those of `FamilyRepository`."""
        self._db = db
        self._note_ended = note_ended
        self._now = now

    @property
    def _moment(self) -> Function[datetime]:
        return func.coalesce(self._now, func.clock_timestamp())

    async def count(self, target: Target) -> tuple[int, int]:
        """Sessions and users, by whatever plan is best. The caller bounds its time."""
        each = select(F.user_id, func.count().label("n")).where(*target.conditions(walking=False)).group_by(F.user_id)
        people = each.subquery()
        counted = select(func.coalesce(func.sum(people.c.n), 0), func.count()).select_from(people)
        sessions, users = (await self._db.execute(counted)).one()
        return int(sessions), users

    async def count_users_after(self, target: Target, after: UUID, *, look: int) -> tuple[int, int, UUID | None]:
        """
        The same in parts, by user: sessions and users among the next `look` live sessions, and where to go on; `None`
        at the end. A user's sessions are never in two parts.
        """
        live = select(F.user_id).where(F.ended_at.is_(None), F.user_id > after).order_by(F.user_id, F.id)
        last = (await self._db.execute(live.offset(look - 1).limit(1))).scalar_one_or_none()
        part = [F.user_id > after] if last is None else [F.user_id > after, F.user_id <= last]
        counted = select(func.count(), func.count(F.user_id.distinct()))
        row = (await self._db.execute(counted.where(*part, *target.conditions(walking=True)))).one()
        return row[0], row[1], last

    async def sample(self, target: Target, *, few: bool, limit: int) -> list[Family]:
        """
        The newest of them.

        Args:
            few: They are found first and then put in order; else they are met on the way through the newest.
        """
        if few:
            found = (
                select(F.user_id, F.id)
                .where(*target.conditions(walking=False))
                .cte("found")
                .prefix_with("MATERIALIZED")
            )
            newest = select(*FAMILY_COLUMNS).join(found, and_(F.user_id == found.c.user_id, F.id == found.c.id))
        else:
            newest = select(*FAMILY_COLUMNS).where(*target.conditions(walking=True))
        rows = await self._db.execute(newest.order_by(F.id.desc()).limit(limit))
        return [read_family(row) for row in rows]

    async def includes(self, target: Target, user_id: UUID, family_id: UUID) -> bool:
        """Whether that session is among them."""
        found = select(F.id).where(F.user_id == user_id, F.id == family_id, *target.conditions(walking=True))
        return (await self._db.execute(found)).one_or_none() is not None

    async def are_few(self, target: Target, limit: int, *, milliseconds: int) -> bool:
        """Whether no more than that match, and are found in that time."""
        found = select(F.id).where(*target.conditions(walking=False)).cte("found").prefix_with("MATERIALIZED")
        counted = select(func.count()).select_from(select(found).limit(limit + 1).subquery())
        try:
            async with self._db.begin_nested():
                former = (await self._db.execute(text("SHOW statement_timeout"))).scalar_one()
                await self._db.execute(text(f"SET LOCAL statement_timeout = {milliseconds:d}"))
                count = (await self._db.execute(counted)).scalar_one()
                await self._db.execute(text(f"SET LOCAL statement_timeout = '{former}'"))
                return bool(count <= limit)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) == QUERY_CANCELED:
                return False
            raise

    async def list_matching(self, target: Target, after: UUID, *, limit: int) -> Stretch:
        """The next that match, by the filter's own index: the order must not tempt the planner to walk them all."""
        found = (
            select(F.id).where(F.id > after, *target.conditions(walking=False)).cte("found").prefix_with("MATERIALIZED")
        )
        ids = (await self._db.execute(select(found.c.id).order_by(found.c.id).limit(limit))).scalars().all()
        return Stretch(after, ids[-1] if len(ids) == limit else None, ids, len(ids))

    async def measure_live(self, after: UUID, *, look: int) -> Stretch:
        """The next live sessions, whether they match or not. Served by an index alone."""
        live = select(F.id).where(F.ended_at.is_(None), F.id > after).order_by(F.id)
        last = (await self._db.execute(live.offset(look - 1).limit(1))).scalar_one_or_none()
        if last is not None:
            return Stretch(after, last, None, look)
        rest = (await self._db.execute(select(func.count()).select_from(live.subquery()))).scalar_one()
        return Stretch(after, None, None, rest)

    async def end(
        self,
        stretch: Stretch,
        target: Target,
        *,
        reason: EndReason,
        actor: Actor,
        request_id: UUID,
        limit: int,
    ) -> EndedStretch:
        """
        End those of the stretch that match, each with its event: one statement.

        A row that was refreshed between the look and the lock is looked at again as it is then, and ends as well if
        it still matches. At most `limit` of them, from the first on.
        """
        which = [*stretch.conditions, *target.conditions(walking=True)]
        locked = (
            select(F.user_id, F.id)
            .where(*which)
            .order_by(F.id)
            .limit(limit)
            .with_for_update(skip_locked=True, key_share=True, of=F)
            .cte("locked")
        )
        ended = (
            update(F)
            .where(F.user_id == locked.c.user_id, F.id == locked.c.id, F.ended_at.is_(None))
            .values(
                ended_at=self._moment,
                end_reason=reason.value,
                ended_by=actor.id,
                ended_xact=func.pg_current_xact_id(type_=Xid8),
                event_seq=F.event_seq + 1,
            )
            .returning(F.user_id, F.id, F.event_seq, F.generation, F.ended_at)
            .cte("ended")
        )
        logged = _log(ended, reason=reason, actor=actor, request_id=request_id)
        last = select(locked.c.id).order_by(locked.c.id.desc()).limit(1).scalar_subquery()
        took = func.clock_timestamp() - func.statement_timestamp()
        which_ended = select(func.array_agg(ended.c.id)).scalar_subquery()
        told = select(
            func.count().label("ended"),
            last.label("last"),
            took.label("took"),
            which_ended.label("ids"),
            func.clock_timestamp().label("at"),
        ).select_from(logged)
        row = (await self._db.execute(told)).one()
        self._note_ended((session, row.at) for session in row.ids or ())
        left = select(F.id).where(*which).order_by(F.id).limit(1)
        return EndedStretch(row.ended, row.last, (await self._db.execute(left)).scalar_one_or_none(), row.took)


def _log(ended: Any, *, reason: EndReason, actor: Actor, request_id: UUID) -> Any:
    """One `session.ended` for each, numbered from its row, as `end_events` writes them for few."""
    values = {
        E.id: literal_column(UUIDV7, Uuid),
        E.occurred_at: ended.c.ended_at,
        E.action: literal(Action.SESSION_ENDED.value, Text),
        E.version: literal(EVENT_VERSION),
        E.outcome: literal(Outcome.SUCCESS.value, Text),
        E.reason: literal(reason.value, Text),
        E.actor_kind: literal(actor.kind.value, Text),
        E.actor_id: literal(actor.id, Uuid),
        E.subject_id: ended.c.user_id,
        E.family_id: ended.c.id,
        E.family_seq: ended.c.event_seq,
        E.generation: ended.c.generation,
        E.request_id: literal(request_id, Uuid),
    }
    rows = select(*values.values()).select_from(ended)
    return insert(E).from_select(list(values), rows).returning(E.id).cte("logged")
