"""Password hashes: made and verified off the event loop, never more at once than the cores can do."""

import asyncio
import contextlib
import os
import secrets
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Final, TypeVar

from app.domain.errors import TooBusy
from app.domain.passwords import canonical_password
from app.security.asker import asker
from app.security.password_hashes import PasswordHashes
from app.security.processors import usable_processors

T = TypeVar("T")

# OWASP's minimum for Argon2id: 19 MiB, two passes, one lane.
MEMORY_KIB: Final = 19_456
PASSES: Final = 2
LANES: Final = 1

QUEUE_SECONDS: Final = 2.0  # whoever would wait longer, by what hashes have taken lately, is refused at once
QUEUE_LIMIT: Final = 1024  # waiting hashes, however fast they are
PATIENCE: Final = 2 * QUEUE_SECONDS  # for the guess was wrong, and the cores have more to do than before
TURNS_A_THREAD: Final = 3  # one hashes, and as many wait for it as are looked up meanwhile
NICENESS: Final = 10  # of the threads: a tenth of what the event loop gets where both want the same core
_WEIGHT: Final = 0.1  # of the latest hash in the moving average of how long they take


class _Turn:
    """What somebody has who may hash: it is over when their hash is done, and another one's begins."""

    __slots__ = ("hashing", "over", "waited")

    def __init__(self, waited: float) -> None:
        self.waited = waited  # in seconds
        self.hashing = False  # or waiting for a thread
        self.over = False


_turn: ContextVar[_Turn | None] = ContextVar("turn", default=None)


