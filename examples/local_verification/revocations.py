"""Follows Rota's feed of ended sessions and remembers those whose access tokens may still be going round."""

import asyncio
import json
import logging
import random
import time
from collections.abc import AsyncIterator

import httpx2

log = logging.getLogger("revocations")

SILENCE_SECONDS = 40.0  # Rota says something every 15 seconds; a connection that says nothing for so long is dead
PAUSE_SECONDS = 0.25  # before the first attempt to come back; doubled by each that fails
PAUSE_SECONDS_MAXIMUM = 10.0
CLOCK_SECONDS = 60  # by which our clock may be ahead of Rota's


class Event:
    """One block of the stream: lines up to an empty one."""

    def __init__(self, lines: list[str]) -> None:
        self.name, self.data, self.comment = "message", "", ""
        self.id: str | None = None
        self.retry: int | None = None
        for line in lines:
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "":
                self.comment = value
            elif field == "event":
                self.name = value
            elif field == "data":
                self.data += value
            elif field == "id":
                self.id = value
            elif field == "retry" and value.isdigit():
                self.retry = int(value)


class Revocations:
    """The sessions that are over. `stale_after`: how old what we know may be before it is said to be stale."""

    def __init__(self, url: str, client_id: str, secret: str, *, stale_after: float) -> None:
        self._url = url
        self._auth = httpx2.BasicAuth(client_id, secret)
        self._stale_after = stale_after
        self._ended: dict[str, int] = {}  # session: the second from which it may be forgotten
        self._last_id: str | None = None
        self._complete_at: float | None = None
        self._pause = PAUSE_SECONDS

    def has_ended(self, session: str) -> bool:
        return session in self._ended

    @property
    def is_stale(self) -> bool:
        """Whether sessions may have ended of which we know nothing."""
        return self._complete_at is None or time.monotonic() - self._complete_at > self._stale_after

    def __len__(self) -> int:
        return len(self._ended)

    async def follow(self) -> None:
        """Until cancelled. Whatever breaks, it comes back to where it was: nothing is missed, one may come twice."""
        timeout = httpx2.Timeout(10, read=SILENCE_SECONDS)
        async with httpx2.AsyncClient(base_url=self._url, auth=self._auth, timeout=timeout) as http:
            while True:
                try:
                    await self._connection(http)
                except (httpx2.HTTPError, ValueError, KeyError) as broken:
                    log.warning("the feed broke off: %s", type(broken).__name__)
                await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))
                self._pause = min(self._pause * 2, PAUSE_SECONDS_MAXIMUM)

    async def _connection(self, http: httpx2.AsyncClient) -> None:
        headers = {"Last-Event-ID": self._last_id} if self._last_id else {}
        # Without an id the stream begins with every end that still matters, so no snapshot is needed first.
        async with http.stream("GET", "/revocations/stream", params={"sets": "false"}, headers=headers) as answer:
            if answer.status_code in {410, 422}:
                # Another database, or one that was restored: what our id means nobody knows. Begin anew; what we
                # know of ended sessions stays true, but is complete no longer.
                log.warning("the feed has begun anew")
                self._last_id = self._complete_at = None
                return
            answer.raise_for_status()
            async for event in _events(answer):
                self._take(event)

    def _take(self, event: Event) -> None:
        if event.name == "session-revoked" and event.data:
            entry = json.loads(event.data)
            self._ended[entry["session"]] = entry["exp"]
        if event.id is not None:
            self._last_id = event.id  # only after what it stands for has been taken
        if event.retry is not None:
            self._pause = event.retry / 1000
        if event.comment.startswith("current "):
            self._complete_at = time.monotonic()
            self._forget()

    def _forget(self) -> None:
        now = time.time() - CLOCK_SECONDS
        for session in [session for session, until in self._ended.items() if until < now]:
            del self._ended[session]


async def _events(answer: httpx2.Response) -> AsyncIterator[Event]:
    lines: list[str] = []
    async for line in answer.aiter_lines():
        if line:
            lines.append(line)
        elif lines:
            yield Event(lines)
            lines = []
