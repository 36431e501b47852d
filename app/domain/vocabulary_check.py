"""Whether an event is as the vocabulary says: asked before it is written, and of each one that an auditor verifies."""

from collections.abc import Mapping
from typing import Any, Final

from app.domain.definitions import Definition, Kind, Member, Numbered
from app.domain.events import ActorKind, Event
from app.domain.vocabulary import DEFINITIONS


def check(event: Event) -> None:
    """
    Refuse to write what the vocabulary does not know.

    Raises:
        ValueError: a reason, outcome or detail that the action does not have.
    """
    wrong = fault(
        {
            "action": event.action,
            "outcome": event.outcome,
            "reason": event.reason,
            "actor_kind": event.actor.kind,
            "family_id": event.family_id,
            "family_seq": event.family_seq,
            "generation": event.generation,
            "detail": event.detail,
        }
    )
    if wrong is not None:
        raise ValueError(f"{event.action}: {wrong}")


def fault(event: Mapping[str, Any]) -> str | None:
    """What is wrong with an event of version 1, given by its members as an entry names them; `None`: nothing."""
    definition = _BY_NAME.get(event["action"])
    if definition is None:
        return "an unknown action"
    if event["outcome"] != definition.outcome:
        return "an outcome that this action does not have"
    reason = event["reason"]
    if (reason not in definition.reasons) if definition.reasons else reason is not None:
        return "a reason that this action does not have"
    if event["actor_kind"] not in _ACTOR_KINDS:
        return "an unknown kind of actor"
    if definition.session and event["family_id"] is None:
        return "no session"
    number, generation, detail = event["family_seq"], event["generation"], event["detail"]
    if (definition.numbered is Numbered.ALWAYS) != (number is not None):
        return "a family counter where none belongs, or none where one does"
    if number is not None and (number < 1 or generation is None or generation < 0):
        return "a family counter or generation out of bounds"
    return _detail_fault(definition.detail, detail) if detail or definition.detail else None


def _detail_fault(members: Mapping[str, Member], detail: Mapping[str, Any]) -> str | None:
    for name, value in detail.items():
        member = members.get(name)
        if member is None or not (_TYPES[member.kind](value) or (value is None and member.nullable)):
            return "a detail that this action does not have"
    if any(member.required and name not in detail for name, member in members.items()):
        return "a detail is missing"
    return None


_BY_NAME: Final[dict[str, Definition]] = {action.value: definition for action, definition in DEFINITIONS.items()}
_ACTOR_KINDS: Final = frozenset(kind.value for kind in ActorKind)
_TYPES: Final = {
    Kind.STRING: lambda value: isinstance(value, str),
    Kind.INTEGER: lambda value: isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 2**53,
    Kind.BOOLEAN: lambda value: isinstance(value, bool),
    Kind.STRINGS: lambda value: isinstance(value, list | tuple) and all(isinstance(item, str) for item in value),
    Kind.OBJECT: lambda value: isinstance(value, Mapping),
}
