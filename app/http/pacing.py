"""Storms of sign-ins: begun one after another, and refused before anything is done for them."""

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.domain.errors import TooBusy
from app.http.bodies import BODY_SECONDS, FORM_FIELDS_MAXIMUM, Kind
from app.http.errors import answer_rota_error
from app.http.protocol import ASKER
from app.security.asker import Asker

# Requests that bring a password, or may: each costs a hash, and a thousand at once little but time to be refused.
PACED: Final = frozenset(
    {
        ("POST", "/token"),
        ("POST", "/oauth2/token"),
        ("POST", "/register"),
        ("PUT", "/password"),
        ("PUT", "/me/password"),
    }
)
_FORM: Final = Kind.FORM.encode()
_SIGN_IN: Final = "rota.sign_in"  # in a request's scope: whether it is known to be one before its route has read it


class _Asked(Enum):
    SIGN_IN = auto()
    NO_HASH = auto()  # a refresh, or a client's own token
    OTHER = auto()


class Pacing:
    """
    Pure ASGI, outermost, so that nothing has been done for a request that waits: lets one of them begin in each turn of
    the event loop. One that comes alone does not wait.

    A few hundred at once, each refused within half a millisecond, would be a tenth of a second in which nobody's
    refresh goes on. So they cost each refresh no more than a few of these halves.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._busy = False  # somebody has begun in this turn

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (scope["method"], scope["path"]) in PACED:
            receive = await self._pace(scope, receive)
        await self._app(scope, receive, send)

    async def _pace(self, scope: Scope, receive: Receive) -> Receive:
        """Wait for a turn; of a form, first for its beginning, of which nothing is looked at but the kind of grant."""
        scope.setdefault("state", {})[ASKER] = Asker()  # who leaves while waiting here has left
        if not _is_form(scope):
            await self._turn()
            return receive
        try:
            async with asyncio.timeout(BODY_SECONDS):
                first = await receive()
        except TimeoutError:
            return _too_slow
        again: list[Message] = [first]

        async def receive_again() -> Message:
            return again.pop() if again else await receive()

        asked = _asked_for(first)
        if asked is not _Asked.NO_HASH:
            await self._turn()
        scope[_SIGN_IN] = asked is _Asked.SIGN_IN
        return receive_again

    async def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        if not self._busy:
            self._busy = True
            loop.call_soon(self._begin_next)
            return
        turn = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _begin_next(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # or the server stops
                turn.set_result(None)
                asyncio.get_running_loop().call_soon(self._begin_next)
                return
        self._busy = False


class Admission:
    """
    Pure ASGI, within what every answer gets: refuses sign-ins that the queue has no place for. Their routes would do
    the same a little later; here it takes half the time, which is what a storm mostly consists of.
    """

    def __init__(self, app: ASGIApp, admit: Callable[[], None]) -> None:
        self._app = app
        self._admit = admit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get(_SIGN_IN, False):
            try:
                self._admit()
            except TooBusy as busy:
                answer = await answer_rota_error(Request(scope), busy)
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def _too_slow() -> Message:
    """Whoever reads the body has waited as long as it may."""
    raise TimeoutError


def _is_form(scope: Scope) -> bool:
    """Whether the body is a form that comes without being asked for (RFC 9110 section 10.1.1)."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    kinds = [value for name, value in headers if name == b"content-type"]
    asks = any(name == b"expect" for name, _ in headers)
    return len(kinds) == 1 and kinds[0].lower().startswith(_FORM) and not asks


def _asked_for(first: Message) -> _Asked:
    """What a whole form is, as far as it says so once; a second `grant_type`, however written, is refused later."""
    body: bytes = first.get("body", b"")
    if first.get("more_body", False) or body.count(b"&") >= FORM_FIELDS_MAXIMUM:
        return _Asked.OTHER
    fields = body.split(b"&")
    match [field for field in fields if field.startswith(b"grant_type=")]:
        case [b"grant_type=refresh_token"] | [b"grant_type=client_credentials"]:
            return _Asked.NO_HASH
        case [b"grant_type=password"]:
            return _Asked.SIGN_IN
        case [] if any(field.startswith(b"password=") for field in fields):  # what `POST /token` is for
            return _Asked.SIGN_IN
    return _Asked.OTHER
