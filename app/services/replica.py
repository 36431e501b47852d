"""
Reads that a replica may answer: lists, timelines, numbers and exports for administrators and auditors.

Nothing is decided upon what a replica says. It is asked only if it is known to have everything that the primary had
committed a few seconds ago; otherwise, and if it breaks off, the primary answers.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar

from app.domain.errors import RotaError, SessionNotFound, TookTooLong, Unavailable
from app.observability.logs import get_logger
from app.repositories.database import Database, UnitOfWork
from app.repositories.positions import WalPosition

log = get_logger()

T = TypeVar("T")

SAMPLE_SECONDS: Final = 1.0  # between two looks at how far the primary is
ANSWER_SECONDS: Final = 2.0  # for a connection and a first answer; the primary would have answered by then
AWAY_SECONDS: Final = 5.0  # before a replica that did not answer is asked again

# How many milliseconds at most the replica was behind that answered in this request; `None`: the primary did.
shown_lag: ContextVar[int | None] = ContextVar("shown_lag", default=None)


class _Unfit(Unavailable):
    """The replica answers, and is not to be asked."""


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """
    Args:
        lag_ms: How far it is behind at most; `None`: not known.
        why: Why the primary answers in its place; `None`: it does not.
    """

    lag_ms: int | None
    why: str | None


class Replica:
    """
    Its lag is measured against the primary, without any clock but this process's: the primary says how far its log is,
    and later the replica whether it has come so far. So a replica that has lost its primary, and believes to be up to
    date, is seen to fall behind.

    Args:
        replica: `None`: there is none, and the primary answers everything.
        bound: A replica that may be further behind than that is not asked.
    """

    def __init__(self, primary: Database, replica: Database | None, *, bound: timedelta) -> None:
        self._primary = primary
        self._replica = replica
        self._bound = bound.total_seconds()
        self._cluster: int | None = None
        self._samples: deque[tuple[float, int]] = deque()  # when the primary was how far, oldest first
        self._sampling = asyncio.Lock()
        self._away_until = 0.0
        self._state = ReplicaState(None, "not asked yet")

    @property
    def state(self) -> ReplicaState | None:
        """As last seen; `None`: there is no replica."""
        return self._state if self._replica is not None else None

    async def read(self, work: Callable[[UnitOfWork], Awaitable[T]]) -> T:
        """
        Do read-only work in a transaction on the replica, or on the primary; on both, if the replica breaks off.

        What the replica does not have may be new, so before it is said that a session is not there the primary is
        asked. A statement that took too long on the replica would do so on the primary too.
        """
        shown_lag.set(None)
        if self._replica is not None and self._now() >= self._away_until:
            try:
                return await self._read_there(self._replica, work)
            except TookTooLong:
                raise
            except (Unavailable, SessionNotFound) as error:
                log.info("replica.passed_over", why=error.why or error.code)
        async with self._primary.begin() as db:
            return await work(db)

    async def follow(self) -> None:
        """Measure, until cancelled, so that it is known before somebody asks."""
        while self._replica is not None:
            try:
                await self._read_there(self._replica, _nothing)
            except Unavailable as error:
                log.debug("replica.not_measured", why=error.why)
            await asyncio.sleep(SAMPLE_SECONDS)

    async def close(self) -> None:
        if self._replica is not None:
            await self._replica.close()

    async def _read_there(self, replica: Database, work: Callable[[UnitOfWork], Awaitable[T]]) -> T:
        """
        Raises:
            Unavailable: it is away, not fit to be asked, or broke off.
        """
        await self._sample()
        try:
            async with asyncio.timeout(ANSWER_SECONDS), replica.begin() as db:
                lag = self._judge(await db.positions.get_replayed())
        except RotaError as error:
            self._note_trouble(error.why or error.code)
            raise
        except Exception as error:
            self._note_trouble(type(error).__name__)  # its password is wrong, say: no reason to answer nothing
            raise _Unfit(why=type(error).__name__) from error
        async with replica.begin() as db:  # another transaction: the work may want to begin it in its own way
            found = await work(db)
        shown_lag.set(lag)
        return found

    async def _sample(self) -> None:
        async with self._sampling:
            now = self._now()
            if self._samples and now - self._samples[-1][0] < SAMPLE_SECONDS:
                return
            async with self._primary.begin() as db:
                written = await db.positions.get_written()
            if written.cluster != self._cluster or (self._samples and self._samples[-1][1] > (written.at or 0)):
                self._samples.clear()  # another primary, whose log may be another one
            self._cluster = written.cluster
            self._samples.append((now, written.at or 0))
            while len(self._samples) > 1 and now - self._samples[1][0] > self._bound:
                self._samples.popleft()

    def _judge(self, replayed: WalPosition) -> int:
        """How many milliseconds it may be behind; raises if it is not to be asked."""
        if replayed.at is None:
            raise _Unfit(why="not a standby")
        if replayed.cluster != self._cluster:
            raise _Unfit(why="a standby of another cluster")
        had = [at for at, position in self._samples if position <= replayed.at]
        lag = self._now() - had[-1] if had else None
        lag_ms = None if lag is None else max(0, round(1000 * lag))
        if lag is None or lag_ms is None or lag > self._bound:
            self._note(ReplicaState(lag_ms, "too far behind"))
            raise _Unfit(why="too far behind")
        self._note(ReplicaState(lag_ms, None))
        return lag_ms

    def _note_trouble(self, why: str) -> None:
        if self._state.why == why == "too far behind":
            return  # noted with its lag; it answers, so it may be asked again at once
        self._away_until = self._now() + AWAY_SECONDS
        self._note(ReplicaState(None, why))

    def _note(self, state: ReplicaState) -> None:
        """Said once, not at each read."""
        if state.why != self._state.why:
            if state.why is None:
                log.info("replica.answers", lag_ms=state.lag_ms)
            else:
                log.warning("replica.not_asked", why=state.why)
        self._state = state

    def _now(self) -> float:
        return self._primary.clock.elapsed()


async def _nothing(_: UnitOfWork) -> None:
    """Only the look at how far it is."""