class PasswordHasher:
    """
    Hash and verify within bounds: a thread a processor, so at most threads x 19 MiB a process, and a queue that is
    bounded by how long the last one in it would wait. Who leaves it, or waits in vain, is not hashed for.

    The queue is for turns, and a turn may begin with what has to be looked up for the hash: so few at a time have one
    that the threads have just enough to do, and that neither the event loop nor the database sees more of a storm than
    can be hashed. The threads' priority is low, so that refreshes go before them; what hashing does to caches and
    memory slows these down all the same.

    Raises:
        TooBusy: from `hash`, `verify` and `turn`, at once, when the queue is full; later only from those who wait
            much longer than it seemed when they came. Never from somebody who has had their turn.
    """

    def __init__(
        self,
        *,
        threads: int | None = None,
        queue_limit: int = QUEUE_LIMIT,
        queue_seconds: float = QUEUE_SECONDS,
        patience: float = PATIENCE,
        on_wait: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        """`on_wait` is told, in whichever thread, how long each has waited for its turn and for a thread."""
        self._on_wait = on_wait
        self.threads: Final = threads or usable_processors()
        self._places = TURNS_A_THREAD * self.threads
        self._limit = self.threads + queue_limit
        self._queue_seconds = queue_seconds
        self._patience = patience
        self._queue: OrderedDict[asyncio.Future[str | None], None] = OrderedDict()  # a turn, or why there is none
        self._turns = 0  # that are not over
        self._pending = 0  # hashes handed to the threads and not done
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="argon2", initializer=_give_way)
        self._context = PasswordHashes(memory_kib=MEMORY_KIB, passes=PASSES, lanes=LANES)
        # Somebody who does not exist is verified against this, so that it takes as long as somebody who does.
        began = time.perf_counter()
        self._nobody = self._context.hash(secrets.token_urlsafe())
        self._seconds = time.perf_counter() - began  # that a hash takes

    async def hash(self, password: str) -> str:
        """A new hash with today's parameters."""
        hashed: str = await self._run(lambda: self._context.hash(canonical_password(password)))
        return hashed

    async def verify(self, password: str, stored: str | None) -> bool:
        """
        Whether the password is the stored hash's. `None`, for an unknown user, takes the same time and is false.

        So does a text that is no hash of a kind we know: nobody's password, and no reason to fail.
        """
        target = stored or self._nobody
        right: bool = await self._run(lambda: self._context.verify(canonical_password(password), target))
        return right and stored is not None

    def is_outdated(self, stored: str) -> bool:
        """Whether a stored hash is of another kind, or has other parameters, than today's."""
        return self._context.needs_update(stored)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """
        Wait for a turn, in which the body looks up what it needs and hashes; so nothing is looked up for those who get
        none. It ends with the first hash; the body may hash again, and go on without hashing as long as it likes.

        Raises:
            TooBusy: as above, before the body.
        """
        self.admit()
        asked = time.perf_counter()
        await self._wait()
        turn = _Turn(time.perf_counter() - asked)
        before = _turn.set(turn)
        try:
            yield
        finally:
            _turn.reset(before)
            if not turn.hashing:  # a thread that is busy for somebody who has left is busy all the same
                self._end(turn)

    def admit(self) -> None:
        """
        Nothing, unless the queue is full.

        Raises:
            TooBusy: as above.
        """
        ahead = len(self._queue) + self._turns
        wait = (ahead - self.threads + 1) / self.threads * self._seconds
        if ahead >= self.threads and (ahead >= self._limit or wait > self._queue_seconds):
            raise TooBusy(why="hash queue full")

    @property
    def running(self) -> int:
        """How many are being hashed now."""
        return min(self._pending, self.threads)

    @property
    def waiting(self) -> int:
        """How many wait for their turn, or in it for a thread."""
        return len(self._queue) + self._pending - self.running

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def _wait(self) -> None:
        """For a turn, in the order of asking; given up when the client leaves or the wait grows too long."""
        client = asker.get()
        if client.left:
            raise TooBusy(why="client left")
        if self._turns < self._places:  # then nobody waits
            self._turns += 1
            return
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[str | None] = loop.create_future()

        def give_up(why: str) -> None:
            if self._queue.pop(turn, turn) is None and not turn.done():
                turn.set_result(why)

        self._queue[turn] = None
        giving_up = loop.call_later(self._patience, give_up, "waited in vain")
        try:
            with client.telling(lambda: give_up("client left")):
                why = await turn
        except asyncio.CancelledError:
            self._queue.pop(turn, None)
            if not turn.cancelled() and turn.result() is None:
                self._hand_on()
            raise
        finally:
            giving_up.cancel()
        if why is not None:
            raise TooBusy(why=why)

    def _end(self, turn: _Turn) -> None:
        if not turn.over:
            turn.over = True
            self._hand_on()

    def _hand_on(self) -> None:
        """A turn is over: whoever has waited longest has the next one."""
        self._turns -= 1
        while self._queue and self._turns < self._places:
            following, _ = self._queue.popitem(last=False)
            if not following.done():  # or cancelled a moment ago
                following.set_result(None)
                self._turns += 1

    async def _run(self, work: Callable[[], T]) -> T:
        turn = _turn.get()
        if turn is None:
            async with self.turn():
                return await self._run(work)
        if turn.over:  # a second hash, of somebody who is not sent away after the first
            turn.over, turn.waited = False, 0.0
            self._turns += 1
        client, asked = asker.get(), time.perf_counter()

        def work_in_turn() -> T:
            began = time.perf_counter()
            if client.left:
                raise TooBusy(why="client left")
            self._on_wait(turn.waited + began - asked)
            try:
                return work()
            finally:
                self._learn(time.perf_counter() - began)

        try:
            future = self._pool.submit(work_in_turn)
        except RuntimeError:  # no more threads to be had, or none any more
            raise TooBusy(why="no thread for a hash") from None
        turn.hashing = True
        self._pending += 1
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: self._leave(loop, turn))
        return await asyncio.wrap_future(future)

    def _learn(self, seconds: float) -> None:
        """What a hash has taken. A dear one, of a kind that somebody brought along, does not speak for the next."""
        self._seconds += _WEIGHT * (min(seconds, 4 * self._seconds) - self._seconds)

    def _leave(self, loop: asyncio.AbstractEventLoop, turn: _Turn) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._count_down, turn)

    def _count_down(self, turn: _Turn) -> None:
        self._pending -= 1
        turn.hashing = False
        self._end(turn)


def _give_way() -> None:
    """
    Have the event loop, and a database on the same machine, go before this thread.

    On Linux a thread has a priority of its own; elsewhere it would be the whole process's.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
