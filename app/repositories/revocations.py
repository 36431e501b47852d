"""Bulk ends: their rows, and the batches in which sessions end."""

import json
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Function, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.errors import StoredStateInvalid
from app.domain.families import EndReason
from app.domain.revocations import SETTLE_AT_MOST, Order, Revocation, RevocationState, read_order
from app.models import SessionRevocationRow
from app.models.base import Xid8

R = SessionRevocationRow

_COLUMNS: Final = tuple(getattr(R, field.name) for field in fields(Revocation))


@dataclass(frozen=True, slots=True)
class Work:
    """A bulk end under its lock, and where it stands. Without an order, it is over."""

    revocation: Revocation
    order: Order
    listed: bool | None
    settled: bool
    cursor: UUID
    again_from: UUID | None


class RevocationRepository:
    def __init__(self, db: AsyncConnection, now: datetime | None) -> None:
        self._db = db
        self._now = now

    @property
    def _moment(self) -> Function[datetime]:
        return func.coalesce(self._now, func.statement_timestamp())

    async def add(self, revocation: Revocation, order: Order, *, preview: bytes | None) -> bool:
        """Store a new one; false if one was started with this fingerprint before."""
        values = {field.name: getattr(revocation, field.name) for field in fields(Revocation)}
        values |= {"shown": json.dumps(revocation.shown), "filter": order.text(), "cursor": UUID(int=0)}
        added = insert(R).values(**values, preview=preview).on_conflict_do_nothing(index_elements=[R.preview])
        return (await self._db.execute(added.returning(R.id))).one_or_none() is not None

    async def find(self, revocation_id: UUID) -> Revocation | None:
        row = (await self._db.execute(select(*_COLUMNS).where(R.id == revocation_id))).one_or_none()
        return None if row is None else _revocation(row)

    async def find_by_preview(self, preview: bytes) -> Revocation | None:
        row = (await self._db.execute(select(*_COLUMNS).where(R.preview == preview))).one_or_none()
        return None if row is None else _revocation(row)

    async def lock(self, revocation_id: UUID) -> Revocation | None:
        """Lock the row; waits for the batch under way, which is a second at most."""
        found = select(*_COLUMNS).where(R.id == revocation_id).with_for_update(key_share=True)
        row = (await self._db.execute(found)).one_or_none()
        return None if row is None else _revocation(row)

    async def list_page(self, *, before: UUID | None, limit: int) -> list[Revocation]:
        """Newest first."""
        found = select(*_COLUMNS)
        if before is not None:
            found = found.where(R.id < before)
        return [_revocation(row) for row in await self._db.execute(found.order_by(R.id.desc()).limit(limit))]

    async def has_open(self) -> bool:
        """Whether there is anything to do; locks nothing. Served by a partial index."""
        return (await self._db.execute(select(R.id).where(R.finished_at.is_(None)).limit(1))).one_or_none() is not None

    async def lock_next(self, revocation_id: UUID | None = None) -> Work | None:
        """
        The open one that has waited longest, locked: a small one does not wait until a large one is done.

        `None`: there is none, or others are at work on all of them.
        """
        found = select(*_COLUMNS, R.filter, R.listed, R.settled, R.cursor, R.again_from).where(R.finished_at.is_(None))
        if revocation_id is not None:
            found = found.where(R.id == revocation_id)
        found = found.order_by(R.worked_at.asc().nulls_first(), R.id).limit(1)
        row = (await self._db.execute(found.with_for_update(skip_locked=True, key_share=True))).one_or_none()
        if row is None:
            return None
        return Work(_revocation(row), read_order(row.filter), row.listed, row.settled, row.cursor, row.again_from)

    async def is_settled(self, revocation: Revocation, now: datetime) -> bool:
        """
        Whether every transaction that had begun when it was ordered has ended: a sign-in from before the cut that
        commits late is in the tables by then. A transaction that does not end is not waited for longer than a sign-in
        can take.
        """
        if now - revocation.created_at >= SETTLE_AT_MOST:
            return True
        oldest = func.pg_snapshot_xmin(func.pg_current_snapshot(), type_=Xid8)
        found = select(oldest > R.xact_id).where(R.id == revocation.id)
        return bool((await self._db.execute(found)).scalar_one())

    async def note(
        self, revocation: Revocation, now: datetime, *, ended: int = 0, looked_at: int = 0, **at: Any
    ) -> None:
        """Write down how far the work has come, in the transaction of the work. The caller holds the row's lock."""
        change = update(R).where(R.id == revocation.id, R.finished_at.is_(None))
        values = {
            "state": RevocationState.RUNNING,
            "started_at": func.coalesce(R.started_at, now),
            "worked_at": now,
            "ended": R.ended + ended,
            "looked_at": R.looked_at + looked_at,
            **at,
        }
        await self._db.execute(change.values(values))

    async def stop_listing(self) -> bool:
        """Go on by walking, where finding them by an index has become too slow; false if nobody did that."""
        change = update(R).where(R.finished_at.is_(None), R.listed.is_distinct_from(False)).values(listed=False)
        return (await self._db.execute(change)).rowcount > 0

    async def finish(self, revocation: Revocation, state: RevocationState, now: datetime) -> Revocation:
        """Close it; what it was looking for is forgotten. The caller holds the row's lock."""
        change = update(R).where(R.id == revocation.id, R.finished_at.is_(None))
        values = {"state": state, "finished_at": now, "started_at": func.coalesce(R.started_at, now), "filter": None}
        return _revocation((await self._db.execute(change.values(values).returning(*_COLUMNS))).one())

    async def bound_transaction(self, milliseconds: int) -> None:
        """For this transaction: no statement longer than that, and plans for the values at hand."""
        await self._db.execute(select(*_bounds(milliseconds)))

    async def begin_batch(self, milliseconds: int) -> datetime | None:
        """
        Make this transaction a batch, in one round trip: `None` if another process is at one; else the time. As
        `bound_transaction`, and its commit does not wait for the disk.

        What a crash then takes away, it takes with the cursor that moved in the same transaction, so it is done again;
        and whoever commits after it, a sealer for one, waits for both. What tells somebody that the work is over must
        wait (`wait_for_disk`).
        """
        lock = func.pg_try_advisory_xact_lock(func.hashtext("rota job revocations"))
        lazily = func.set_config("synchronous_commit", "off", True)
        asked = select(lock.label("locked"), self._moment.label("now"), *_bounds(milliseconds), lazily)
        row = (await self._db.execute(asked)).one()
        return row.now if row.locked else None

    async def wait_for_disk(self) -> None:
        """Let this transaction's commit be final, and with it all before it."""
        await self._db.execute(text("SET LOCAL synchronous_commit = on"))


def _bounds(milliseconds: int) -> tuple[ColumnElement[str], ColumnElement[str]]:
    return (
        func.set_config("statement_timeout", str(milliseconds), True),
        func.set_config("plan_cache_mode", "force_custom_plan", True),
    )


def _revocation(row: Any) -> Revocation:
    values = {field.name: getattr(row, field.name) for field in fields(Revocation)}
    try:
        values["state"] = RevocationState(values["state"])
        values["end_reason"] = EndReason(values["end_reason"])
        values["shown"] = json.loads(values["shown"])
    except ValueError:
        raise StoredStateInvalid(why="revocation") from None
    return Revocation(**values)
