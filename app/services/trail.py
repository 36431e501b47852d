"""What the trail says of a user, to that user."""

from uuid import UUID

from app.domain.pages import Page, Position, page_of
from app.repositories.audit import StoredEvent
from app.repositories.database import Database


class Trail:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_page(self, user_id: UUID, *, after: Position | None, limit: int) -> Page[StoredEvent]:
        """The user's events, newest first."""
        async with self._database.begin() as db:
            rows = await db.audit.list_page(user_id, before=after, limit=limit + 1)
        return page_of(rows, limit, lambda event: Position(event.occurred_at, event.id))
