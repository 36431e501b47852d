"""Questions to the trail. Each filter has its index, and values that pick a partial index stand in the statement."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import product
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, cast, false, func, literal_column, select, tuple_, union_all
from sqlalchemy.dialects.postgresql import INET
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.event_filters import Bucket, EventFilter, IpNetwork, request_window
from app.domain.events import Action, Outcome
from app.domain.pages import Position
from app.models import AuditEventRow, FamilyRow, SessionRevocationRow, UserRow
from app.repositories.audit import EVENT_COLUMNS, StoredEvent

COUNT_LIMIT: Final = 10_000

E = AuditEventRow


class TrailQueryRepository:
    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def search(
        self, wanted: EventFilter, *, newest_first: bool, after: Position | None, limit: int
    ) -> list[StoredEvent]:
        """
        Events that match, by time.

        Several actions, or an actor, are asked one by one, each in its own index and each for a page; the pages are
        then merged. A single statement would walk the whole trail to find the rarest of them.
        """
        wanted = await self._narrow(wanted)
        order = (E.occurred_at.desc(), E.id.desc()) if newest_first else (E.occurred_at, E.id)
        branches: list[Select[Any]] = []
        for conditions in _branches(wanted):
            found: Any = select(*EVENT_COLUMNS).where(*conditions)
            if _only_network(wanted):
                found = found.where(_within_reach(wanted, newest_first=newest_first, after=after, limit=limit))
            if after is not None:
                place = tuple_(E.occurred_at, E.id)
                found = found.where(place < (after.at, after.id) if newest_first else place > (after.at, after.id))
            branches.append(found.order_by(*order).limit(limit))
        rows = await self._db.execute(_merged(branches, newest_first=newest_first, limit=limit))
        return [StoredEvent(**row._asdict()) for row in rows]

    async def count(self, wanted: EventFilter) -> int:
        """How many match, but no more than `COUNT_LIMIT` + 1."""
        wanted = await self._narrow(wanted)
        branches = [select(E.id).where(*conditions).limit(COUNT_LIMIT + 1) for conditions in _branches(wanted)]
        all_of_them = (branches[0] if len(branches) == 1 else union_all(*branches)).subquery()
        bounded = select(all_of_them).limit(COUNT_LIMIT + 1).subquery()
        counted: int = (await self._db.execute(select(func.count()).select_from(bounded))).scalar_one()
        return counted

    async def histogram(self, wanted: EventFilter, bucket: Bucket) -> list[tuple[datetime, str, int]]:
        """Counts by time and action, oldest first."""
        wanted = await self._narrow(wanted)
        start = func.date_trunc(bucket.value, E.occurred_at, "UTC").label("start")
        parts = [
            select(start, E.action.label("action"), func.count().label("count"))
            .where(*conditions)
            .group_by("start", E.action)
            for conditions in _branches(wanted)
        ]
        every = (parts[0] if len(parts) == 1 else union_all(*parts)).subquery()
        summed = select(every.c.start, every.c.action, func.sum(every.c.count)).group_by(every.c.start, every.c.action)
        rows = await self._db.execute(summed.order_by(every.c.start, every.c.action))
        return [(row[0], row[1], int(row[2])) for row in rows]

    async def find_names(self, ids: set[UUID]) -> dict[UUID, str]:
        """The names of those who have one."""
        rows = await self._db.execute(select(UserRow.id, UserRow.username).where(UserRow.id.in_(ids)))
        return {row[0]: row[1] for row in rows}

    async def _narrow(self, wanted: EventFilter) -> EventFilter:
        """A session is found through its user; a request through its time, and that of the bulk end it ordered."""
        if wanted.family_id is not None:
            owner = select(FamilyRow.user_id, FamilyRow.created_at).where(FamilyRow.id == wanted.family_id)
            row = (await self._db.execute(owner)).one_or_none()
            if row is not None and wanted.subject_id in {None, row.user_id}:
                since = max(wanted.since or row.created_at, row.created_at)
                wanted = replace(wanted, subject_id=row.user_id, since=since)
        if wanted.request_id is not None and (window := request_window(wanted.request_id)) is not None:
            since = max(wanted.since or window[0], window[0])
            last = await self._find_last_time(wanted.request_id, window[1])
            wanted = replace(wanted, since=since, until=min(wanted.until or last, last) if last else wanted.until)
        return wanted

    async def _find_last_time(self, request_id: UUID, usual: datetime) -> datetime | None:
        """When a request's last event can have happened. `None`: it ordered a bulk end that is not over."""
        ordered = select(SessionRevocationRow.finished_at).where(SessionRevocationRow.id == request_id)
        row = (await self._db.execute(ordered)).one_or_none()
        if row is None:
            return usual
        return None if row.finished_at is None else max(usual, row.finished_at)


