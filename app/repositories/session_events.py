"""The events of one session. They are found through its user's trail, between its beginning and what is asked for."""

import json
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.events import Action
from app.domain.families import Family
from app.domain.pages import Position
from app.domain.session_stories import Told
from app.models import AuditEventRow
from app.repositories.audit import EVENT_COLUMNS, StoredEvent

E = AuditEventRow

REFUSALS: Final = (Action.REFRESH_REFUSED, Action.REFRESH_FORGED)


class SessionEventRepository:
    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def list_life(self, family: Family, *, before: Position | None, limit: int) -> list[StoredEvent]:
        """The events of its own life, newest first: those that the family has numbered."""
        found = self._of(family).where(E.family_seq.is_not(None))
        if family.ended_at is not None:
            found = found.where(E.occurred_at <= family.ended_at)
        if before is not None:
            found = found.where(tuple_(E.occurred_at, E.id) < (before.at, before.id))
        return await self._list(found.order_by(E.occurred_at.desc(), E.id.desc()).limit(limit))

    async def list_refusals(self, family: Family, *, limit: int) -> list[StoredEvent]:
        """The newest presentations that were refused, which have no number: an ended session's too."""
        found = self._of(family).where(E.action.in_(REFUSALS))
        return await self._list(found.order_by(E.occurred_at.desc(), E.id.desc()).limit(limit))

    async def find_last(self, family: Family, action: Action) -> StoredEvent | None:
        """The last event of some action, not after the end. Looked for from there backwards."""
        found = self._of(family).where(E.action == action)
        if family.ended_at is not None:
            found = found.where(E.occurred_at <= family.ended_at)
        events = await self._list(found.order_by(E.occurred_at.desc(), E.id.desc()).limit(1))
        return events[0] if events else None

    async def find(self, family: Family, event_id: UUID, *, until: datetime) -> StoredEvent | None:
        found = await self._list(self._of(family).where(E.id == event_id, E.occurred_at <= until).limit(1))
        return found[0] if found else None

    def _of(self, family: Family) -> Any:
        whose = (E.subject_id == family.user_id, E.family_id == family.id)
        return select(*EVENT_COLUMNS).where(*whose, E.occurred_at >= family.created_at)

    async def _list(self, statement: Any) -> list[StoredEvent]:
        return [StoredEvent(**row._asdict()) for row in await self._db.execute(statement)]


def told(event: StoredEvent) -> Told:
    """What a story needs of an event."""
    return Told(
        id=event.id,
        at=event.occurred_at,
        action=event.action,
        reason=event.reason,
        actor_kind=event.actor_kind,
        actor_id=event.actor_id,
        family_seq=event.family_seq,
        generation=event.generation,
        ip=event.ip,
        user_agent=event.user_agent,
        detail=json.loads(event.detail) if event.detail else {},
    )
