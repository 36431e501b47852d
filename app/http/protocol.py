"""
uvicorn's HTTP protocol with bounds: on the request's head, which httptools would collect without end, on how long its
body may take, and on how long a client may leave our answer unread. And with word to the application when the server
begins to stop.
"""

import asyncio
import json
import re
from http import HTTPStatus
from typing import Any, Final

from uuid_utils.compat import uuid7
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES_MAXIMUM: Final = 65_536
HEAD_SECONDS: Final = 10
HEADERS_MAXIMUM: Final = 100
URL_BYTES_MAXIMUM: Final = 8192
# Until a body has come, whether a route reads it or not. Longer than a route that reads it waits, which answers better.
BODY_SECONDS: Final = 20
UNREAD_SECONDS: Final = 30
PIPELINED_MAXIMUM: Final = 8  # requests that wait for the answer to one before them: each is held whole

# In the lifespan's state, each called perhaps more than once:
DRAINING: Final = "draining"  # the server is about to stop, and still takes what comes
STOPPING: Final = "stopping"  # it takes nothing new any more
# And whether browsers shall never again come without TLS:
HTTPS: Final = "https"

ASKER: Final = "asker"  # in a request's state: who is to be told when its client leaves

_END: Final = b"\r\n\r\n"
_OFFER: Final = re.compile(rb"\r\nupgrade:[ \t]*h2c[ \t]*(?=\r\n)", re.IGNORECASE)
_SAFE: Final = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Cache-Control", "no-store"),
)
# Of this host alone: what its subdomains speak is for whoever runs them to say.
HTTPS_ONLY: Final = ("Strict-Transport-Security", "max-age=31536000")
_FRAMING_BYTES_MAXIMUM: Final = 2**20  # around a body: what 64 KiB in chunks of one byte take, twice


