"""Reading the trail: a user their own, auditors and administrators all of it."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from app.domain.canonical_json import JsonValue
from app.domain.clients import ClientContext
from app.domain.entries import SealedFields
from app.domain.errors import InputInvalid, QueryTooBroad, TookTooLong, UsernameRefused
from app.domain.event_filters import Bucket, EventFilter
from app.domain.events import Action, Actor, Event
from app.domain.pages import Page, Position, page_of
from app.domain.users import username_key
from app.repositories.audit import StoredEvent
from app.repositories.database import Database, UnitOfWork
from app.repositories.trail_queries import COUNT_LIMIT
from app.security.keys import Keyring
from app.services.admin_reads import Cursors
from app.services.replica import Replica

BUCKETS_MAXIMUM: Final = 1000
TAIL_PAGE: Final = 500

_BUCKET: Final = {Bucket.MINUTE: timedelta(minutes=1), Bucket.HOUR: timedelta(hours=1), Bucket.DAY: timedelta(days=1)}


@dataclass(frozen=True, slots=True)
class Found:
    """
    A page of events with the names behind their ids.

    Args:
        next: The cursor of the next page, bound to filter and order; `None` on the last.
        count: If it was asked for: how many match, up to `COUNT_LIMIT`, and whether that is all.
    """

    events: list[StoredEvent]
    names: dict[UUID, str]
    next: str | None
    count: int | None
    count_is_exact: bool | None


class Trail:
    def __init__(self, database: Database, keyring: Keyring, replica: Replica) -> None:
        self._database = database
        self._replica = replica
        self._keyring = keyring
        self._cursors = Cursors(keyring)

    async def list_page(self, user_id: UUID, *, after: Position | None, limit: int) -> Page[StoredEvent]:
        """The user's own events, newest first."""
        async with self._database.begin() as db:
            rows = await db.audit.list_page(user_id, before=after, limit=limit + 1)
        return page_of(rows, limit, lambda event: Position(event.occurred_at, event.id))

    async def find_person(self, name_or_id: str) -> UUID | None:
        """A user by id or by name; `None`: nobody has that name. An id need not be known: the trail outlives rows."""
        try:
            return UUID(name_or_id)
        except ValueError:
            pass
        try:
            key = username_key(name_or_id)
        except UsernameRefused:
            return None
        async with self._database.begin() as db:
            user = await db.users.find_by_key(key)
        return user.id if user else None

    async def search(
        self,
        wanted: EventFilter,
        *,
        newest_first: bool,
        cursor: str | None,
        limit: int,
        with_count: bool,
        actor: Actor,
        client: ClientContext,
    ) -> Found:
        """
        Events that match. That somebody asked is an event itself, committed before they get the answer; the read before
        it needs no transaction id, so it holds up no sealing.

        Raises:
            InputInvalid: the cursor is not of this filter and order.
            QueryTooBroad: it would take too long.
        """
        order = "newest" if newest_first else "oldest"
        after = self._cursors.read(cursor, wanted.fingerprint(order)) if cursor is not None else None

        async def look(db: UnitOfWork) -> tuple[list[StoredEvent], int | None, dict[UUID, str]]:
            rows = await db.trail.search(wanted, newest_first=newest_first, after=after, limit=limit + 1)
            count = await db.trail.count(wanted) if with_count else None
            people = {event.subject_id for event in rows} | {event.actor_id for event in rows if event.actor_id}
            return rows, count, await db.trail.find_names(people)

        try:
            rows, count, names = await self._replica.read(look)
        except TookTooLong as error:
            raise QueryTooBroad(why=error.why) from error
        page = page_of(rows, limit, lambda event: Position(event.occurred_at, event.id))
        asked = {**self._described(wanted), "order": order, "limit": limit}
        await self.record("events", asked, len(page.items), actor, client)
        return Found(
            page.items,
            names,
            self._cursors.write(page.after, wanted.fingerprint(order)) if page.after else None,
            None if count is None else min(count, COUNT_LIMIT),
            None if count is None else count <= COUNT_LIMIT,
        )

    async def histogram(
        self, wanted: EventFilter, bucket: Bucket, *, actor: Actor, client: ClientContext
    ) -> list[tuple[datetime, str, int]]:
        """
        Counts by time and action; without a beginning, of the last hundred buckets.

        Raises:
            InputInvalid: more than `BUCKETS_MAXIMUM` buckets.
            QueryTooBroad: it would take too long.
        """

        async def look(db: UnitOfWork) -> list[tuple[datetime, str, int]]:
            until = wanted.until or await db.now()
            since = wanted.since or until - 100 * _BUCKET[bucket]
            if (until - since) / _BUCKET[bucket] > BUCKETS_MAXIMUM:
                raise InputInvalid(
                    f"That is more than {BUCKETS_MAXIMUM} buckets: take larger ones, or less time.", field="bucket"
                )
            return await db.trail.histogram(replace(wanted, since=since, until=until), bucket)

        try:
            counts = await self._replica.read(look)
        except TookTooLong as error:
            raise QueryTooBroad(why=error.why) from error
        asked = {**self._described(wanted), "bucket": bucket.value}
        await self.record("histogram", asked, sum(count for _, _, count in counts), actor, client)
        return counts

    async def tail(
        self, *, last: int, follow: AsyncIterator[None] | None, actor: Actor, client: ClientContext
    ) -> AsyncIterator[list[SealedFields]]:
        """
        The newest events, then each that commits, in the order of sealing: none is missed and none comes late.

        Args:
            follow: Yields when to look again; `None`: do not.
        """
        await self.record("tail", {"last": last}, last, actor, client)
        async with self._database.begin() as db:
            stretch = await db.seals.read_newest(max(last, 1))
        yield stretch.events if last else []
        place = stretch.end
        while follow is not None:
            async with self._database.begin() as db:
                stretch = await db.seals.read_committed_after(place, limit=TAIL_PAGE)
            place = stretch.end if stretch.events else place
            yield stretch.events
            if len(stretch.events) < TAIL_PAGE:
                try:
                    await anext(follow)
                except StopAsyncIteration:
                    return

    def _described(self, wanted: EventFilter) -> dict[str, JsonValue]:
        digest = self._keyring.name_digest(str(wanted.network)) if wanted.network is not None else None
        return wanted.described(digest)

    async def record(
        self, view: str, asked: Mapping[str, JsonValue], count: int, actor: Actor, client: ClientContext
    ) -> None:
        """Write down that somebody read: which view, what they asked for, how much they saw; not what."""
        event = Event(Action.AUDIT_QUERIED, actor, client, detail={"view": view, "filter": asked, "count": count})
        async with self._database.begin() as db:
            await db.audit.add(event, at=await db.now())
            await db.commit()
