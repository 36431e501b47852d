"""
The form of an exported trail: a directory in the layout of C2SP tlog-tiles, with what an auditor needs besides.

    manifest.json            what is in it; canonical JSON with a digest of itself
    checkpoint               the newest signed tree head
    checkpoints              all signed heads of the range, by size, separated by empty lines
    tile/<level>/<n>         hashes: the range's, their ancestors', and the right edge (tlog-tiles)
    tile/entries/<n>         entries, each preceded by its length in two bytes (tlog-tiles)
    personal/<n>             a line an entry that has personal data: index, salt (base64url), canonical JSON
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Final, Self

from app.domain.canonical_json import encode, parse_strict
from app.domain.checkpoints import Malformed, is_origin
from app.domain.entries import is_moment
from app.domain.merkle import TILE_WIDTH, edge_widths, tile_path

FORMAT: Final = "rota.bundle/1"
ENTRY_BYTES: Final = 65_535


@dataclass(frozen=True, slots=True)
class Manifest:
    """
    What a bundle holds.

    Args:
        size: The tree's size at the newest checkpoint.
        first, last: The entries' indexes, from the first to one past the last; the first is a multiple of 256.
        personal: How many entries come with their personal data; `None`: it was left out.
        minimum_index: Entries below were removed when their time was over.
    """

    origin: str
    size: int
    first: int
    last: int
    checkpoints: int
    personal: int | None
    minimum_index: int
    exported_at: str
    since: str | None
    until: str | None

    def text(self) -> str:
        members = {"k": FORMAT, **asdict(self)}
        return encode({**members, "digest": sha256(encode(members).encode()).hexdigest()}) + "\n"

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """
        Read a manifest.

        Raises:
            Malformed: it is not one, or was changed.
        """
        try:
            members = parse_strict(raw)
        except ValueError:
            raise Malformed("not JSON") from None
        if not isinstance(members, dict) or members.pop("k", None) != FORMAT:
            raise Malformed(f"not a {FORMAT}")
        members.pop("digest", None)
        try:
            manifest = cls(**members)
            same = manifest.text().encode() == raw
        except (TypeError, ValueError):
            raise Malformed(f"not a {FORMAT}") from None
        if not same:
            raise Malformed("changed since it was written")
        manifest.check()
        return manifest

    def check(self) -> None:
        """
        Types and bounds; the digest only shows that nothing was changed by accident.

        Raises:
            Malformed: it cannot be a manifest.
        """
        numbers = [self.size, self.first, self.last, self.checkpoints, self.minimum_index]
        if self.personal is not None:
            numbers.append(self.personal)
        times = [time for time in (self.exported_at, self.since, self.until) if time is not None]
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise Malformed(f"not a {FORMAT}")
        if not isinstance(self.origin, str) or not is_origin(self.origin) or self.exported_at is None:
            raise Malformed(f"not a {FORMAT}")
        if not all(isinstance(time, str) and is_moment(time) for time in times):
            raise Malformed(f"not a {FORMAT}")
        if self.first % TILE_WIDTH or not self.minimum_index <= self.first < self.last <= self.size:
            raise Malformed("a range that cannot be")


def personal_path(index: int) -> str:
    """Where the personal data of a tile's entries stands."""
    return tile_path("entries", index).replace("tile/entries/", "personal/", 1)


def tile_width(size: int, level: int, index: int) -> int:
    """How wide a tile is in a tree of that size."""
    return max(0, min(TILE_WIDTH, (size >> (8 * level)) - index * TILE_WIDTH))


def tiles_for(size: int, first: int, last: int) -> Iterator[tuple[int, int, int]]:
    """
    The `(level, index, width)` that authenticate the entries of a range in a tree of that size: their own tiles, all
    tiles above them, and the right edge.
    """
    for level, width in enumerate(edge_widths(size)):
        edge = size >> (8 * (level + 1))
        start = (first >> (8 * level)) // TILE_WIDTH
        end = max((last - 1) >> (8 * level), 0) // TILE_WIDTH if last > first else -1
        for index in range(start, end + 1):
            if index != edge and tile_width(size, level, index):
                yield level, index, TILE_WIDTH
        if width:
            yield level, edge, width


def pack(entries: Sequence[bytes]) -> bytes:
    """
    An entry bundle (C2SP tlog-tiles).

    Raises:
        ValueError: an entry beyond 65,535 bytes.
    """
    if any(len(entry) > ENTRY_BYTES for entry in entries):
        raise ValueError("an entry beyond 65,535 bytes")
    return b"".join(len(entry).to_bytes(2) + entry for entry in entries)


def unpack(raw: bytes) -> list[bytes]:
    """
    The entries of an entry bundle.

    Raises:
        Malformed: it does not end with an entry.
    """
    entries, at = [], 0
    while at < len(raw):
        start = at + 2
        at = start + int.from_bytes(raw[at:start])
        entries.append(raw[start:at])
    if at != len(raw):
        raise Malformed("an entry is cut short")
    return entries
