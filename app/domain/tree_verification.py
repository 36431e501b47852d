"""The first half of a verification: signatures, checkpoints, tiles, and that each entry is the one that was sealed."""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NoReturn, Protocol

from app.domain.bundles import Manifest, tile_width, tiles_for
from app.domain.checkpoints import Checkpoint, Malformed
from app.domain.findings import Class, Report
from app.domain.merkle import HASH_BYTES, TILE_WIDTH, edge_root, edge_widths, split, subtree_root, tile_path


class Files(Protocol):
    """A bundle's files by their names."""

    def read(self, name: str) -> bytes | None:
        """The whole file; `None`: there is none that can be read."""

    def count(self) -> int:
        """How many files there are."""


OpenNote = Callable[[str], str]
"""The text of a note that a trusted key has signed; raises `Malformed`, or another exception saying what is wrong."""


class Stop(Exception):
    """Nothing beyond this can be checked."""


class TreeVerifier:
    """What a bundle's tree says, as far as its files go."""

    def __init__(self, files: Files, open_note: OpenNote, *, copies: Sequence[tuple[str, str]] = ()) -> None:
        """
        Args:
            copies: Checkpoints that the auditor has kept or got elsewhere: name and note.
        """
        self._files = files
        self._open_note = open_note
        self._copies = copies
        self.report = Report()
        self._belonging: set[str] = set()
        self._previous: Checkpoint | None = None  # of the log that this one continues
        self._tiles: dict[tuple[int, int], list[bytes]] = {}

    def _read(self, name: str) -> bytes | None:
        """A file; it belongs to the bundle, and nothing else does."""
        raw = self._files.read(name)
        if raw is not None:
            self._belonging.add(name)
        return raw

    def _read_checkpoints(self, manifest: Manifest) -> list[Checkpoint]:
        raw = self._read("checkpoints")
        newest = self._read("checkpoint")
        if raw is None or newest is None:
            self._stop(Class.MISSING, "checkpoint", "is not there")
        try:
            notes = _split_notes(raw.decode())
            same = newest.decode() == (notes[-1] if notes else "")
        except (UnicodeDecodeError, Malformed):
            self._stop(Class.MALFORMED, "checkpoints", "is not a list of signed notes")
        if not same:
            self.report.add(Class.INCONSISTENT, "checkpoint", "is not the last of the checkpoints")
        found = [self._open(f"checkpoints, note {number}", note) for number, note in enumerate(notes, start=1)]
        good = [checkpoint for checkpoint in found if checkpoint is not None]
        for before, after in pairwise(good):
            if before.size >= after.size:
                self.report.add(
                    Class.INCONSISTENT, "checkpoints", f"size {after.size} does not come after {before.size}"
                )
        for checkpoint in good:
            if checkpoint.origin != manifest.origin:
                self.report.add(Class.INCONSISTENT, "checkpoints", f"size {checkpoint.size} is of another log")
        self.report.checkpoints = len(good)
        if len(notes) != manifest.checkpoints:
            self.report.add(
                Class.MISSING, "checkpoints", f"{len(notes)} where the manifest counts {manifest.checkpoints}"
            )
        if not good or good[-1].size != manifest.size:
            self._stop(Class.SIGNATURE, "checkpoints", "there is no signed head of the size that the manifest names")
        return good

    def _open(self, place: str, note: str) -> Checkpoint | None:
        try:
            return Checkpoint.parse(self._open_note(note))
        except Malformed as error:
            self.report.add(Class.MALFORMED, place, str(error))
        except Exception as error:  # noqa: BLE001 - the signature check's own word, whatever its class
            self.report.add(Class.SIGNATURE, place, str(error))
        return None

    def _check_tiles(self, manifest: Manifest, newest: Checkpoint) -> None:
        """Each tile under its parent, from the top down; the right edge under the signed root."""
        for level, index, width in tiles_for(manifest.size, manifest.first, manifest.last):
            if level > 0 or index == manifest.size // TILE_WIDTH:
                self._load_tile(level, index, width)
        edge = [
            self._tiles.get((level, manifest.size >> (8 * (level + 1))), []) if width else []
            for level, width in enumerate(edge_widths(manifest.size))
        ]
        if edge_root(edge) != newest.root:
            self.report.add(
                Class.INCONSISTENT, "tile", f"the right edge does not lead to the signed root of size {newest.size}"
            )
        for (level, index), hashes in sorted(self._tiles.items(), reverse=True):
            if len(hashes) == TILE_WIDTH:
                self._check_under_parent(level, index, subtree_root(hashes))

    def _load_tile(self, level: int, index: int, width: int) -> list[bytes]:
        if (level, index) not in self._tiles:
            name = tile_path(str(level), index, width)
            raw = self._read(name)
            if raw is None or len(raw) != width * 32:
                kind = Class.MISSING if raw is None else Class.MALFORMED
                self.report.add(kind, name, "is not there" if raw is None else "has the wrong length")
                raw = bytes(width * 32)
            self._tiles[level, index] = split(raw)
        return self._tiles[level, index]

    def _check_under_parent(self, level: int, index: int, root: bytes) -> bool:
        parent = self._tiles.get((level + 1, index // TILE_WIDTH), [])
        slot = index % TILE_WIDTH
        if slot < len(parent) and parent[slot] == root:
            return True
        self.report.add(
            Class.INCONSISTENT, tile_path(str(level), index), "does not hash to its place in the tile above"
        )
        return False

    def _check_roots(self, manifest: Manifest, checkpoints: Sequence[Checkpoint]) -> None:
        """Every signed root of the range is that of the same tree: they are all consistent with one another."""
        for checkpoint in checkpoints[:-1]:
            if not self._root_holds(manifest, checkpoint):
                self.report.add(
                    Class.INCONSISTENT, f"checkpoint of size {checkpoint.size}", "its root is not that of the tiles"
                )

    def _check_copies(self, manifest: Manifest, checkpoints: Sequence[Checkpoint]) -> None:
        """What the auditor has kept must be of this history."""
        by_size = {checkpoint.size: checkpoint.root for checkpoint in checkpoints}
        for name, note in self._copies:
            copy = self._open(name, note)
            if copy is None:
                continue
            if copy.origin != manifest.origin:
                self._check_previous(name, copy)
            elif copy.size > manifest.size:
                self.report.newer = max(self.report.newer, copy.size)
            elif copy.size in by_size:
                if by_size[copy.size] != copy.root:
                    self.report.add(Class.INCONSISTENT, name, f"a second root for size {copy.size}")
            elif not manifest.first <= copy.size <= manifest.last:
                self.report.beyond += 1
            elif not self._root_holds(manifest, copy):
                self.report.add(Class.INCONSISTENT, name, f"its root of size {copy.size} is not that of the tiles")

    def _check_previous(self, name: str, copy: Checkpoint) -> None:
        """A copy of the log that this one continues: nothing may have been published after what the opening names."""
        before = self._previous
        if before is None or before.origin != copy.origin or copy.size < before.size:
            self.report.beyond += 1
        elif copy.size > before.size or copy.root != before.root:
            self.report.add(Class.INCONSISTENT, name, f"size {copy.size} is not what this log says it continues")

    def _root_holds(self, manifest: Manifest, checkpoint: Checkpoint) -> bool:
        if checkpoint.size > manifest.size:
            return False
        edge: list[list[bytes]] = []
        for level, width in enumerate(edge_widths(checkpoint.size)):
            index = checkpoint.size >> (8 * (level + 1))
            hashes = self._tile(manifest, level, index) if width else []
            edge.append(hashes[:width])
        return edge_root(edge) == checkpoint.root

    def _tile(self, manifest: Manifest, level: int, index: int) -> list[bytes]:
        """A tile, from the ones kept or from its file; tiles of level 0 are not kept, there are too many."""
        if (level, index) in self._tiles:
            return self._tiles[level, index]
        raw = self._read(tile_path(str(level), index, tile_width(manifest.size, level, index)))
        return split(raw) if raw is not None else []

    def _check_leaves(self, manifest: Manifest, index: int, leaves: list[bytes], entries: list[bytes]) -> None:
        """Each entry under its tile, the tile under the one above it, whichever of the two is wrong."""
        width, name = tile_width(manifest.size, 0, index), tile_path("0", index, tile_width(manifest.size, 0, index))
        tile = self._tiles.get((0, index))
        if tile is None:
            raw = self._read(name)
            if raw is None or len(raw) != width * HASH_BYTES:
                kind = Class.MISSING if raw is None else Class.MALFORMED
                self.report.add(kind, name, "is not there" if raw is None else "has the wrong length")
            tile = leaves if raw is None else split(raw)
            if width == TILE_WIDTH and tile != leaves and subtree_root(leaves) == self._parent_hash(index):
                self.report.add(Class.INCONSISTENT, name, "is not the tile of its entries, which are genuine")
                return
            if width == TILE_WIDTH:
                self._check_under_parent(0, index, subtree_root(tile) if tile else b"")
        start = index * TILE_WIDTH
        for offset, leaf in enumerate(leaves):
            place = f"entry {start + offset}"
            if not entries[offset]:
                self.report.add(Class.MISSING, place, "was sealed, and is not there")
            elif tile[offset : offset + 1] != [leaf]:
                self.report.add(Class.ALTERED, place, f"is not what was sealed{name_of(entries[offset])}")

    def _parent_hash(self, index: int) -> bytes | None:
        parent = self._tiles.get((1, index // TILE_WIDTH), [])
        return parent[index % TILE_WIDTH] if index % TILE_WIDTH < len(parent) else None

    def _stop(self, kind: Class, place: str, what: str) -> NoReturn:
        self.report.add(kind, place, what)
        raise Stop


def name_of(entry: bytes) -> str:
    """The event's own id, if it still can be read."""
    found = re.search(rb'"id":"([0-9a-f-]{36})"', entry)
    return f" (event {found.group(1).decode()})" if found else ""


def _split_notes(text: str) -> list[str]:
    """Notes of five lines each (three of text, one empty, one signature), an empty line between."""
    lines = text.split("\n")
    if lines.pop() or len(lines) % 6 != 5:  # noqa: PLR2004 - as above
        raise Malformed("not a list of checkpoints")
    notes = [lines[i : i + 6] for i in range(0, len(lines), 6)]
    if any(len(note) == 6 and note[5] for note in notes):  # noqa: PLR2004 - the line between
        raise Malformed("not a list of checkpoints")
    return ["\n".join(note[:5]) + "\n" for note in notes]
