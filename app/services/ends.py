"""How a session's end enters the trail; shared by all that can end one."""

from collections.abc import Sequence

from app.domain.clients import ClientContext
from app.domain.events import SYSTEM, Action, Actor, Event
from app.repositories.families import EndedFamily


def end_events(ended: Sequence[EndedFamily], *, actor: Actor, client: ClientContext) -> list[Event]:
    """One `session.ended` for each family, numbered from its row; nobody acts when a limit has passed."""
    return [
        Event(
            Action.SESSION_ENDED,
            SYSTEM if family.lapsed else actor,
            client,
            reason=family.end_reason,
            at=family.ended_at,
            subject_id=family.user_id,
            family_id=family.id,
            family_seq=family.event_seq,
            generation=family.generation,
        )
        for family in ended
    ]


def count_ended(ended: Sequence[EndedFamily]) -> int:
    """How many of them were live until now."""
    return sum(not family.lapsed for family in ended)
