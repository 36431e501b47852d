"""What other services ask of the feed of ended sessions: a page, a wait, a stream, all of it from the beginning."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from app.domain.errors import TooManyStreams, Unavailable
from app.domain.snapshots import BEGINNING, FeedCursor
from app.services.feed_batches import FeedWriter
from app.services.feed_hub import Check, Follower, FollowerDismissed, Hub
from app.services.feed_reader import FeedReader

AT_ONCE: Final = 0.0


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


class Feed:
    def __init__(self, reader: FeedReader, writer: FeedWriter, hub: Hub, *, streams_per_client: int) -> None:
        self._reader = reader
        self.writer = writer
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
                batch = await self.writer.sign(batch)
            entries += batch.lines(with_tokens=with_tokens)
            # After the last page of what one snapshot saw comes what was committed since.
            if len(entries) >= limit or not reading.more:
                return FeedPage(entries, self.writer.write_cursor(cursor, identity), more=reading.more)

    async def wait(
        self, after: str | None, *, seconds: float, limit: int, with_tokens: bool, client: UUID, check: Check
    ) -> FeedPage:
        """
        As `page`, but if there is nothing new, wait for it. Served from memory where that suffices.

        Raises:
            TooManyStreams: the client has as many waiting as it may have.
            Unavailable: likewise, or it is not known whether there was anything new.
        """
        if after is None:
            page = await self.page(None, limit=limit, with_tokens=with_tokens)
            if page.entries:
                return page
            after = page.next
        follower = self.follow(after, client=client, check=check, with_tokens=with_tokens)
        try:
            return await self._collect(follower, seconds, limit)
        finally:
            self.hub.remove(follower)

    async def _collect(self, follower: Follower, seconds: float, limit: int) -> FeedPage:
        entries: list[bytes] = []
        place = follower.cursor
        try:
            while (batch := await follower.next(AT_ONCE if entries else seconds)) is not None:
                room = limit - len(entries)
                kept = batch if len(batch.ends) <= room else self.writer.part(batch, range(room))
                entries += kept.lines(with_tokens=follower.with_tokens)
                place = kept.places[-1] if kept is not batch else follower.cursor
                if len(entries) == limit:
                    return self._page(follower, entries, place, more=kept is not batch or follower.is_behind)
        except FollowerDismissed:
            return self._page(follower, entries, place, more=False)
        if entries:
            return self._page(follower, entries, place, more=False)
        if not follower.at_the_end:
            raise Unavailable(why="the feed does not reach the database")
        return self._page(follower, entries, follower.cursor, more=False)

    def follow(self, after: str | None, *, client: UUID, check: Check, with_tokens: bool) -> Follower:
        """
        A consumer that stays, from a cursor or else from the oldest end that still matters. Give it to `hub.remove`.

        Raises:
            FeedCursorInvalid: as it says. Of another history: see `Follower.begin`.
            TooManyStreams: the client has as many as it may have.
        """
        cursor, identity = self._read(after)
        if sum(follower.client == client for follower in self.hub.followers) >= self._streams_per_client:
            raise TooManyStreams
        follower = Follower(self.hub, cursor, identity, client=client, check=check, with_tokens=with_tokens)
        self.hub.add(follower)
        return follower

    def cursor_of(self, follower: Follower) -> str | None:
        """Where a follower is; `None` while that is the beginning."""
        identity = follower.identity or self.hub.identity
        return self.writer.write_cursor(follower.cursor, identity) if identity else None

    def _read(self, after: str | None) -> tuple[FeedCursor, bytes | None]:
        return (BEGINNING, None) if after is None else self.writer.read_cursor(after)

    def _page(self, follower: Follower, entries: list[bytes], cursor: FeedCursor, *, more: bool) -> FeedPage:
        identity = follower.identity or self.hub.identity
        assert identity is not None  # noqa: S101 - a wait begins with a cursor, and so with an identity
        return FeedPage(entries, self.writer.write_cursor(cursor, identity), more)
