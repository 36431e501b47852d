"""Password hashes: made and verified off the event loop, never more at once than the cores can do."""

import asyncio
import os
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from app.domain.errors import TooBusy
from app.domain.passwords import canonical_password
from app.security.password_hashes import PasswordHashes

T = TypeVar("T")

# OWASP's minimum for Argon2id: 19 MiB, two passes, one lane.
MEMORY_KIB: Final = 19_456
PASSES: Final = 2
LANES: Final = 1

QUEUE_LIMIT: Final = 128  # waiting hashes; at some 30 ms each on two cores the last one waits two seconds


class PasswordHasher:
    """
    Hash and verify within bounds: one thread a core, so at most cores x 19 MiB a process, and a bounded queue.

    Raises:
        TooBusy: from `hash` and `verify`, at once, when the queue is full.
    """

    def __init__(
        self,
        *,
        threads: int | None = None,
        queue_limit: int = QUEUE_LIMIT,
        on_wait: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        """`on_wait` is told, in whichever thread, how long each has waited for its turn."""
        self._on_wait = on_wait
        self._threads = threads or os.cpu_count() or 1
        self._limit = self._threads + queue_limit
        self._pending = 0
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="argon2")
        self._context = PasswordHashes(memory_kib=MEMORY_KIB, passes=PASSES, lanes=LANES)
        # Somebody who does not exist is verified against this, so that it takes as long as somebody who does.
        self._nobody = self._context.hash(secrets.token_urlsafe())

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

    @property
    def running(self) -> int:
        """How many are being hashed now."""
        return min(self._pending, self._threads)

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return self._pending - self.running

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._pending >= self._limit:
            raise TooBusy(why="hash queue full")
        self._pending += 1
        asked = time.perf_counter()

        def work_in_turn() -> T:
            self._on_wait(time.perf_counter() - asked)
            return work()

        future = self._pool.submit(work_in_turn)
        # Counted down when the thread is done, not when the request is: a client that leaves frees no core.
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: self._leave(loop))
        return await asyncio.wrap_future(future)

    def _leave(self, loop: asyncio.AbstractEventLoop) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._count_down)

    def _count_down(self) -> None:
        self._pending -= 1
