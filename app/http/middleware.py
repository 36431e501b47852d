"""What every request gets: an id, safe headers, and an answer even when something breaks."""

from typing import Final
from uuid import UUID

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils.compat import uuid7

from app.http.errors import problem
from app.observability.logs import describe_failure, get_logger

log = get_logger()

_NOSNIFF: Final = (b"x-content-type-options", b"nosniff")
_NO_STORE: Final = (b"cache-control", b"no-store")


class RequestContext:
    """
    Outermost, pure ASGI: gives the request its id (state, log lines, answer header), and turns what nobody has caught
    into a 500 that says nothing but the id. The log line has classes and places, no messages: drivers quote values.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id: UUID = uuid7()
        shown = str(request_id)
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                # As they are sent: Starlette's MutableHeaders takes ten times as long. Nobody else sets these two.
                headers = [*message["headers"], (b"x-request-id", shown.encode()), _NOSNIFF]
                # Nearly every answer holds a token or somebody's data; those that may be kept say so themselves.
                if not any(name == b"cache-control" for name, _ in headers):
                    headers.append(_NO_STORE)
                message["headers"] = headers
            await send(message)

        structlog.contextvars.bind_contextvars(request_id=shown)  # of this request's task only
        try:
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            log.info("request.abandoned", path=scope["path"])
        except Exception as error:  # noqa: BLE001 - the last resort
            log.error("request.broke", path=scope["path"], **describe_failure(error))
            if not started:
                answer = problem(request_id, 500, "internal_error", "Something went wrong on our side.")
                await answer(scope, receive, send_with_headers)
