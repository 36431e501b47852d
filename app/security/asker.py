"""Whoever waits for an answer: dear work that waits for its turn is not done for somebody who has left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final


class Asker:
    """One request's client, as far as the work for it must know. Belongs to the event loop."""

    __slots__ = ("_told", "left")

    def __init__(self) -> None:
        self.left = False
        self._told: list[Callable[[], object]] = []

    def leave(self) -> None:
        """The connection is gone, and with it the only one who could have got the answer."""
        self.left = True
        for tell in tuple(self._told):
            tell()

    @contextmanager
    def telling(self, tell: Callable[[], object]) -> Iterator[None]:
        """While the body runs, have this called when the client leaves."""
        self._told.append(tell)
        try:
            yield
        finally:
            self._told.remove(tell)


NOBODY: Final = Asker()  # of work that no request asked for: it never leaves

asker: ContextVar[Asker] = ContextVar("asker", default=NOBODY)
