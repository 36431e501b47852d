"""What every request gets: an id, safe headers, and an answer even when something breaks."""

from typing import Final
from uuid import UUID

import structlog
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils.compat import uuid7

from app.http.errors import problem
from app.http.protocol import ASKER
from app.http.watching import WatchedRequest
from app.observability.logs import describe_failure, get_logger
from app.observability.traces import Traces
from app.security.asker import Asker, asker

log = get_logger()

_NOSNIFF: Final = (b"x-content-type-options", b"nosniff")
_NO_STORE: Final = (b"cache-control", b"no-store")


class RequestContext:
    """
    Outermost, pure ASGI: gives the request its id (state, log lines, answer header), and turns what nobody has caught
    into a 500 that says nothing but the id. The log line has classes and places, no messages: drivers quote values.
    """

    def __init__(self, app: ASGIApp, *, slow_seconds: float, traces: Traces | None) -> None:
        self._app = app
        self._slow_seconds = slow_seconds
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id: UUID = uuid7()
        shown = str(request_id)
        scope.setdefault("state", {})["request_id"] = request_id
        structlog.contextvars.bind_contextvars(request_id=shown)  # of this request's task only
        scope["state"][ASKER] = client = Asker()
        asker.set(client)  # likewise
        watched = WatchedRequest(scope, self._slow_seconds)
        try:
            if self._traces is None:
                await self._answer(scope, receive, send, shown, watched)
            else:
                await self._answer_traced(self._traces, scope, receive, send, shown, watched)
        finally:
            watched.end()  # also when the server ends it

    async def _answer_traced(
        self, traces: Traces, scope: Scope, receive: Receive, send: Send, shown: str, watched: WatchedRequest
    ) -> None:
        with traces.request(Headers(scope=scope), shown) as span:
            try:
                await self._answer(scope, receive, send, shown, watched)
            finally:
                traces.describe(span, watched.method, watched.route, watched.status)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, shown: str, watched: WatchedRequest) -> None:
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                watched.begin_answer(message)
                # As they are sent: Starlette's MutableHeaders takes ten times as long. Nobody else sets these two.
                headers = [*message["headers"], (b"x-request-id", shown.encode()), _NOSNIFF]
                # Nearly every answer holds a token or somebody's data; those that may be kept say so themselves.
                if not any(name == b"cache-control" for name, _ in headers):
                    headers.append(_NO_STORE)
                message["headers"] = headers
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            log.info("request.abandoned", path=scope["path"])
        except Exception as error:  # noqa: BLE001 - the last resort
            log.error("request.broke", path=scope["path"], **describe_failure(error))
            if not started:
                answer = problem(shown, 500, "internal_error", "Something went wrong on our side.")
                await answer(scope, receive, send_with_headers)
