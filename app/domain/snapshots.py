"""
How far a consumer of the feed has come: which transactions it has seen the ends of.

**Why a snapshot and not a number.** Ends are read in the order `(ended_xact, id)`, but they become visible in the order
of commits, so whoever remembers the greatest transaction id it has seen loses what a slower transaction with a lower
id commits later. Remembering the oldest transaction still running (`pg_snapshot_xmin`) loses nothing, but while one
transaction is held open everything after it is handed out again and again, to every consumer at every turn. PostgreSQL
can say exactly what a statement saw: its snapshot (`xmin:xmax:running`). A row is new to a consumer if this statement
sees it and the snapshot that its cursor holds did not. So:

* no gap: what an answer leaves out was seen by the cursor's snapshot, and was in the answer that the cursor came with;
* no repetition, however long a transaction stays open;
* rows and the next cursor come from one statement, hence from one snapshot: nothing can commit between the two.

**Pages.** An answer may be too long. Then the cursor holds two snapshots and a place: all that `seen` sees, and of what
`target` sees, all up to `(xact, id)`. The pages go through what `target`, the first page's snapshot, sees, which no
later commit can change: a transaction that commits while the pages are being read is running in `target`, wherever
its id stands, and comes after the last page, whose cursor is `target` itself.

**Less is safe.** A cursor that says less than its holder has seen leads to repetition, never to a gap. So a snapshot
with very many running transactions is cut down to some of them and everything above (`narrowed`), and cursors have a
bounded length.

All this holds within one history of one database. A cursor therefore names them (`identity`, see the repository), and
one that has seen transactions which this database has not begun is refused, as after a restore.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self
from uuid import UUID

from app.domain.errors import FeedCursorInvalid

RUNNING_MAXIMUM: Final = 24  # transactions that a written cursor names one by one
IDENTITY_BYTES: Final = 8
CURSOR_CHARACTERS: Final = 1024

_VERSION: Final = 1
_SEVEN_BITS: Final = 0x7F
_XID_LIMIT: Final = 2**63


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    PostgreSQL's `pg_snapshot`.

    Args:
        xmin: All transactions below have ended.
        xmax: None from here on had begun.
        running: Those between that had not ended.
    """

    xmin: int
    xmax: int
    running: frozenset[int] = frozenset()

    @classmethod
    def parse(cls, text: str) -> Self:
        """From PostgreSQL's own form, `xmin:xmax:running,running`."""
        xmin, xmax, running = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(map(int, running.split(","))) if running else frozenset())

    @classmethod
    def before(cls, xact: int) -> Self:
        """All below, and nothing from there on."""
        return cls(xact, xact)

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, sorted(self.running)))}"

    def sees(self, xact: int) -> bool:
        """Whether a committed transaction's rows are visible to it."""
        return xact < self.xmax and xact not in self.running

    def within(self, other: "Snapshot") -> bool:
        """Whether the other sees all that this one does."""
        return self.xmax <= other.xmax and all(xact in self.running or xact >= self.xmax for xact in other.running)

    def narrowed(self) -> "Snapshot":
        """One that sees no more than this one and names a bounded number of transactions."""
        if len(self.running) <= RUNNING_MAXIMUM:
            return self
        ordered = sorted(self.running)
        return Snapshot(self.xmin, ordered[RUNNING_MAXIMUM], frozenset(ordered[:RUNNING_MAXIMUM]))


NOTHING: Final = Snapshot.before(1)


@dataclass(frozen=True, slots=True)
class Place:
    """Amid the pages of what `target` sees: the last end that was handed out."""

    target: Snapshot
    xact: int
    id: UUID


