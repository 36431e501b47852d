"""Answers that do not end by themselves: server-sent events of the feed."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Final

from fastapi.sse import format_sse_event
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.domain.errors import RotaError, Unavailable
from app.services.feed import Feed
from app.services.feed_batches import Batch
from app.services.feed_hub import Follower, FollowerDismissed

KEEP_ALIVE_SECONDS: Final = 15.0
AWAY_SECONDS: Final = 1.0  # before a follower asks again for what the database did not tell
EVENT: Final = "session-revoked"

RETRY_MILLISECONDS: Final = (500, 3000)  # after a connection that broke
RETRY_AT_STOP_MILLISECONDS: Final = (1000, 8000)  # a restart takes a moment, and all come back from it


class EventStream(Response):
    """
    The feed to one follower, as the WHATWG HTML standard's section 9.2 says.

    FastAPI's own event stream encodes each event for each connection, by two tasks and two queues of its own; this
    writes bytes that all connections share.
    """

    media_type = "text/event-stream"

    def __init__(self, feed: Feed, follower: Follower, keep_alive_seconds: float = KEEP_ALIVE_SECONDS) -> None:
        self.status_code = 200
        self.background = None
        self.body = b""
        self._feed = feed
        self._follower = follower
        self._keep_alive_seconds = keep_alive_seconds
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        watching = asyncio.create_task(self._watch(receive))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for written in self._written():
                await send({"type": "http.response.body", "body": written, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            watching.cancel()
            self._feed.hub.remove(self._follower)

    async def _watch(self, receive: Receive) -> None:
        """A client that leaves is noticed at once, not when the next event is written to nobody."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._follower.dismiss()

    async def _written(self) -> AsyncIterator[bytes]:
        yield format_sse_event(retry=random.randint(*RETRY_MILLISECONDS))  # noqa: S311 - spreads, hides nothing
        announced = False
        seconds = 0.0
        while True:
            try:
                batch = await self._follower.next(seconds)
            except FollowerDismissed:
                yield format_sse_event(retry=random.randint(*RETRY_AT_STOP_MILLISECONDS))  # noqa: S311 - likewise
                return
            except Unavailable:
                yield self._idle()
                await asyncio.sleep(AWAY_SECONDS)
                continue
            except RotaError:
                return  # its cursor has become one of another history: who comes back with it is told so
            if batch is not None:
                yield self._rendered(batch)
            elif announced or self._follower.at_the_end:
                yield self._idle()
                announced = True
            seconds = self._keep_alive_seconds if announced else AWAY_SECONDS

    def _idle(self) -> bytes:
        """
        A comment that keeps the connection open and tells whether the consumer has everything, and until when.

        With it goes an id without an event, by which the consumer comes back to here and not to the last event.
        """
        cursor = self._feed.cursor_of(self._follower)
        if cursor is None or not self._follower.at_the_end:
            return format_sse_event(comment="waiting for the database")
        current_at = self._feed.hub.current_at
        assert current_at is not None  # noqa: S101 - a hub that is fresh has read
        at = current_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return format_sse_event(comment=f"current {at}", id=cursor)

    def _rendered(self, batch: Batch) -> bytes:
        """All events of a batch; made once for all followers."""
        with_tokens = self._follower.with_tokens
        known = batch.rendered.get(with_tokens)
        if known is None:
            pairs = zip(batch.lines(with_tokens=with_tokens), self._feed.writer.write_cursors(batch), strict=True)
            known = b"".join(format_sse_event(data_str=line.decode(), event=EVENT, id=cursor) for line, cursor in pairs)
            batch.rendered[with_tokens] = known
        return known
