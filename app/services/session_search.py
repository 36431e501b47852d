"""Finding sessions: lists by filter, in pages whose price does not depend on what is asked."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from app.domain.canonical_json import JsonValue
from app.domain.clients import ClientContext
from app.domain.errors import QueryTooBroad, TookTooLong
from app.domain.events import Actor
from app.domain.families import Family
from app.domain.pages import Position
from app.domain.session_filters import SessionFilter, SessionSort
from app.repositories.database import Database, UnitOfWork
from app.repositories.session_lists import SORT_LIMIT, USES_LIMIT
from app.repositories.session_ways import Way, span_of
from app.security.keys import Keyring
from app.services.admin_reads import AdminReads, Cursors
from app.services.replica import Replica

# A page looks through sessions for so long. What it has not found by then, the next page goes on to look for.
LOOK_SECONDS: Final = 0.02
LOOKS_MINIMUM: Final = 2_000  # so many it looks at in any case: on a busy machine too, pages get full where they can
STRETCH_MINIMUM: Final = 200
STRETCH_MAXIMUM: Final = 20_000
EXPORT_PAGE: Final = 1_000
EXPORT_LOOK_SECONDS: Final = 1.0  # in one transaction

_NOWHERE: Final = datetime(1970, 1, 1, tzinfo=UTC)  # a place in the order of creation is an id


@dataclass(frozen=True, slots=True)
class FoundSessions:
    """
    A page of sessions with the names of their users.

    Args:
        now: The moment at which they were so: states depend on it.
        next: The cursor of the next page, bound to filter and order; `None` on the last.
        cut_short: Whether the page ended before it was full, since so few of those looked at do match.
    """

    families: list[Family]
    names: dict[UUID, str]
    now: datetime
    next: str | None
    cut_short: bool

    def joined(self, following: "FoundSessions") -> "FoundSessions":
        """This page and the one after it as one."""
        return replace(following, families=self.families + following.families, names=self.names | following.names)


@dataclass(slots=True)
class _Found:
    """What a walk has found, and from where to go on; `None`: there is nothing more."""

    families: list[Family] = field(default_factory=list)
    place: UUID | None = None


class SessionSearch:
    def __init__(
        self, database: Database, keyring: Keyring, replica: Replica, *, look_seconds: float = LOOK_SECONDS
    ) -> None:
        self._replica = replica
        self._keyring = keyring
        self._cursors = Cursors(keyring)
        self._reads = AdminReads(database)
        self._look_seconds = look_seconds

    async def search(
        self,
        wanted: SessionFilter,
        *,
        sort: SessionSort,
        newest_first: bool,
        cursor: str | None,
        limit: int,
        actor: Actor,
        client: ClientContext,
    ) -> FoundSessions:
        """
        Sessions that match. That somebody asked is an event, committed before they get the answer.

        Raises:
            InputInvalid: the cursor is not of this filter and order.
            QueryTooBroad: too many sessions to be sorted by their last use, or too many uses of an address.
        """
        order = f"{sort} {'newest' if newest_first else 'oldest'}"
        fingerprint = wanted.fingerprint(order)
        after = self._cursors.read(cursor, fingerprint) if cursor is not None else None

        async def look(db: UnitOfWork) -> tuple[datetime, _Found, Position | None, dict[UUID, str]]:
            last: Position | None
            await db.session_lists.begin()
            now = await db.now()
            if sort is SessionSort.CREATED:
                found = await self._walk(db, wanted, now, after.id if after else None, newest_first, limit)
                last = Position(_NOWHERE, found.place) if found.place else None
            else:
                found, last = await self._sort(db, wanted, now, after, newest_first, limit)
            return now, found, last, await db.trail.find_names({family.user_id for family in found.families})

        try:
            now, found, last, names = await self._replica.read(look)
        except TookTooLong as error:
            raise QueryTooBroad(why=error.why) from error
        asked = {**self.describe(wanted), "order": order, "limit": limit}
        await self._reads.record("sessions", asked, len(found.families), actor=actor, client=client)
        return FoundSessions(
            families=found.families,
            names=names,
            now=now,
            next=self._cursors.write(last, fingerprint) if last else None,
            cut_short=last is not None and len(found.families) < limit,
        )

    def describe(self, wanted: SessionFilter) -> dict[str, JsonValue]:
        """The filter for an event: names and addresses only as their keyed digest."""
        return wanted.described(self._keyring.name_digest)

    async def pages(self, wanted: SessionFilter, *, newest_first: bool) -> AsyncIterator[FoundSessions]:
        """
        All sessions that match, in order of creation: each page in a transaction of its own, which is over before the
        page is handed on. However slowly somebody reads, no snapshot grows old and no connection waits.

        Raises:
            QueryTooBroad: as `search`.
        """
        place: UUID | None = None

        async def look(db: UnitOfWork) -> tuple[datetime, _Found, dict[UUID, str]]:
            await db.session_lists.begin()
            now = await db.now()
            found = await self._walk(db, wanted, now, place, newest_first, EXPORT_PAGE, seconds=EXPORT_LOOK_SECONDS)
            return now, found, await db.trail.find_names({family.user_id for family in found.families})

        while True:
            try:
                now, found, names = await self._replica.read(look)
            except TookTooLong as error:
                raise QueryTooBroad(why=error.why) from error
            place = found.place
            if found.families:
                yield FoundSessions(found.families, names, now, next=None, cut_short=False)
            if place is None:
                return

    async def _walk(
        self,
        db: UnitOfWork,
        wanted: SessionFilter,
        now: datetime,
        place: UUID | None,
        newest_first: bool,  # noqa: FBT001 - handed through
        limit: int,
        *,
        seconds: float | None = None,
    ) -> _Found:
        """A page in order of creation: stretch by stretch until it is full, nothing is left, or the time is up."""
        ways = await self._find_ways(db, wanted)
        longest_life = await db.session_lists.find_longest_life() if wanted.last_used_from else None
        span = span_of(wanted, newest_first=newest_first, longest_life=longest_life).after(place)
        found = _Found()
        if span is None or wanted.is_contradictory:
            return found
        way = await db.session_lists.choose(ways, span)
        seconds = self._look_seconds if seconds is None else seconds
        clock = asyncio.get_running_loop().time
        started, seen, length = clock(), 0, 4 * (limit + 1)
        while span is not None:
            stretch = await db.session_lists.look(
                way, wanted, now, span, length=length, limit=limit + 1 - len(found.families)
            )
            found.families += stretch.families
            if len(found.families) > limit:
                found.families.pop()
                found.place = found.families[-1].id
                return found
            if stretch.seen < length:
                return found
            spent, seen = clock() - started, seen + stretch.seen
            if spent >= seconds and seen >= LOOKS_MINIMUM:
                found.place = stretch.end
                return found
            affordable = int(seen / max(spent, 0.001) * (seconds - spent))
            length = min(max(affordable, LOOKS_MINIMUM - seen, STRETCH_MINIMUM), STRETCH_MAXIMUM)
            span = span.after(stretch.end)
        return found

    async def _sort(
        self,
        db: UnitOfWork,
        wanted: SessionFilter,
        now: datetime,
        after: Position | None,
        newest_first: bool,  # noqa: FBT001 - handed through
        limit: int,
    ) -> tuple[_Found, Position | None]:
        """A page by last use, where something in the filter bounds the set."""
        if wanted.is_contradictory:
            return _Found(), None
        ways = await self._find_ways(db, wanted)
        longest_life = await db.session_lists.find_longest_life() if wanted.last_used_from else None
        span = span_of(wanted, newest_first=newest_first, longest_life=longest_life)
        families = await db.session_lists.list_by_last_use(ways, wanted, now, span, after=after, limit=limit + 1)
        if families is None:
            raise QueryTooBroad(
                f"Only {SORT_LIMIT:,} sessions can be sorted by last_used: narrow the filter by user, ip, or a short "
                "range of created_from and created_to; or sort by created."
            )
        page = families[:limit]
        if len(families) <= limit:
            return _Found(page), None
        last = page[-1]
        return _Found(page), Position(last.rotated_at or last.created_at, last.id)

    async def _find_ways(self, db: UnitOfWork, wanted: SessionFilter) -> list[Way]:
        ways = await db.session_lists.find_ways(wanted)
        if ways is None:
            raise QueryTooBroad(
                f"The trail has more than {USES_LIMIT:,} uses of ip: narrow it, give a later created_from, or leave "
                "ip_scope=any."
            )
        return ways
