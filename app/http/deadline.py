"""No request waits for ever: until its answer begins, it has so many seconds."""

import asyncio
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.domain.errors import DeadlinePassed
from app.http.errors import answer_rota_error
from app.services.replica import shown_lag

_DEADLINE: Final = "deadline"  # in the request's state
LOOK_SECONDS: Final = 0.25
LAG_HEADER: Final = b"x-rota-replica-lag-ms"


class _Running:
    """A request that has not begun to answer."""

    __slots__ = ("expired", "task", "until")

    def __init__(self, task: asyncio.Task[None], until: float) -> None:
        self.task = task
        self.until = until
        self.expired = False


class Deadline:
    """
    Pure ASGI. At its deadline a request is cancelled, as if its client had left: what it had not committed is rolled
    back, and its connection is kept only if that is certain. The answer is 503 with `Retry-After`.

    The deadline is lifted when the answer begins: streams end by rules of their own, and how long a client may leave an
    answer unread is the protocol's business. It also says how far behind a replica was, if one has answered.

    One timer looks at all requests, each quarter of a second: a timer for each took 23 µs a request where this takes 10
    (on a busy machine).
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app = app
        self._seconds = seconds
        self._running: set[_Running] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        if scope["type"] != "http" or task is None:
            await self._app(scope, receive, send)
            return
        shown_lag.set(None)  # a connection's next request may inherit what was of the one before it
        running = self._begin(task)
        begun = False

        async def send_and_lift(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                self._running.discard(running)
                if (lag := shown_lag.get()) is not None:
                    message["headers"] = [*message["headers"], (LAG_HEADER, str(lag).encode())]
            await send(message)

        scope["state"][_DEADLINE] = running
        try:
            await self._app(scope, receive, send_and_lift)
        except asyncio.CancelledError:
            # Ours, or the server's that stops and has waited as long as it may.
            ours = running.expired and task.uncancel() == 0
            if not begun:
                await _say(scope, receive, send, f"not answered in {self._seconds:g} s" if ours else "the server stops")
            if not ours:
                raise
        finally:
            self._running.discard(running)

    def _begin(self, task: asyncio.Task[None]) -> _Running:
        loop = asyncio.get_running_loop()
        running = _Running(task, loop.time() + self._seconds)
        self._running.add(running)
        if self._timer is None:
            self._timer = loop.call_later(LOOK_SECONDS, self._look)
        return running

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for running in [each for each in self._running if each.until <= now]:
            self._running.discard(running)
            running.expired = True
            running.task.cancel()
        self._timer = loop.call_later(LOOK_SECONDS, self._look) if self._running else None


async def _say(scope: Scope, receive: Receive, send: Send, why: str) -> None:
    shown_lag.set(None)
    answer = await answer_rota_error(Request(scope), DeadlinePassed(why=why))
    await answer(scope, receive, send)


def allow_longer(request: Request, seconds: float) -> None:
    """Give a request that waits on purpose so much more time."""
    running: _Running = request.scope["state"][_DEADLINE]
    running.until += seconds
