"""What every request gets: an id, safe headers, no credential in its URL, and an answer even when something breaks."""

from typing import Final
from uuid import UUID

import structlog
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils.compat import uuid7

from app.domain.errors import RotaError
from app.http.errors import CredentialInUrl, PathNotFound, answer_rota_error, problem
from app.http.protocol import ASKER, HTTPS_ONLY
from app.http.urls import ANSWERS_ITSELF, holds_credential, is_ambiguous
from app.http.watching import WatchedRequest
from app.observability.logs import describe_failure, get_logger
from app.observability.traces import Traces
from app.security.asker import Asker, asker

log = get_logger()

_NO_STORE: Final = (b"cache-control", b"no-store")
_POLICY: Final = b"content-security-policy"
# No answer is a page of ours but the API docs, which have a policy of their own: should a browser take another one for
# a page, it runs nothing and nobody can frame it. Six headers cost some 4 µs of a request.
_NO_PAGE: Final = (_POLICY, b"default-src 'none'; frame-ancestors 'none'")
_SAFE: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),  # binds embedding, not fetching by CORS
)
_HTTPS_ONLY: Final = (HTTPS_ONLY[0].lower().encode(), HTTPS_ONLY[1].encode())


class RequestContext:
    """
    Outermost, pure ASGI: gives the request its id (state, log lines, answer header), refuses what is wrong with its URL
    alone, and turns what nobody has caught into a 500 that says nothing but the id. The log line has the route's
    template, classes and places: no path and no message, since drivers quote values.

    Args:
        https: Whether browsers shall never again come without.
    """

    def __init__(self, app: ASGIApp, *, slow_seconds: float, traces: Traces | None, https: bool) -> None:
        self._app = app
        self._safe = (*_SAFE, _HTTPS_ONLY) if https else _SAFE
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
        asker.set(scope["state"].setdefault(ASKER, Asker()))  # likewise
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
                headers = [*message["headers"], (b"x-request-id", shown.encode()), *self._safe]
                names = {name for name, _ in headers}
                # Nearly every answer holds a token or somebody's data; those that may be kept say so themselves.
                if _NO_STORE[0] not in names:
                    headers.append(_NO_STORE)
                if _POLICY not in names:
                    headers.append(_NO_PAGE)
                message["headers"] = headers
            await send(message)

        try:
            if (refused := _refused_url(scope)) is not None:
                answer = await answer_rota_error(Request(scope), refused)
                await answer(scope, receive, send_with_headers)
            else:
                await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            log.info("request.abandoned", route=watched.route)
        except Exception as error:  # noqa: BLE001 - the last resort
            log.error("request.broke", route=watched.route, **describe_failure(error))
            if not started:
                answer = problem(shown, 500, "internal_error", "Something went wrong on our side.")
                await answer(scope, receive, send_with_headers)


def _refused_url(scope: Scope) -> RotaError | None:
    """What is wrong with the URL by itself."""
    path: str = scope["path"]
    raw: bytes = scope.get("raw_path") or path.encode("utf-8", "surrogatepass")
    if path != ANSWERS_ITSELF and holds_credential(raw, scope["query_string"]):
        return CredentialInUrl()
    return PathNotFound() if is_ambiguous(raw) else None
