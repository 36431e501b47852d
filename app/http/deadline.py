"""No request waits for ever: until its answer begins, it has so many seconds."""

import asyncio
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.domain.errors import DeadlinePassed
from app.http.errors import answer_rota_error
from app.services.replica import shown_lag

_DEADLINE: Final = "deadline"  # in the request's state
LAG_HEADER: Final = b"x-rota-replica-lag-ms"


class Deadline:
    """
    Pure ASGI. At its deadline a request is cancelled, as if its client had left: what it had not committed is rolled
    back, and its connection is kept only if that is certain. The answer is 503 with `Retry-After`.

    The deadline is lifted when the answer begins: streams end by rules of their own, and how long a client may leave an
    answer unread is the protocol's business. It also says how far behind a replica was, if one has answered.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        shown_lag.set(None)  # a connection's next request may inherit what was of the one before it
        begun = False

        async def send_and_lift(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                deadline.reschedule(None)
                if (lag := shown_lag.get()) is not None:
                    message["headers"] = [*message["headers"], (LAG_HEADER, str(lag).encode())]
            await send(message)

        try:
            async with asyncio.timeout(self._seconds) as deadline:
                scope["state"][_DEADLINE] = deadline
                await self._app(scope, receive, send_and_lift)
        except TimeoutError:
            if begun or not deadline.expired():
                raise
            shown_lag.set(None)
            answer = await answer_rota_error(Request(scope), DeadlinePassed(why=f"not answered in {self._seconds:g} s"))
            await answer(scope, receive, send)


def allow_longer(request: Request, seconds: float) -> None:
    """Give a request that waits on purpose so much more time."""
    deadline: asyncio.Timeout = request.scope["state"][_DEADLINE]
    if (when := deadline.when()) is not None:
        deadline.reschedule(when + seconds)
