"""The form in which the vocabulary says what an action means and holds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from app.domain.events import Outcome

ROLLED_UP: Final = "rolled_up"  # the reason of a sum


class Level(StrEnum):
    """How much it matters to whoever watches."""

    ROUTINE = "routine"  # the ordinary life of sessions
    NOTICE = "notice"  # worth a look in a review
    WARNING = "warning"  # somebody may be attacking
    ALARM = "alarm"  # somebody must act


class Numbered(StrEnum):
    """Whether events carry the family's counter."""

    ALWAYS = "always"
    NEVER = "never"


class Kind(StrEnum):
    STRING = "string"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    STRINGS = "list of strings"
    OBJECT = "object"


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an event's detail."""

    kind: Kind
    meaning: str
    required: bool = True
    nullable: bool = False


@dataclass(frozen=True, slots=True)
class Definition:
    """
    What an action means and holds.

    Args:
        outcome: The only one it has.
        reasons: The closed list; if empty, an event has no reason.
        numbered: Events of a session's own life are counted without gaps; they change or follow its row.
        session: Whether the event names a session.
    """

    meaning: str
    level: Level = Level.ROUTINE
    outcome: Outcome = Outcome.SUCCESS
    reasons: frozenset[str] = frozenset()
    numbered: Numbered = Numbered.NEVER
    session: bool = False
    detail: Mapping[str, Member] = field(default_factory=dict)


SUMMED: Final[Mapping[str, Member]] = {
    "count": Member(Kind.INTEGER, "in a sum: how many more there were in that minute", required=False),
    "minute": Member(Kind.STRING, "in a sum: which minute", required=False),
}