class BoundedHttpProtocol(HttpToolsProtocol):
    """
    Closes a connection whose request's head or body grows too long or comes too slowly, whose request could be read in
    two ways, or whose client does not read.
    """

    _head_bytes = 0
    _head_end = b""  # the last bytes of what has come of it
    _in_head = True
    _headers = 0
    _framing_bytes = 0
    _refused = False
    _begun = False  # a request, of which the parser has seen something
    _held = b""  # a head that has an offer and no end yet
    _deaf = False  # what follows would be in another protocol, which nobody here speaks
    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # As after an answer: whoever says nothing at all is not waited for without end.
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def data_received(self, data: bytes) -> None:
        if self._refused or self._deaf:
            return
        if self._in_head:
            joined = self._head_end + data
            end = joined.find(_END)  # what comes after it is body, and counted there
            self._head_bytes += len(data) if end < 0 else max(0, end - len(self._head_end))
            self._head_end = joined[-3:] if end < 0 else b""
            if self._head_bytes > HEAD_BYTES_MAXIMUM:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
                return
            if self._deadline is None:
                self._await(HEAD_SECONDS)
            data = self._without_offer(data)
        else:
            self._framing_bytes += len(data)
            if self._framing_bytes > _FRAMING_BYTES_MAXIMUM + len(data):  # httptools collects trailers without end
                self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
                return
        if data:
            super().data_received(data)
        if not self._in_head and self._deadline is None:  # most requests are whole by now
            self._await(BODY_SECONDS)

    def on_message_begin(self) -> None:
        self._begun = True
        self._headers = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Trailers come here too, and would stand among the headers that a proxy has looked at: they are dropped."""
        self._headers += 1
        if self._in_head and self._headers <= HEADERS_MAXIMUM:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._refused:
            return
        if (status := self._fault()) is not None:
            self._refuse(status)
            return
        super().on_headers_complete()
        if len(self.pipeline) > PIPELINED_MAXIMUM:
            self._refuse(HTTPStatus.TOO_MANY_REQUESTS)
            return
        if self.parser.should_upgrade():
            self._deaf = True
            self.drain()
        self._in_head = False
        self._head_bytes = self._framing_bytes = 0
        self._forget_deadline()
        if getattr(self.server_state, "draining", False):
            self.drain()

    def on_body(self, body: bytes) -> None:
        if not self._refused:
            self._framing_bytes -= len(body)
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._refused:
            return
        self._in_head, self._begun = True, False
        self._forget_deadline()
        super().on_message_complete()

    def _without_offer(self, data: bytes) -> bytes:
        """
        What comes of a head without its offer to go on in HTTP/2; nothing of it as long as it has one and no end.

        RFC 9110 section 7.8 lets us decline. Java's client makes an offer with each request, and httptools cannot read
        a request that has one and a body. One in a head that was pipelined, or that says nothing of it in its first
        piece, stays: then a body is refused.
        """
        if self._begun:
            return data
        data, self._held = self._held + data, b""
        if b"pgrade" not in data:
            return data
        end = data.find(_END, len(data) - len(data.lstrip(b"\r\n")))  # empty lines may come before a request
        if end < 0:
            self._held = data
            return b""
        return _OFFER.sub(b"", data[: end + 2]) + data[end + 2 :]

    def _fault(self) -> HTTPStatus | None:
        """What is wrong with a head that httptools has read (RFC 9112 section 3.2, RFC 6585 section 5)."""
        if self._headers > HEADERS_MAXIMUM:
            return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        if len(self.url) > URL_BYTES_MAXIMUM:
            return HTTPStatus.REQUEST_URI_TOO_LONG
        version = self.parser.get_http_version()
        hosts = sum(name == b"host" for name, _ in self.headers)
        if version not in {"1.0", "1.1"} or hosts > 1 or (hosts == 0 and version == "1.1"):
            return HTTPStatus.BAD_REQUEST
        codings = [value.strip().lower() for name, value in self.headers if name == b"transfer-encoding"]
        if codings not in ([], [b"chunked"]) or (codings and version == "1.0"):
            return HTTPStatus.BAD_REQUEST
        has_body = codings or any(name == b"content-length" and value.strip(b" 0") for name, value in self.headers)
        if has_body and self.parser.should_upgrade():  # httptools would take the body for what follows the upgrade
            return HTTPStatus.BAD_REQUEST
        # A fragment, or a name and password: neither belongs there (section 3.2, RFC 9110 section 4.2.4), and the
        # application would not see what they give away.
        authority = self.url.partition(b"://")[2].partition(b"/")[0] if not self.url.startswith(b"/") else b""
        if b"#" in self.url or b"@" in authority:
            return HTTPStatus.BAD_REQUEST
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        self._forget_unread()
        if self.cycle is not None and not self.cycle.response_complete:
            asking = self.cycle.scope["state"].get(ASKER)
            if asking is not None:
                asking.leave()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._forget_unread()
        self._await_reading(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._forget_unread()
        super().resume_writing()

    def drain(self) -> None:
        """Have the next answer say that the connection ends with it, so that a proxy sends nothing more on it."""
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        stopping = self.app_state.get(STOPPING)
        if stopping is not None:
            stopping()
        if self.flow.write_paused:
            self.transport.abort()  # nobody reads it, so it would never be all written
        else:
            super().shutdown()

    def _await_reading(self, unread: int) -> None:
        self._unread = self.loop.call_later(UNREAD_SECONDS, self._check_reading, unread)

    def _check_reading(self, unread: int) -> None:
        """A slow client may be slow; one that has taken nothing at all is cut off."""
        now_unread = self.transport.get_write_buffer_size()
        if now_unread < unread:
            self._await_reading(now_unread)
        else:
            self.transport.abort()

    def _forget_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing to say: the request is answered as it is, and uvicorn would recommend packages in each one's line."""

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - ours says it for all
        self._refuse(HTTPStatus.BAD_REQUEST)

    def _await(self, seconds: float) -> None:
        self._deadline = self.loop.call_later(seconds, self._refuse, HTTPStatus.REQUEST_TIMEOUT)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, status: HTTPStatus) -> None:
        """
        Answer and hang up. Without an answer if that of an earlier request is still to come, or this one's has begun:
        who is waiting would take ours for a part of it.
        """
        self._forget_deadline()
        self._refused = True
        transport: Any = self.transport
        if transport.is_closing():
            return
        cycle = self.cycle
        ours = not self._in_head and not self.pipeline and cycle is not None and not cycle.response_started
        if cycle is None or cycle.response_complete or ours:
            transport.write(_written(status, https=self.app_state.get(HTTPS, False)))
        transport.close()


def _written(status: HTTPStatus, *, https: bool) -> bytes:
    """As the application answers, for what never reaches it."""
    code, request_id = status.name.lower(), str(uuid7())
    content = {
        "type": f"urn:rota:problem:{code}",
        "title": status.phrase,
        "status": int(status),
        "detail": f"{status.phrase}.",
        "code": code,
        "request_id": request_id,
    }
    body = json.dumps(content, separators=(",", ":"))
    return (
        f"HTTP/1.1 {int(status)} {status.phrase}\r\nContent-Type: application/problem+json\r\n"
        f"Content-Length: {len(body)}\r\nX-Request-Id: {request_id}\r\n"
        + "".join(f"{name}: {value}\r\n" for name, value in (*_SAFE, *([HTTPS_ONLY] if https else [])))
        + f"Connection: close\r\n\r\n{body}"
    ).encode()
