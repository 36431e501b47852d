"""What the feed hands out: ends in batches, written and signed once, however many consumers there are."""

import asyncio
import base64
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from app.domain.clock import Clock
from app.domain.errors import FeedCursorInvalid
from app.domain.session_ends import SessionEnd
from app.domain.snapshots import FeedCursor, Place, Snapshot, pack_cursor, unpack_cursor
from app.security.event_tokens import EventTokens
from app.security.keys import CURSOR_TAG_BYTES, Keyring

SIGNED_MAXIMUM: Final = 8192  # tokens kept, some 8 MB; a consumer that catches up gets the same ones
SIGNED_AT_ONCE: Final = 16  # 1 to 2 ms; then others have their turn

_CURSOR: Final = b"feed"  # what the tag is made of begins so: no cursor of another list passes for one of ours


@dataclass(slots=True)
class Batch:
    """
    Some ends in order, and what its holder has seen before and after it.

    Args:
        entries: Each end as a JSON object, without its token.
        tokens: The Security Event Tokens, when somebody wants them.
        places: What has been seen after each end; the last is `after`.
        rendered: Kept by whoever writes it for the wire, since all consumers of a kind get the same bytes.
    """

    ends: Sequence[SessionEnd]
    before: FeedCursor
    after: FeedCursor
    entries: list[bytes]
    places: list[FeedCursor]
    identity: bytes
    tokens: list[str] | None = None
    rendered: dict[bool, bytes] = field(default_factory=dict)

    def lines(self, *, with_tokens: bool) -> list[bytes]:
        """Each entry as one line of JSON."""
        if not with_tokens:
            return self.entries
        assert self.tokens is not None  # noqa: S101 - whoever wants tokens has had them signed
        pairs = zip(self.entries, self.tokens, strict=True)
        return [b'%s,"set":"%s"}' % (entry[:-1], token.encode()) for entry, token in pairs]


class FeedWriter:
    """Writes cursors and batches, and reads cursors."""

    def __init__(self, tokens: EventTokens, keyring: Keyring, clock: Clock) -> None:
        self._tokens = tokens
        self._keyring = keyring
        self._clock = clock
        self._signed: OrderedDict[str, str] = OrderedDict()

    def write_cursor(self, cursor: FeedCursor, identity: bytes) -> str:
        packed = pack_cursor(cursor, identity)
        return base64.urlsafe_b64encode(packed + self._keyring.cursor_tag(_CURSOR + packed)).rstrip(b"=").decode()

    def read_cursor(self, text: str) -> tuple[FeedCursor, bytes]:
        """
        What a cursor says, and of which history.

        Raises:
            FeedCursorInvalid: not one that a server with our secrets has written.
        """
        try:
            raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), b"-_", validate=True)
        except ValueError:
            raise FeedCursorInvalid from None
        packed, tag = raw[:-CURSOR_TAG_BYTES], raw[-CURSOR_TAG_BYTES:]
        # The last character of a spelling may hold spare bits; a cursor has one spelling.
        if (
            not self._keyring.is_cursor_tag(tag, _CURSOR + packed)
            or base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != text
        ):
            raise FeedCursorInvalid
        return unpack_cursor(packed)

    def batch(
        self, ends: Sequence[SessionEnd], before: FeedCursor, after: FeedCursor, target: Snapshot, identity: bytes
    ) -> Batch:
        """A batch of what `target` sees."""
        places = [FeedCursor(before.seen, Place(target, end.xact, end.id)) for end in ends]
        if places:
            places[-1] = after
        return Batch(ends, before, after, [self._entry(end) for end in ends], places, identity)

    def write_cursors(self, batch: Batch) -> list[str]:
        """The cursor after each end."""
        return [self.write_cursor(place, batch.identity) for place in batch.places]

    def part(self, batch: Batch, keep: Sequence[int]) -> Batch:
        """Only some of a batch; whoever gets it knows the others."""
        tokens = batch.tokens
        return Batch(
            [batch.ends[n] for n in keep],
            batch.before,
            batch.after,
            [batch.entries[n] for n in keep],
            [batch.places[n] for n in keep],
            batch.identity,
            None if tokens is None else [tokens[n] for n in keep],
        )

    async def sign(self, batch: Batch) -> Batch:
        """The batch with its tokens; each is signed once in this process while it is kept."""
        if batch.tokens is not None:
            return batch
        tokens = []
        fresh = 0
        for end in batch.ends:
            known = self._signed.get(end.event_id)
            if known is None:
                known = self._tokens.issue(end, self._clock.on_host())
                self._keep(end.event_id, known)
                fresh += 1
                if fresh % SIGNED_AT_ONCE == 0:
                    await asyncio.sleep(0)
            tokens.append(known)
        batch.tokens = tokens
        return batch

    def _keep(self, event_id: str, token: str) -> None:
        self._signed[event_id] = token
        if len(self._signed) > SIGNED_MAXIMUM:
            self._signed.popitem(last=False)

    def _entry(self, end: SessionEnd) -> bytes:
        members = {
            "session": str(end.id),
            "user": str(end.user_id),
            "ended_at": _moment(end.ended_at),
            "reason": end.reason_class.value,
            "exp": end.forgettable_at,
            "jti": end.event_id,
        }
        return json.dumps(members, separators=(",", ":")).encode()


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
