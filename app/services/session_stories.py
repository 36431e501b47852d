"""One session as an administrator sees it: its row, its generations, and why it is over or until when it lives."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from app.domain.canonical_json import JsonValue
from app.domain.clients import ClientContext
from app.domain.errors import QueryTooBroad, SessionNotFound, TookTooLong
from app.domain.event_filters import EventFilter
from app.domain.events import Action, Actor
from app.domain.families import EndReason, Family
from app.domain.pages import Position, page_of
from app.domain.revocations import Revocation
from app.domain.session_stories import Facts, Generation, Reuse, Told, by_generation, explain
from app.repositories.audit import StoredEvent
from app.repositories.database import Database, UnitOfWork
from app.repositories.session_events import told
from app.security.keys import Keyring
from app.services.admin_reads import AdminReads, Cursors
from app.services.replica import Replica

EVENTS_A_GENERATION: Final = 2  # as a page of generations is reckoned in events
REFUSALS: Final = 20
_BULK_REASONS: Final = {EndReason.BULK_ADMIN, EndReason.RESTORE}


@dataclass(frozen=True, slots=True)
class Story:
    """
    A session and a page of its generations, newest first.

    Args:
        now: The moment at which it was so.
        names: Of its user, and of whoever ended it.
        reuse: Both presenters, if it ended so.
        end: The event of its end; `None`: it has not ended, or the trail does not have it any more.
        refusals: The newest presentations of its tokens that were refused.
        next: The cursor of the next page; `None` on the last.
    """

    family: Family
    now: datetime
    names: dict[UUID, str]
    generations: list[Generation]
    reuse: Reuse | None
    end: Told | None
    refusals: list[Told]
    next: str | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """One sentence, and the events that it is built from, oldest first."""

    family: Family
    now: datetime
    sentence: str
    evidence: list[StoredEvent]


class SessionStories:
    def __init__(self, database: Database, keyring: Keyring, replica: Replica) -> None:
        self._replica = replica
        self._cursors = Cursors(keyring)
        self._reads = AdminReads(database)

    async def show(
        self, session_id: UUID, *, cursor: str | None, limit: int, actor: Actor, client: ClientContext
    ) -> Story:
        """
        A session with about `limit` of its generations.

        Raises:
            SessionNotFound: there is none.
            InputInvalid: the cursor is not of this session.
            QueryTooBroad: its user's trail is too long to find them in time.
        """
        fingerprint = b"session " + session_id.bytes
        before = self._cursors.read(cursor, fingerprint) if cursor is not None else None

        async def look(db: UnitOfWork) -> Story:
            family, now = await _find(db, session_id)
            size = EVENTS_A_GENERATION * limit
            events = await db.session_events.list_life(family, before=before, limit=size + 1)
            page = page_of(events, size, lambda event: Position(event.occurred_at, event.id))
            end, reuse, _ = await _ending(db, family)
            refusals = await db.session_events.list_refusals(family, limit=REFUSALS)
            return Story(
                family=family,
                now=now,
                names=await db.trail.find_names(_people(family, end)),
                generations=by_generation([told(event) for event in page.items]),
                reuse=reuse,
                end=told(end) if end else None,
                refusals=[told(event) for event in refusals],
                next=self._cursors.write(page.after, fingerprint) if page.after else None,
            )

        try:
            story = await self._replica.read(look)
        except TookTooLong as error:
            raise QueryTooBroad(why=error.why) from error
        asked: dict[str, JsonValue] = {"session": str(session_id), "limit": limit}
        await self._reads.record("session", asked, 1, actor=actor, client=client)
        return story

    async def explain(self, session_id: UUID, *, actor: Actor, client: ClientContext) -> Explanation:
        """
        Why a session is over, or until when it lives.

        Raises:
            SessionNotFound: there is none.
            QueryTooBroad: as `show`.
        """

        async def look(db: UnitOfWork) -> Explanation:
            family, now = await _find(db, session_id)
            end, reuse, evidence = await _ending(db, family)
            bulk, ordered = await _bulk_end(db, end)
            evidence = [*ordered, *evidence]
            if not evidence:
                evidence = (await db.session_events.list_life(family, before=None, limit=1))[:1]
            names = await db.trail.find_names(_people(family, end))
            facts = Facts(family, now, names, told(end) if end else None, reuse, bulk)
            return Explanation(family, now, explain(facts), evidence)

        try:
            explanation = await self._replica.read(look)
        except TookTooLong as error:
            raise QueryTooBroad(why=error.why) from error
        asked = {"session": str(session_id)}
        await self._reads.record("session explanation", asked, 1, actor=actor, client=client)
        return explanation


async def _find(db: UnitOfWork, session_id: UUID) -> tuple[Family, datetime]:
    await db.session_lists.begin()
    family = await db.session_lists.find(session_id)
    if family is None:
        raise SessionNotFound
    return family, await db.now()


async def _ending(db: UnitOfWork, family: Family) -> tuple[StoredEvent | None, Reuse | None, list[StoredEvent]]:
    """The event of the end, both presenters of a reuse, and all events that tell of it, oldest first."""
    if family.ended_at is None:
        return None, None, []
    end = await db.session_events.find_last(family, Action.SESSION_ENDED)
    presented = spent = None
    if family.end_reason is EndReason.REUSE:
        presented = await db.session_events.find_last(family, Action.REFRESH_REUSED)
        named = told(presented).detail.get("rotation_event") if presented else None
        if presented and named:
            spent = await db.session_events.find(family, UUID(named), until=presented.occurred_at)
    reuse = Reuse(told(spent) if spent else None, told(presented)) if presented else None
    return end, reuse, [event for event in (spent, presented, end) if event]


async def _bulk_end(db: UnitOfWork, end: StoredEvent | None) -> tuple[Revocation | None, list[StoredEvent]]:
    """The bulk end that a session ended with, whose id is the request of its end; and the event of the order."""
    if end is None or end.request_id is None or end.reason not in _BULK_REASONS:
        return None, []
    bulk = await db.revocations.find(end.request_id)
    if bulk is None:
        return None, []
    ordered = EventFilter(actions=(Action.REVOCATION_STARTED,), request_id=bulk.id)
    return bulk, await db.trail.search(ordered, newest_first=False, after=None, limit=1)


def _people(family: Family, end: StoredEvent | None) -> set[UUID]:
    people: Sequence[UUID | None] = (family.user_id, family.ended_by, end.actor_id if end else None)
    return {person for person in people if person is not None}
