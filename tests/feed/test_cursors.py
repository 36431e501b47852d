"""The arithmetic of the feed's cursors: no end is ever missed, and none comes twice, whatever commits when."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.clock import Clock
from app.domain.errors import FeedCursorInvalid
from app.domain.families import EndReason
from app.domain.session_ends import CLASSES, WORDS, ReasonClass, SessionEnd
from app.domain.snapshots import (
    BEGINNING,
    CURSOR_CHARACTERS,
    RUNNING_MAXIMUM,
    FeedCursor,
    Place,
    Snapshot,
    pack_cursor,
    unpack_cursor,
)
from app.security.event_tokens import EventTokens
from app.security.keys import Keyring
from app.security.signing_keys import SigningKeys
from app.services.feed_batches import FeedWriter

IDENTITY = b"history!"
SECRET, OLDER = b"n" * 32, b"o" * 32


def writer(*secrets: bytes) -> FeedWriter:
    tokens = EventTokens(SigningKeys(secrets), issuer="https://rota.example", audience="api")
    return FeedWriter(tokens, Keyring(secrets), Clock())


@dataclass
class Model:
    """A database of nothing but transactions that end sessions."""

    next: int = 100
    open: dict[int, int] = field(default_factory=dict)  # transaction: ends it holds
    committed: list[tuple[int, UUID]] = field(default_factory=list)
    _ids: int = 0

    def begin(self, ends: int) -> None:
        self.open[self.next] = ends
        self.next += 1

    def commit(self, which: int) -> None:
        if self.open:
            xact = sorted(self.open)[which % len(self.open)]
            for _ in range(self.open.pop(xact)):
                self._ids += 1
                # Ids say nothing of the order of ends: sessions are as old as they are.
                self.committed.append((xact, UUID(int=self._ids * 0x9E3779B97F4A7C15 % 2**128)))

    def snapshot(self) -> Snapshot:
        return Snapshot(min(self.open, default=self.next), self.next, frozenset(self.open))

    def read(self, cursor: FeedCursor, limit: int) -> tuple[list[tuple[int, UUID]], FeedCursor]:
        """As the repository and the reader do."""
        snapshot = self.snapshot()
        target = cursor.place.target if cursor.place else snapshot
        after = (cursor.place.xact, cursor.place.id) if cursor.place else (0, UUID(int=0))
        unseen = sorted(end for end in self.committed if not cursor.seen.sees(end[0]) and end > after)[:limit]
        full = len(unseen) == limit
        told = [end for end in unseen if target.sees(end[0])]
        return told, FeedCursor(cursor.seen, Place(target, *unseen[-1])) if full else FeedCursor(target)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.integers(0, 3)),
        st.tuples(st.just("commit"), st.integers(0, 5)),
        st.tuples(st.just("read"), st.integers(1, 4)),
    ),
    max_size=60,
)


@given(STEPS)
def test_each_end_comes_exactly_once(steps: list[tuple[str, int]]) -> None:
    """Transactions begin and commit in any order, between any two pages; the cursor goes over the wire each time."""
    model, cursor, told = Model(), BEGINNING, []
    write = writer(SECRET)
    for step, number in [*steps, *[("commit", 0)] * 60, *[("read", 5)] * 80]:
        if step == "begin":
            model.begin(number)
        elif step == "commit":
            model.commit(number)
        else:
            ends, cursor = model.read(cursor, number)
            told += ends
            cursor, identity = write.read_cursor(write.write_cursor(cursor, IDENTITY))
            assert identity == IDENTITY
    assert sorted(told) == sorted(model.committed)


def test_one_number_for_a_cursor_would_not_do() -> None:
    """Why cursors are snapshots: with the greatest transaction seen, the late commit of a lower one is lost."""
    model = Model()
    model.begin(1)
    model.begin(1)
    model.commit(1)
    (seen,), cursor = model.read(BEGINNING, 10)
    model.commit(0)
    assert [end for end in model.committed if end[0] > seen[0]] == []
    assert len(model.read(cursor, 10)[0]) == 1


@given(st.sets(st.integers(10, 200), max_size=120), st.integers(201, 400))
def test_a_cut_down_snapshot_sees_no_more(running: set[int], xmax: int) -> None:
    """However many transactions run, a written cursor is short, and claims nothing that was not seen."""
    whole = Snapshot(min(running, default=xmax), xmax, frozenset(running))
    cut = whole.narrowed()
    assert len(cut.running) <= RUNNING_MAXIMUM
    assert cut.within(whole)
    assert all(whole.sees(xact) for xact in range(1, 500) if cut.sees(xact))
    place = Place(whole, xmax, UUID(int=7))
    write = writer(SECRET)
    text = write.write_cursor(FeedCursor(whole, place), IDENTITY)
    assert len(text) <= CURSOR_CHARACTERS
    assert write.read_cursor(text)[0] == FeedCursor(cut, Place(cut, xmax, UUID(int=7)))


@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(0, 3)), min_size=2, max_size=2),
    st.lists(st.sets(st.integers(1, 12)), min_size=4, max_size=4),
    st.lists(st.tuples(st.integers(1, 14), st.booleans()), min_size=2, max_size=2),
)
def test_within_never_overstates(
    bounds: list[tuple[int, int]], running: list[set[int]], places: list[tuple[int, bool]]
) -> None:
    """If one cursor is said to know all that another knows, it does."""

    def snapshot(number: int) -> Snapshot:
        xmax = bounds[number % 2][0] + bounds[number % 2][1] * (number // 2)
        inside = frozenset(xact for xact in running[number] if xact < xmax)
        return Snapshot(min(inside, default=xmax), xmax, inside)

    one, other = (
        FeedCursor(snapshot(n), Place(snapshot(n + 2), places[n][0], UUID(int=5)) if places[n][1] else None)
        for n in range(2)
    )
    if one.within(other):
        for xact in range(1, 30):
            for end in (UUID(int=1), UUID(int=5), UUID(int=9)):
                assert other.knows(xact, end) or not one.knows(xact, end)
    assert one.within(one)


def test_postgresqls_own_spelling() -> None:
    """As `pg_current_snapshot()` prints it, with and without running transactions."""
    for text in ("10:10:", "10:20:10,14,15", "1:1:"):
        assert str(Snapshot.parse(text)) == text
    snapshot = Snapshot.parse("10:20:10,14")
    assert [xact for xact in range(8, 23) if snapshot.sees(xact)] == [8, 9, 11, 12, 13, *range(15, 20)]


GOOD = writer(SECRET).write_cursor(FeedCursor(Snapshot(10, 20, frozenset({10, 14}))), IDENTITY)


@pytest.mark.parametrize(
    "text",
    ["", "A", "=", "x" * 40, "x" * 5000, GOOD[:-1], GOOD + "A", GOOD + "=", " " + GOOD, "é" * 20, "\0", "AA\nAA", "😀"]
    + [GOOD[:n] + ("A" if GOOD[n] != "A" else "B") + GOOD[n + 1 :] for n in range(0, len(GOOD), 5)],
)
def test_what_we_have_not_written_is_no_cursor(text: str) -> None:
    """Cut, changed in one character, another spelling of the same bytes, noise."""
    with pytest.raises(FeedCursorInvalid):
        writer(SECRET).read_cursor(text)


def test_cursors_outlive_a_change_of_secrets() -> None:
    """Those of a secret that is still listed are good, those of a stranger's never."""
    old = writer(OLDER).write_cursor(BEGINNING, IDENTITY)
    assert writer(SECRET, OLDER).read_cursor(old) == (BEGINNING, IDENTITY)
    with pytest.raises(FeedCursorInvalid):
        writer(SECRET).read_cursor(old)


