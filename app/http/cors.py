"""
Which pages of other origins may read our answers: the listed ones, and no header tells any other page anything.

Starlette's middleware tells a page that is not listed what the listed ones may do, and answers its preflight with 400.
Where nothing is listed, none of this is there.
"""

from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS: Final = "GET, POST, PUT, PATCH, DELETE"
REQUEST_HEADERS: Final = "Authorization, Content-Type, Idempotency-Key"
ANSWER_HEADERS: Final = "Retry-After, X-Request-ID"
PREFLIGHT_SECONDS: Final = 600

_VARY: Final = (b"vary", b"Origin")
_CREDENTIALS: Final = (b"access-control-allow-credentials", b"true")
_EXPOSED: Final = (b"access-control-expose-headers", ANSWER_HEADERS.encode())
_ALLOWED: Final = {
    "Access-Control-Allow-Methods": METHODS,
    "Access-Control-Allow-Headers": REQUEST_HEADERS,
    "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
}
_FOR_PROXIES: Final = (
    "/authz"  # its answer is about another service's request: "go on" to a preflight would let that in
)


class CrossOrigin:
    """Pure ASGI, outermost, so that refusals and failures can be read too: says of every answer who may read it."""

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        self._app = app
        self._origins = frozenset(origin.encode() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == _FOR_PROXIES:
            await self._app(scope, receive, send)
            return
        origin = _listed(scope, self._origins)
        more = [_VARY]
        if origin is not None:
            more += [(b"access-control-allow-origin", origin), _CREDENTIALS, _EXPOSED]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *more]
            await send(message)

        await self._app(scope, receive, send_with_headers)


class Preflights:
    """
    Pure ASGI, inside what gives each answer its id: answers the question that a browser asks before a request.

    Only for a listed origin; to another there is no such method here, as if nothing were listed. What is allowed does
    not depend on what is asked: the browser compares.
    """

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        self._app = app
        self._origins = frozenset(origin.encode() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] == "http"
            and scope["method"] == "OPTIONS"
            and scope["path"] != _FOR_PROXIES
            and _listed(scope, self._origins) is not None
            and any(name == b"access-control-request-method" for name, _ in scope["headers"])
        ):
            await Response(status_code=204, headers=_ALLOWED)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _listed(scope: Scope, origins: frozenset[bytes]) -> bytes | None:
    """The request's origin if it says one only, and that is listed."""
    given = [value for name, value in scope["headers"] if name == b"origin"]
    return given[0] if len(given) == 1 and given[0] in origins else None
