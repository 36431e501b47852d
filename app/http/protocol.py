"""
uvicorn's HTTP protocol with bounds: on the request's head, which httptools would collect without end, and on how long
a client may leave our answer unread. And with word to the application when the server begins to stop.
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES_MAXIMUM: Final = 65_536
HEAD_SECONDS: Final = 10
UNREAD_SECONDS: Final = 30

# In the lifespan's state, each called perhaps more than once:
DRAINING: Final = "draining"  # the server is about to stop, and still takes what comes
STOPPING: Final = "stopping"  # it takes nothing new any more

ASKER: Final = "asker"  # in a request's state: who is to be told when its client leaves

_END: Final = b"\r\n\r\n"
_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_TOO_SLOW: Final = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class BoundedHttpProtocol(HttpToolsProtocol):
    """Closes a connection whose request's head grows too long or comes too slowly, or whose client does not read."""

    _head_bytes = 0
    _in_head = True
    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            end = data.find(_END)  # what comes after it is body, and counted there
            self._head_bytes += len(data) if end < 0 else end
            if self._head_bytes > HEAD_BYTES_MAXIMUM:
                self._refuse(_TOO_LARGE)
                return
            if self._deadline is None:
                self._deadline = self.loop.call_later(HEAD_SECONDS, self._refuse, _TOO_SLOW)
        super().data_received(data)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        self._forget_deadline()
        super().on_headers_complete()
        if getattr(self.server_state, "draining", False):
            self.drain()

    def on_message_complete(self) -> None:
        self._in_head = True
        super().on_message_complete()

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

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, answer: bytes) -> None:
        self._forget_deadline()
        transport: Any = self.transport
        if not transport.is_closing():
            transport.write(answer)
            transport.close()
