from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import uuid_utils.compat
from sqlalchemy import ColumnElement, func, insert, select, text, tuple_
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.canonical_json import encode
from app.domain.clients import IpAddress
from app.domain.entries import SealedFields
from app.domain.events import EVENT_VERSION, Action, Event
from app.domain.pages import Position
from app.domain.vocabulary_check import check
from app.models import AuditEventRow
from app.repositories.engine import SERVER_SETTINGS


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An entry as read back."""

    id: UUID
    occurred_at: datetime
    action: str
    outcome: str
    reason: str | None
    actor_kind: str
    actor_id: UUID | None
    subject_id: UUID
    family_id: UUID | None
    family_seq: int | None
    generation: int | None
    ip: IpAddress | None
    user_agent: str | None
    commitment: bytes | None
    request_id: UUID | None
    detail: str | None


EVENT_COLUMNS = (
    AuditEventRow.id,
    AuditEventRow.occurred_at,
    AuditEventRow.action,
    AuditEventRow.outcome,
    AuditEventRow.reason,
    AuditEventRow.actor_kind,
    AuditEventRow.actor_id,
    AuditEventRow.subject_id,
    AuditEventRow.family_id,
    AuditEventRow.family_seq,
    AuditEventRow.generation,
    AuditEventRow.ip,
    AuditEventRow.user_agent,
    AuditEventRow.commitment,
    AuditEventRow.request_id,
    AuditEventRow.detail,
)


# What an event is written with; the rest is the database's, or the sealer's.
EVENT_VALUES: Final = (
    "id",
    "occurred_at",
    "action",
    "version",
    "outcome",
    "reason",
    "actor_kind",
    "actor_id",
    "subject_id",
    "family_id",
    "family_seq",
    "generation",
    "ip",
    "user_agent",
    "request_id",
    "detail",
)

_ADD_IF: Final = (
    f"INSERT INTO audit_events ({', '.join(EVENT_VALUES)})"
    f" SELECT {', '.join(f'${place}' for place in range(1, len(EVENT_VALUES) + 1))} WHERE ${len(EVENT_VALUES) + 1}"
)

LOOKUP_MILLISECONDS: Final = 500
QUERY_CANCELED: Final = "57014"


class AuditRepository:
    """Appends to the trail and reads from it; there is nothing else to do with it."""

    def __init__(self, db: AsyncConnection) -> None:
        self._db = db
        self._added: list[tuple[Action, str | None]] = []

    async def add(self, *events: Event, at: datetime) -> None:
        """
        Append in the transaction of the change that the events tell of.

        Raises:
            ValueError: an event that the vocabulary does not know.
        """
        for event in events:
            check(event)
        if events:
            await self._db.execute(insert(AuditEventRow), [_values(event, at) for event in events])
            self._added += [(event.action, event.reason) for event in events]

    async def add_if(self, event: Event, *, wanted: bool, at: datetime) -> None:
        """
        Append one, or do the same work and append nothing: that failures of a name are told no more, or still are,
        must not show in how long they take.

        Raises:
            ValueError: as `add`.
        """
        await self._db.exec_driver_sql(_ADD_IF, (*self.values_of(event, at), wanted))
        if wanted:
            self.note_added(event)

    def values_of(self, event: Event, at: datetime) -> tuple[Any, ...]:
        """
        For a statement that appends it itself: in the order of `EVENT_VALUES`.

        Raises:
            ValueError: as `add`.
        """
        check(event)
        values = _values(event, at)
        return tuple(values[name] for name in EVENT_VALUES)

    def note_added(self, event: Event) -> None:
        """Such a statement has appended it."""
        self._added.append((event.action, event.reason))

    async def copy(self, event: Event, subjects: Sequence[UUID], *, at: datetime) -> None:
        """
        Append the same event about many subjects, by COPY. The caller has begun the transaction with another statement.

        Raises:
            ValueError: as `add`.
        """
        if not subjects:
            return
        check(event)
        values = _values(event, at)
        del values["id"], values["subject_id"]
        rest = tuple(values.values())
        rows = [(uuid_utils.compat.uuid7(), subject, *rest) for subject in subjects]
        driver: Any = (await self._db.get_raw_connection()).driver_connection
        await driver.copy_records_to_table("audit_events", records=rows, columns=["id", "subject_id", *values])
        self._added += [(event.action, event.reason)] * len(subjects)

    def take_added(self) -> list[tuple[Action, str | None]]:
        """Actions and reasons of what was added since this was last asked."""
        added, self._added = self._added, []
        return added

    async def find_rotation(self, user_id: UUID, family_id: UUID, *, generation: int, since: datetime) -> UUID | None:
        """
        The event of the rotation that brought a family to a generation.

        Walks the user's trail since then, for half a second at most, and returns `None` if it was not found by then:
        strangers can make a trail long by failing to sign in, and an end must not hang on it.
        """
        found = select(AuditEventRow.id).where(
            AuditEventRow.subject_id == user_id,
            AuditEventRow.occurred_at >= since,
            AuditEventRow.family_id == family_id,
            AuditEventRow.generation == generation,
            AuditEventRow.action.in_([Action.SESSION_REFRESHED, Action.SESSION_FAST_FORWARDED]),
        )
        try:
            async with self._db.begin_nested():
                await self._db.execute(text(f"SET LOCAL statement_timeout = {LOOKUP_MILLISECONDS}"))
                event_id = (await self._db.execute(found.limit(1))).scalar_one_or_none()
                # Not DEFAULT: through a pooler that is no bound at all.
                await self._db.execute(text(f"SET LOCAL statement_timeout = {SERVER_SETTINGS['statement_timeout']}"))
                return event_id
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) == QUERY_CANCELED:
                return None
            raise

    async def list_page(self, user_id: UUID, *, before: Position | None, limit: int) -> list[StoredEvent]:
        """A user's events, newest first. Served by the primary key."""
        found = select(*EVENT_COLUMNS).where(AuditEventRow.subject_id == user_id)
        if before is not None:
            found = found.where(tuple_(AuditEventRow.occurred_at, AuditEventRow.id) < (before.at, before.id))
        newest_first = found.order_by(AuditEventRow.occurred_at.desc(), AuditEventRow.id.desc())
        return [StoredEvent(**row._asdict()) for row in await self._db.execute(newest_first.limit(limit))]

    async def list_between(
        self, since: datetime | None, until: datetime | None, *, after: Position | None, limit: int
    ) -> list[SealedFields]:
        """Everything of a time range, oldest first, after a position. Served by the index on times."""
        found = select(*SEALED_FIELDS).where(*_between(since, until))
        if after is not None:
            found = found.where(tuple_(AuditEventRow.occurred_at, AuditEventRow.id) > (after.at, after.id))
        oldest_first = found.order_by(AuditEventRow.occurred_at, AuditEventRow.id).limit(limit)
        return [SealedFields._make(row) for row in await self._db.execute(oldest_first)]

    async def find_newest_time(self) -> datetime | None:
        """When the newest event happened. Served by the index on times."""
        newest = select(AuditEventRow.occurred_at).order_by(AuditEventRow.occurred_at.desc()).limit(1)
        return (await self._db.execute(newest)).scalar_one_or_none()


SEALED_FIELDS = tuple(
    func.host(AuditEventRow.ip) if name == "ip" else getattr(AuditEventRow, name) for name in SealedFields._fields
)


def _between(since: datetime | None, until: datetime | None) -> list[ColumnElement[bool]]:
    conditions = []
    if since is not None:
        conditions.append(AuditEventRow.occurred_at >= since)
    if until is not None:
        conditions.append(AuditEventRow.occurred_at <= until)
    return conditions


def _values(event: Event, at: datetime) -> dict[str, Any]:
    return {
        "id": uuid_utils.compat.uuid7(),
        "occurred_at": event.at or at,
        "action": event.action,
        "version": EVENT_VERSION,
        "outcome": event.outcome,
        "reason": event.reason,
        "actor_kind": event.actor.kind,
        "actor_id": event.actor.id,
        "subject_id": event.subject_id,
        "family_id": event.family_id,
        "family_seq": event.family_seq,
        "generation": event.generation,
        "ip": event.client.ip,
        "user_agent": event.client.user_agent,
        "request_id": event.client.request_id,
        "detail": encode(event.detail) if event.detail else None,
    }
