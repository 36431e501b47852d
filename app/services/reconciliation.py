"""Comparing the trail with the tables: events folded into states must be the states that are stored."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from app.domain.clients import ClientContext
from app.domain.entries import moment
from app.domain.events import NOBODY, Actor
from app.domain.lives import IllegalLife, Life, missing_numbers
from app.repositories.database import Database
from app.repositories.reconciliations import StoredFamily, StoredUser
from app.services.trail import Trail

PAGE: Final = 25  # users in one snapshot: their events must fit into memory and into a statement's time


@dataclass(slots=True)
class Reconciled:
    """What was compared, and what differs: place and words."""

    users: int = 0
    sessions: int = 0
    events: int = 0
    differences: list[tuple[str, str]] = field(default_factory=list)


class Reconciliation:
    def __init__(self, database: Database, trail: Trail) -> None:
        self._database = database
        self._trail = trail

    async def run(self, *, progress: Callable[[int, int], None], actor: Actor, client: ClientContext) -> Reconciled:
        """
        Fold each user's events and compare them with the rows of the user and of their sessions, page by page, each in
        one snapshot that lives for a moment.
        """
        result, position = Reconciled(), NOBODY
        await self._trail.record("reconciliation", {}, 0, actor, client)
        while True:
            async with self._database.begin() as db:
                await db.seals.freeze()
                people = await db.reconciliations.list_people(after=position, limit=PAGE)
                if not people:
                    return result
                users = {user.id: user for user in await db.reconciliations.list_users(people)}
                families = await db.reconciliations.list_families(people)
                events = await db.reconciliations.list_events(people)
                total = await db.reconciliations.estimate_users()
                whole = not await db.seals.has_removed()
            comparison = _Comparison(result, whole=whole)
            for event in events:
                comparison.tell(event)
            for person in people:
                comparison.compare_user(person, users.get(person))
            for family in families:
                comparison.compare_session(family)
            comparison.end()
            position = people[-1]
            progress(result.users, max(total, result.users))


class _Comparison:
    """The people of one page."""

    def __init__(self, result: Reconciled, *, whole: bool) -> None:
        """`whole`: the trail still has its beginning; otherwise what is missing at the start is no difference."""
        self._result = result
        self._whole = whole
        self._lives: dict[UUID, Life] = defaultdict(Life)
        self._disabled: dict[UUID, bool] = {}
        self._roles: dict[UUID, str] = {}
        self._created: set[UUID] = set()

    def tell(self, event: dict[str, Any]) -> None:
        self._result.events += 1
        if event["family_seq"] is not None:
            try:
                self._lives[event["family_id"]].tell(event)
            except IllegalLife as error:
                self._differs(f"session {event['family_id']}", str(error))
        else:
            person, action, detail = event["subject_id"], event["action"], event["detail"]
            if (disabling := _DISABLING.get(action)) is not None:
                self._disabled[person] = disabling
            if action == "user.created":
                self._created.add(person)
            if (role := detail.get("to", detail.get("role"))) is not None:
                self._roles[person] = role

    def compare_user(self, person: UUID, user: StoredUser | None) -> None:
        if user is None:
            self._differs(f"user {person}", "has events, and no row")
            return
        self._result.users += 1
        if self._whole and person not in self._created:
            self._differs(f"user {person}", "has a row, and no event of its creation")
        elif self._disabled.get(person, user.disabled) != user.disabled:
            word = "not disabled" if user.disabled else "disabled"
            self._differs(f"user {person}", f"is {word} by the trail, and otherwise by the table")
        elif self._roles.get(person, user.role) != user.role:
            self._differs(
                f"user {person}", f"has the role {self._roles[person]} by the trail, {user.role} by the table"
            )

    def compare_session(self, family: StoredFamily) -> None:
        self._result.sessions += 1
        life = self._lives.pop(family.id, None)
        if life is not None and life.waiting and life.seq == 0 and not self._whole:
            try:
                life.begin_within()
            except IllegalLife as error:
                self._differs(f"session {family.id}", str(error))
        difference = _difference(family, life, whole=self._whole)
        if difference is not None:
            self._differs(f"session {family.id}", difference)

    def end(self) -> None:
        for family in self._lives:
            self._differs(f"session {family}", "has events, and no row")

    def _differs(self, place: str, what: str) -> None:
        self._result.differences.append((place, what))


_DISABLING: Final = {
    "user.created": False,
    "user.disabled": True,
    "user.enabled": False,
    "user.deleted": True,
    "subject.erased": True,
}


def _difference(family: StoredFamily, life: Life | None, *, whole: bool) -> str | None:
    if life is None or life.seq == 0:
        return "has a row, and no events" if whole else None
    if life.waiting:
        return missing_numbers(life)
    if life.seq != family.event_seq:
        return f"has {life.seq} events, and counts {family.event_seq}"
    if life.generation != family.generation:
        return f"is at generation {life.generation} by the trail, at {family.generation} by the table"
    if life.ended != family.end_reason:
        return f"ended by the trail: {life.ended}; by the table: {family.end_reason}"
    ended_at = moment(family.ended_at) if family.ended_at else None
    if life.ended_at != ended_at:
        return f"ended at {life.ended_at} by the trail, at {ended_at} by the table"
    return None