@given(st.binary(max_size=80))
def test_bytes_of_any_kind_are_read_or_refused(raw: bytes) -> None:
    """Even under a right tag, nothing else comes of them; what is read has this one spelling."""
    for packed in (raw, bytes([1]) + IDENTITY + raw):
        try:
            cursor, identity = unpack_cursor(packed)
        except FeedCursorInvalid:
            continue
        again, _ = unpack_cursor(pack_cursor(cursor, identity))
        assert again == cursor


def test_each_reason_has_a_class_and_words() -> None:
    """Both lists are closed; no class is without words for an administrator and for the user."""
    assert set(CLASSES) == set(EndReason)
    assert {kind for kind, _ in CLASSES.values()} == set(ReasonClass) == set(WORDS)
    assert all(words["en"] for pair in WORDS.values() for words in pair)


def test_an_end_has_one_id() -> None:
    """The same wherever it is told; another for another session, user or time."""
    end = SessionEnd(UUID(int=1), UUID(int=2), datetime(2026, 1, 1, tzinfo=UTC), EndReason.LOGOUT, 7)
    ends = [
        end,
        SessionEnd(UUID(int=2), UUID(int=1), end.ended_at, EndReason.LOGOUT, 7),
        SessionEnd(UUID(int=1), UUID(int=2), datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC), EndReason.LOGOUT, 7),
    ]
    assert len({each.event_id for each in ends}) == 3
    again = SessionEnd(end.user_id, end.id, end.ended_at, EndReason.ADMIN, 9)
    assert again.event_id == end.event_id
    assert all(first != second for first, second in pairwise(each.event_id for each in ends))
