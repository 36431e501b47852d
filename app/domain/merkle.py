"""
The tree over the trail: RFC 6962 hashes, kept and exchanged as C2SP tiles.

A tree of any size is known by its *edge*: for each level the hashes of that level's unfinished tile. From the edge
alone follow the root, and the edge after another leaf.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

HASH_BYTES: Final = 32
TILE_WIDTH: Final = 256
TILE_BYTES: Final = TILE_WIDTH * HASH_BYTES

EMPTY_ROOT: Final = sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """RFC 6962 section 2.1."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 6962 section 2.1."""
    return sha256(b"\x01" + left + right).digest()


def subtree_root(hashes: Sequence[bytes]) -> bytes:
    """The root over consecutive nodes of one height, one to any number of them."""
    level = list(hashes)
    while len(level) > 1:
        paired = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = paired + level[len(paired) * 2 :]
    return level[0]


def split(data: bytes) -> list[bytes]:
    """The hashes of a tile."""
    return [data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES)]


@dataclass(frozen=True, slots=True)
class Tile:
    """A full tile: `data` is 256 hashes."""

    level: int
    index: int
    data: bytes


@dataclass(slots=True)
class Tree:
    """A growing tree. `edge[l]` holds the hashes of the unfinished tile of level `l`, fewer than 256."""

    size: int = 0
    edge: list[list[bytes]] = field(default_factory=list)

    @classmethod
    def restore(cls, size: int, edge: Sequence[bytes]) -> "Tree":
        """
        From a stored edge, one byte string a level.

        Raises:
            ValueError: the edge is not that of a tree of this size.
        """
        tree = cls(size, [split(data) for data in edge])
        widths = [len(hashes) for hashes in tree.edge]
        if widths != edge_widths(size) or any(len(data) % HASH_BYTES for data in edge):
            raise ValueError("the edge does not fit the size")
        return tree

    def stored_edge(self) -> list[bytes]:
        return [b"".join(hashes) for hashes in self.edge]

    def append(self, leaf: bytes) -> list[Tile]:
        """Add a leaf's hash; the tiles that it has filled, lowest first."""
        full: list[Tile] = []
        self.size += 1
        node, level = leaf, 0
        while True:
            if level == len(self.edge):
                self.edge.append([])
            row = self.edge[level]
            row.append(node)
            if len(row) < TILE_WIDTH:
                return full
            full.append(Tile(level, (self.size >> (8 * (level + 1))) - 1, b"".join(row)))
            node = subtree_root(row)
            row.clear()
            level += 1

    def root(self) -> bytes:
        """RFC 6962 section 2.1: the Merkle Tree Hash."""
        return edge_root(self.edge)


def edge_widths(size: int) -> list[int]:
    """How many hashes the unfinished tile of each level has, in a tree of that size."""
    widths = []
    while size:
        widths.append(size % TILE_WIDTH)
        size //= TILE_WIDTH
    return widths


def edge_root(edge: Sequence[Sequence[bytes]]) -> bytes:
    """The root of the tree that has this edge: from the lowest level up, each is the right end of the one above."""
    right: bytes | None = None
    for hashes in edge:
        # The nodes of a level stand for subtrees of equal size, except for the last, which is what is below.
        peaks = _peaks(hashes)
        for peak in reversed(peaks):
            right = peak if right is None else node_hash(peak, right)
    return EMPTY_ROOT if right is None else right


def _peaks(hashes: Sequence[bytes]) -> list[bytes]:
    """The roots of the largest complete subtrees, left to right (the binary digits of their number)."""
    peaks, start = [], 0
    for bit in reversed(range(len(hashes).bit_length())):
        if len(hashes) & (1 << bit):
            peaks.append(subtree_root(hashes[start : start + (1 << bit)]))
            start += 1 << bit
    return peaks


def needed_tiles(index: int, size: int) -> Iterable[tuple[int, int, int]]:
    """The `(level, tile, width)` that an inclusion proof of a leaf in a tree of that size is made of."""
    level = 0
    while True:
        in_level = size >> (8 * level)
        if not in_level:
            return
        edge_tile, width = divmod(in_level, TILE_WIDTH)
        own = (index >> (8 * level)) // TILE_WIDTH
        if own < edge_tile:
            yield level, own, TILE_WIDTH
        if width:
            yield level, edge_tile, width
        level += 1


def inclusion_proof(index: int, size: int, tiles: Mapping[tuple[int, int], Sequence[bytes]]) -> list[bytes]:
    """
    RFC 6962 section 2.1.1, from the tiles that `needed_tiles` names.

    Raises:
        ValueError: no such leaf in a tree of that size.
    """
    if not 0 <= index < size:
        raise ValueError("no such leaf")

    def mth(start: int, end: int) -> bytes:
        """The root over a complete subtree, or over the right end of the tree."""
        count = end - start
        if count & (count - 1):
            middle = _middle(start, end)
            return node_hash(mth(start, middle), mth(middle, end))
        level, within = divmod(count.bit_length() - 1, 8)
        tile, offset = divmod(start >> (8 * level), TILE_WIDTH)
        return subtree_root(tiles[level, tile][offset : offset + (1 << within)])

    def path(start: int, end: int) -> list[bytes]:
        if end - start == 1:
            return []
        middle = _middle(start, end)
        if index < middle:
            return [*path(start, middle), mth(middle, end)]
        return [*path(middle, end), mth(start, middle)]

    return path(0, size)


def _middle(start: int, end: int) -> int:
    """Where RFC 6962 splits a range: after the largest power of two smaller than its length."""
    return start + (1 << ((end - start - 1).bit_length() - 1))


def root_from_proof(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """
    The root that an inclusion proof leads to (RFC 9162 section 2.1.3.2).

    Raises:
        ValueError: the proof has too few or too many hashes for that place.
    """
    if not 0 <= index < size:
        raise ValueError("no such leaf")
    node, last, found = index, size - 1, leaf
    for step in proof:
        if last == 0:
            raise ValueError("the proof is too long")
        if node & 1 or node == last:
            found = node_hash(step, found)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            found = node_hash(found, step)
        node, last = node >> 1, last >> 1
    if last:
        raise ValueError("the proof is too short")
    return found


def tile_path(kind: str, index: int, width: int = TILE_WIDTH) -> str:
    """C2SP tlog-tiles: `tile/<level or entries>/x001/x234/067[.p/<width>]`."""
    digits = f"{index % 1000:03}"
    while index := index // 1000:
        digits = f"x{index % 1000:03}/{digits}"
    return f"tile/{kind}/{digits}" + (f".p/{width}" if width < TILE_WIDTH else "")
