"""Events folded into the states they lead to: a session's legal life, counted without gaps, with one end at most."""

from dataclasses import dataclass, field
from typing import Any, Final

from app.domain.events import Action

Members = dict[str, Any]
"""An entry's members, as `entries.py` writes them."""

_MOVES: Final = {Action.SESSION_REFRESHED.value, Action.SESSION_FAST_FORWARDED.value}


class IllegalLife(ValueError):
    """An event that cannot follow the ones before it. The message says why."""


@dataclass(slots=True)
class Life:
    """
    One session, as far as its events tell.

    Events may come in another order than they happened (the tree's order is not causal between transactions): those
    that are too early wait for the ones before them.
    """

    seq: int = 0
    generation: int | None = 0  # `None`: not known, since the beginning is not in what is being read
    subject: str = ""
    at: str = ""
    ended: str | None = None
    ended_at: str | None = None
    waiting: dict[int, Members] = field(default_factory=dict, repr=False)

    def tell(self, event: Members) -> None:
        """
        Fold one event.

        Raises:
            IllegalLife: it repeats a number, or does not follow from what was before.
        """
        seq = event["family_seq"]
        if seq != self.seq + 1:
            if seq <= self.seq or seq in self.waiting:
                raise IllegalLife(f"the family counter {seq} stands twice")
            self.waiting[seq] = event
            return
        self._step(event)
        while self.waiting and (following := self.waiting.pop(self.seq + 1, None)) is not None:
            self._step(following)

    def begin_within(self) -> None:
        """The beginning is not in what is being read: begin with the first event that is."""
        if self.waiting:
            first = min(self.waiting)
            event = self.waiting.pop(first)
            self.seq, self.generation, self.at = first - 1, None, event["occurred_at"]
            self.tell(event)

    def _step(self, event: Members) -> None:
        action, generation = event["action"], event["generation"]
        self.seq += 1
        if self.ended is not None:
            raise IllegalLife(f"{action} after the session's end")
        if (action == "session.created") != (self.seq == 1):
            raise IllegalLife(f"{action} as number {self.seq} of a session's life")
        if event["occurred_at"] < self.at:
            raise IllegalLife(f"{action} is dated before the event it follows")
        if event["subject_id"] != (self.subject or event["subject_id"]):
            raise IllegalLife(f"{action} is of another user than the session")
        self.at, self.subject = event["occurred_at"], event["subject_id"]
        self._move(action, generation, event)

    def _move(self, action: str, generation: int, event: Members) -> None:
        expected = generation if self.generation is None else self.generation
        if self.generation is not None and action in _MOVES:
            expected += 1 + event["detail"].get("lost_generations", 0)
        if generation != expected and not (action == "refresh.reused" and generation < expected):
            raise IllegalLife(f"{action} of generation {generation} where {expected} was due")
        if action != "refresh.reused":
            self.generation = generation
        if action == "session.ended":
            self.ended, self.ended_at = event["reason"], event["occurred_at"]


def missing_numbers(life: Life) -> str:
    """Which events of a session are missing, in words."""
    return (
        f"its event {life.seq + 1} is missing, though there is a later one" if life.seq else "its beginning is missing"
    )