def _branches(wanted: EventFilter) -> Iterator[list[ColumnElement[bool]]]:
    """The conditions of each part; the parts have nothing in common."""
    actions: Sequence[Action | None] = wanted.actions if len(wanted.actions) < len(Action) else ()
    for action, others in product(actions or [None], [None] if wanted.actor_id is None else [False, True]):
        conditions = _common(wanted)
        if action is not None:
            conditions.append(E.action == literal_column(f"'{action.value}'"))
        if action is not None and action is not Action.SESSION_REFRESHED:
            conditions.append(E.action != literal_column(f"'{Action.SESSION_REFRESHED.value}'"))
        if others is not None:
            whose = E.actor_id != E.subject_id if others else E.subject_id == wanted.actor_id
            conditions.append(and_(E.actor_id == wanted.actor_id, whose))
        yield conditions


def _common(wanted: EventFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.outcome is not None:
        conditions.append(E.outcome == literal_column(f"'{Outcome(wanted.outcome).value}'"))
    if wanted.subject_id is not None:
        conditions.append(E.subject_id == wanted.subject_id)
    if wanted.family_id is not None:
        conditions.append(E.family_id == wanted.family_id)
    if wanted.network is not None:
        conditions.append(_of_network(wanted.network))
    if wanted.request_id is not None:
        conditions.append(false() if request_window(wanted.request_id) is None else E.request_id == wanted.request_id)
    if wanted.since is not None:
        conditions.append(E.occurred_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(E.occurred_at <= wanted.until)
    return conditions


def _of_network(network: IpNetwork) -> ColumnElement[bool]:
    """By bounds, which the index knows, and bound as values."""
    first, last = (cast(str(end), INET) for end in (network.network_address, network.broadcast_address))
    return E.ip == first if network.num_addresses == 1 else and_(E.ip >= first, E.ip <= last)


def _within_reach(
    wanted: EventFilter, *, newest_first: bool, after: Position | None, limit: int
) -> ColumnElement[bool]:
    """
    The times that a page of a network's events can have: found in the index alone, so that only the page's rows are
    fetched and not those of all the network's addresses.
    """
    times = select(E.occurred_at).where(*_common(wanted))
    if after is not None:
        times = times.where(E.occurred_at < after.at if newest_first else E.occurred_at > after.at)
    order = E.occurred_at.desc() if newest_first else E.occurred_at
    nearest = times.order_by(order).limit(limit).subquery()
    end = func.min(nearest.c.occurred_at) if newest_first else func.max(nearest.c.occurred_at)
    bound = select(end if after is None else func.coalesce(end, after.at)).scalar_subquery()
    return E.occurred_at >= bound if newest_first else E.occurred_at <= bound


def _only_network(wanted: EventFilter) -> bool:
    """Whether the index on addresses holds all that is asked for."""
    others = (wanted.actions, wanted.outcome, wanted.actor_id, wanted.subject_id, wanted.family_id, wanted.request_id)
    return wanted.network is not None and wanted.network.num_addresses > 1 and not any(others)


def _merged(branches: Sequence[Select[Any]], *, newest_first: bool, limit: int) -> Any:
    if len(branches) == 1:
        return branches[0]
    every = union_all(*(branch.subquery().select() for branch in branches)).subquery()
    order = (every.c.occurred_at.desc(), every.c.id.desc()) if newest_first else (every.c.occurred_at, every.c.id)
    return select(every).order_by(*order).limit(limit)