@dataclass(frozen=True, slots=True)
class FeedCursor:
    """Everything that `seen` sees has been handed out, and what `target` sees up to the place."""

    seen: Snapshot
    place: Place | None = None

    def knows(self, xact: int, end_id: UUID) -> bool:
        """Whether this end has been handed out."""
        if self.seen.sees(xact):
            return True
        place = self.place
        return place is not None and place.target.sees(xact) and (xact, end_id) <= (place.xact, place.id)

    def within(self, other: "FeedCursor") -> bool:
        """Whether the other certainly knows all that this one knows. False if that cannot be told."""
        if not self.seen.within(other.seen):
            return False
        mine, others = self.place, other.place
        if mine is None or mine.target.within(other.seen):
            return True
        return (
            others is not None
            and mine.target.within(others.target)
            and (mine.xact, mine.id) <= (others.xact, others.id)
        )

    @property
    def lowest(self) -> int:
        """No end below this transaction is new."""
        return max(self.seen.xmin, self.place.xact) if self.place else self.seen.xmin

    @property
    def highest(self) -> int:
        """It has seen what this many transactions left: a database that has not had so many is another one."""
        return max(self.seen.xmax, self.place.target.xmax) if self.place else self.seen.xmax


BEGINNING: Final = FeedCursor(NOTHING)


def pack_cursor(cursor: FeedCursor, identity: bytes) -> bytes:
    """What a written cursor says; who hands it out adds a tag, so that only our own come back."""
    packed = bytes([_VERSION]) + identity + _pack(cursor.seen.narrowed())
    if cursor.place is not None:
        packed += _pack(cursor.place.target.narrowed()) + _varint(cursor.place.xact) + cursor.place.id.bytes
    return packed


def unpack_cursor(raw: bytes) -> tuple[FeedCursor, bytes]:
    """
    A cursor and the identity of the history that it is of.

    Raises:
        FeedCursorInvalid: not of this form or version.
    """
    if len(raw) <= IDENTITY_BYTES or raw[0] != _VERSION:
        raise FeedCursorInvalid
    identity, numbers = raw[1 : 1 + IDENTITY_BYTES], _Reader(raw[1 + IDENTITY_BYTES :])
    seen = numbers.snapshot()
    if not numbers.rest:
        return FeedCursor(seen), identity
    target, xact = numbers.snapshot(), numbers.number()
    if len(numbers.rest) != len(UUID(int=0).bytes):
        raise FeedCursorInvalid
    return FeedCursor(seen, Place(target, xact, UUID(bytes=numbers.rest))), identity


def _pack(snapshot: Snapshot) -> bytes:
    return b"".join(_varint(number) for number in _numbers(snapshot))


def _numbers(snapshot: Snapshot) -> Iterator[int]:
    yield snapshot.xmin
    yield snapshot.xmax - snapshot.xmin
    yield len(snapshot.running)
    last = snapshot.xmin
    for xact in sorted(snapshot.running):
        yield xact - last
        last = xact


def _varint(number: int) -> bytes:
    packed = bytearray()
    while number > _SEVEN_BITS:
        packed.append(number & _SEVEN_BITS | ~_SEVEN_BITS & 0xFF)
        number >>= 7
    packed.append(number)
    return bytes(packed)


class _Reader:
    def __init__(self, raw: bytes) -> None:
        self.rest = raw

    def number(self) -> int:
        value = shift = 0
        for index, byte in enumerate(self.rest):
            value |= (byte & _SEVEN_BITS) << shift
            shift += 7
            if byte <= _SEVEN_BITS:
                self.rest = self.rest[index + 1 :]
                if value >= _XID_LIMIT:
                    break
                return value
        raise FeedCursorInvalid

    def snapshot(self) -> Snapshot:
        xmin = self.number()
        xmax = xmin + self.number()
        count = self.number()
        if not xmin or xmax >= _XID_LIMIT or count > RUNNING_MAXIMUM:
            raise FeedCursorInvalid
        running, last = set(), xmin
        for _ in range(count):
            last += self.number()
            running.add(last)
        if len(running) != count or last > xmax:
            raise FeedCursorInvalid
        return Snapshot(xmin, xmax, frozenset(running))
