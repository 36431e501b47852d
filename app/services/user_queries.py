"""Auditors and administrators look for users."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from app.domain.clients import ClientContext
from app.domain.errors import QueryTooBroad, TookTooLong, UserNotFound
from app.domain.events import Actor
from app.domain.pages import Position, page_of
from app.domain.user_filters import UserFilter
from app.domain.users import User
from app.repositories.database import Database, UnitOfWork
from app.repositories.user_queries import COUNT_LIMIT
from app.security.keys import Keyring
from app.services.admin_reads import AdminReads, Cursors
from app.services.replica import Replica


@dataclass(frozen=True, slots=True)
class SeenUser:
    """A user, and how many of their sessions are active: up to `COUNT_LIMIT`, and whether that is all."""

    user: User
    active_sessions: int
    is_exact: bool


@dataclass(frozen=True, slots=True)
class SeenUsers:
    """`next`: the cursor of the next page, bound to filter and order; `None` on the last."""

    items: list[SeenUser]
    next: str | None


class UserQueries:
    def __init__(self, database: Database, keyring: Keyring, reads: AdminReads, replica: Replica) -> None:
        self._database = database
        self._replica = replica
        self._keyring = keyring
        self._cursors = Cursors(keyring)
        self._reads = reads

    async def search(
        self,
        wanted: UserFilter,
        *,
        newest_first: bool,
        cursor: str | None,
        limit: int,
        actor: Actor,
        client: ClientContext,
    ) -> SeenUsers:
        """
        Users that match, by time of creation. That somebody asked is an event, committed before they get the answer.

        Raises:
            InputInvalid: the cursor is not of this filter and order.
            QueryTooBroad: it would take too long.
        """
        order = "newest" if newest_first else "oldest"
        fingerprint = wanted.fingerprint(order)
        after = self._cursors.read(cursor, fingerprint) if cursor is not None else None

        async def look(db: UnitOfWork) -> tuple[list[SeenUser], Position | None]:
            now = await db.now()
            rows = await db.user_queries.list_page(
                wanted, now=now, newest_first=newest_first, after=after, limit=limit + 1
            )
            page = page_of(rows, limit, lambda user: Position(user.created_at, user.id))
            return await _count(db, page.items, now), page.after

        try:
            items, last = await self._replica.read(look)
        except TookTooLong as error:
            raise QueryTooBroad(why=error.why) from error
        digest = None if wanted.prefix is None else self._keyring.name_digest(wanted.prefix)
        asked = {**wanted.described(digest), "order": order, "limit": limit}
        await self._reads.record("users", asked, len(items), actor=actor, client=client)
        return SeenUsers(items, self._cursors.write(last, fingerprint) if last else None)

    async def get(self, user_id: UUID, *, actor: Actor, client: ClientContext) -> SeenUser:
        """
        One user, deleted or not. That somebody asked is an event, whether or not there is one.

        Raises:
            UserNotFound: there is none.
        """
        async with self._database.begin() as db:
            user = await db.users.find(user_id)
            seen = await _count(db, [user] if user else [], await db.now())
        await self._reads.record("user", {"user": str(user_id)}, len(seen), actor=actor, client=client)
        if not seen:
            raise UserNotFound
        return seen[0]

    async def look(self, user: User) -> SeenUser:
        """A user as just changed, for the answer to whoever changed it: no event beside the change's own."""
        async with self._database.begin() as db:
            (seen,) = await _count(db, [user], await db.now())
        return seen


async def _count(db: UnitOfWork, users: list[User], now: datetime) -> list[SeenUser]:
    if not users:
        return []
    counts = await db.user_queries.count_active_sessions([user.id for user in users], now=now)
    return [SeenUser(user, min(counts[user.id], COUNT_LIMIT), counts[user.id] <= COUNT_LIMIT) for user in users]
