"""What other services ask of the feed of ended sessions: a page, a wait, a stream, all of it from the beginning."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from app.domain.errors import TooManyStreams, Unavailable
from app.domain.snapshots import BEGINNING, FeedCursor
from app.services.feed_batches import Batch, FeedWriter
from app.services.feed_hub import Follower, FollowerDismissed, Hub
from app.services.feed_reader import FeedReader

AT_ONCE_SECONDS: Final = 0.0


@dataclass(frozen=True, slots=True)
class FeedPage:
    """
    Entries as lines of JSON, and the cursor after them.

    Args:
        more: There may be more at once; ask again without waiting.
    """

    entries: list[bytes]
    next: str
    more: bool


class Revocations:
    def __init__(self, reader: FeedReader, writer: FeedWriter, hub: Hub, *, streams_per_client: int) -> None:
        self._reader = reader
        self._writer = writer
        self.hub = hub
        self._streams_per_client = streams_per_client

    async def page(self, after: str | None, *, limit: int, with_tokens: bool) -> FeedPage:
        """
        All visible ends after a cursor, those still of interest if there is none; at most `limit`.

        Raises:
            FeedCursorInvalid, FeedCursorGone: begin anew.
            Unavailable: the database cannot be asked.
        """
        cursor, identity = self._read(after)
        entries: list[bytes] = []
        while True:
            reading = await self._reader.read(cursor, identity, limit=limit - len(entries))
            cursor, identity, batch = reading.batch.after, reading.identity, reading.batch
            if with_tokens:
                batch = await self._writer.sign(batch)
            entries += batch.lines(with_tokens=with_tokens)
            # After the last page of what one snapshot saw comes what was committed since.
            if len(entries) >= limit or not reading.more:
                more = reading.more
                return FeedPage(entries, self._writer.write_cursor(cursor, identity), more)

    async def wait(
        self, after: str | None, *, seconds: float, limit: int, with_tokens: bool, client_id: UUID | None
    ) -> FeedPage:
        """
        As `page`, but if there is nothing new, wait for it. Served from memory where that suffices.

        Raises:
            TooManyStreams: the client has as many waiting as it may have.
            Unavailable: likewise, or it is not known whether there was anything new.
        """
        with self.following(after, client_id=client_id, with_tokens=with_tokens) as follower:
            entries: list[bytes] = []
            try:
                batch = await follower.next(seconds)
                while batch is not None:
                    if len(entries) + len(batch.ends) > limit:
                        kept = self._writer.part(batch, range(limit - len(entries)))
                        entries += kept.lines(with_tokens=with_tokens)
                        return self._page(follower, entries, kept.places[-1] if kept.places else batch.before)
                    entries += batch.lines(with_tokens=with_tokens)
                    if len(entries) == limit:
                        return self._page(follower, entries, follower.cursor)
                    batch = await follower.next(AT_ONCE_SECONDS)
            except FollowerDismissed:
                if follower.identity is None and self.hub.identity is None:
                    raise Unavailable(why="stopping") from None
            else:
                if not entries and not follower.at_the_end:
                    raise Unavailable(why="the feed does not reach the database")
            return self._page(follower, entries, follower.cursor)

    @contextmanager
    def following(self, after: str | None, *, client_id: UUID | None, with_tokens: bool) -> Iterator[Follower]:
        """A consumer that stays, from a cursor or from the oldest end that is still of interest."""
        follower = self.follow(after, client_id=client_id, with_tokens=with_tokens)
        try:
            yield follower
        finally:
            self.hub.remove(follower)

    def follow(self, after: str | None, *, client_id: UUID | None, with_tokens: bool) -> Follower:
        """As `following`, for one who sees to it that `hub.remove` is called."""
        cursor, identity = self._read(after)
        mine = sum(follower.client_id == client_id for follower in self.hub.followers)
        if mine >= self._streams_per_client:
            raise TooManyStreams
        follower = Follower(self.hub, client_id, cursor, identity, with_tokens=with_tokens)
        self.hub.add(follower)
        return follower

    def cursor_of(self, follower: Follower) -> str | None:
        """Where a follower is; `None` while that is the beginning."""
        identity = follower.identity or self.hub.identity
        return self._writer.write_cursor(follower.cursor, identity) if identity else None

    def _read(self, after: str | None) -> tuple[FeedCursor, bytes | None]:
        return (BEGINNING, None) if after is None else self._writer.read_cursor(after)

    def _page(self, follower: Follower, entries: list[bytes], cursor: FeedCursor) -> FeedPage:
        identity = follower.identity or self.hub.identity
        assert identity is not None  # noqa: S101 - whoever has read anything knows where
        more = cursor is not follower.cursor or not follower.at_the_end
        return FeedPage(entries, self._writer.write_cursor(cursor, identity), more)
