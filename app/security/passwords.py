"""Password hashes: made and verified off the event loop, never more at once than the cores can do."""

import asyncio
import contextlib
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
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
NICENESS: Final = 10  # of the threads: a tenth of what the event loop gets where both want the same core
_WEIGHT: Final = 0.1  # of the latest hash in the moving average of how long they take


class _Place:
    """A place in the queue that is kept for somebody who has not asked for a hash yet."""

    __slots__ = ("taken",)

    def __init__(self) -> None:
        self.taken = False


_place: ContextVar[_Place | None] = ContextVar("place", default=None)


class PasswordHasher:
    """
    Hash and verify within bounds: a thread a processor, so at most threads x 19 MiB a process, and a queue that is
    bounded by how long the last one in it would wait. Who leaves it, or waits in vain, is not hashed for.

    The threads' priority is low: refreshes are answered beside a storm of sign-ins as if there were none.

    Raises:
        TooBusy: from `hash`, `verify` and `place`, at once, when the queue is full; later only from those who wait
            much longer than it seemed when they came.
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
        """`on_wait` is told, in whichever thread, how long each has waited for its turn."""
        self._on_wait = on_wait
        self.threads: Final = threads or usable_processors()
        self._limit = self.threads + queue_limit
        self._queue_seconds = queue_seconds
        self._patience = patience
        self._pending = 0  # hashes asked for and not done
        self._kept = 0  # places of those who have not asked yet
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

    @contextmanager
    def place(self) -> Iterator[None]:
        """
        A place in the queue for what the body will hash, so that nothing is looked up for those who find none.

        Raises:
            TooBusy: at once.
        """
        self._admit()
        place = _Place()
        self._kept += 1
        before = _place.set(place)
        try:
            yield
        finally:
            _place.reset(before)
            self._take(place)

    @property
    def running(self) -> int:
        """How many are being hashed now."""
        return min(self._pending, self.threads)

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return self._pending - self.running

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _admit(self) -> None:
        ahead = self._pending + self._kept
        wait = (ahead - self.threads + 1) / self.threads * self._seconds
        if ahead >= self.threads and (ahead >= self._limit or wait > self._queue_seconds):
            raise TooBusy(why="hash queue full")

    def _take(self, place: _Place) -> None:
        if not place.taken:
            place.taken = True
            self._kept -= 1

    async def _run(self, work: Callable[[], T]) -> T:
        place = _place.get()
        if place is None:
            self._admit()
        else:
            self._take(place)
        self._pending += 1
        asked = time.perf_counter()

        def work_in_turn() -> T:
            began = time.perf_counter()
            self._on_wait(began - asked)
            try:
                return work()
            finally:
                self._seconds += _WEIGHT * (time.perf_counter() - began - self._seconds)

        future = self._pool.submit(work_in_turn)
        # Counted down when the thread is done, not when the request is: a client that leaves frees no core.
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: self._leave(loop))
        return await self._turn(future, loop)

    async def _turn(self, future: Future[T], loop: asyncio.AbstractEventLoop) -> T:
        """The result; given up, and never begun, when the client leaves or the wait grows too long."""
        client = asker.get()
        giving_up = loop.call_later(self._patience, future.cancel)
        try:
            with client.telling(future.cancel):
                if client.left:
                    future.cancel()
                return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not future.cancelled() or (task is not None and task.cancelling()):
                raise
            raise TooBusy(why="client left" if client.left else "waited in vain") from None
        finally:
            giving_up.cancel()

    def _leave(self, loop: asyncio.AbstractEventLoop) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._count_down)

    def _count_down(self) -> None:
        self._pending -= 1


def _give_way() -> None:
    """
    Have the event loop, and a database on the same machine, go before this thread.

    On Linux a thread has a priority of its own; elsewhere it would be the whole process's.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
