"""
Verifying an exported trail offline: no database, no network, no trust in who exported it, only in the public keys.

What is checked, in order: signatures of the checkpoints; one root a size; the roots of all checkpoints from the tiles;
each tile under the one above it, up to the signed root; each entry under its tile; each entry's form under the
vocabulary; each session's life, counted without gaps; times; personal data under its commitment.
"""

import re
from binascii import a2b_base64
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import pairwise
from typing import Final, NoReturn, Protocol

from app.domain.bundles import Manifest, personal_path, tile_width, tiles_for, unpack
from app.domain.checkpoints import Checkpoint, Malformed
from app.domain.entries import base64url
from app.domain.entry_forms import UnknownForm, is_opening, read_entry
from app.domain.findings import Class, Report
from app.domain.lives import IllegalLife, Life, Members, missing_numbers
from app.domain.merkle import TILE_WIDTH, edge_root, edge_widths, leaf_hash, split, subtree_root, tile_path

_PERSONAL: Final = re.compile(
    rb"(0|[1-9]\d{0,17}) ([A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]) (\{\"ip\":.*\})", re.DOTALL
).fullmatch
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")

TOLERANCE: Final = timedelta(minutes=5)  # by which an event may be older than one before it in the tree


class Files(Protocol):
    """A bundle's files by their names."""

    def read(self, name: str) -> bytes | None:
        """The whole file; `None`: there is none."""


OpenNote = Callable[[str], str]
"""The text of a note that a trusted key has signed; raises `Malformed`, or another exception saying what is wrong."""


class _Stop(Exception):
    """Nothing beyond this can be checked."""


class Verifier:
    """One verification of one bundle."""

    def __init__(
        self,
        files: Files,
        open_note: OpenNote,
        *,
        copies: Sequence[tuple[str, str]] = (),
        oldest: datetime | None = None,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        """
        Args:
            copies: Checkpoints that the auditor has kept or got elsewhere: name and note.
            oldest: The newest entry must not be older.
        """
        self._files = files
        self._open_note = open_note
        self._copies = copies
        self._oldest = oldest
        self._progress = progress
        self.report = Report()
        self._tiles: dict[tuple[int, int], list[bytes]] = {}
        self._lives: dict[str, Life] = {}
        self._others: set[str] = set()
        self._unexplained: dict[str, list[str]] = {}
        self._erased: set[str] = set()
        self._latest = ""
        self._floor = self._minute = ""
        self._personal = 0

    def run(self) -> Report:
        try:
            manifest = self._read_manifest()
            checkpoints = self._read_checkpoints(manifest)
            self._check_tiles(manifest, checkpoints[-1])
            self._check_roots(manifest, checkpoints)
            self._check_copies(manifest, checkpoints)
            self._check_entries(manifest)
            self._check_lives(manifest)
            self._check_personal(manifest)
            self._check_age()
        except _Stop:
            pass
        return self.report

    def _read_manifest(self) -> Manifest:
        raw = self._files.read("manifest.json")
        if raw is None:
            self._stop(Class.MALFORMED, "manifest.json", "is not there")
        try:
            self.report.manifest = Manifest.parse(raw)
        except Malformed as error:
            self._stop(Class.MALFORMED, "manifest.json", str(error))
        return self.report.manifest

    def _read_checkpoints(self, manifest: Manifest) -> list[Checkpoint]:
        raw = self._files.read("checkpoints")
        newest = self._files.read("checkpoint")
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
            raw = self._files.read(name)
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
            if copy.origin != manifest.origin or copy.size > manifest.size:
                self.report.beyond += 1
                if copy.origin == manifest.origin:
                    self.report.add(Class.INCONSISTENT, name, f"size {copy.size} was published; the bundle has less")
            elif copy.size in by_size:
                if by_size[copy.size] != copy.root:
                    self.report.add(Class.INCONSISTENT, name, f"a second root for size {copy.size}")
            elif not manifest.first <= copy.size <= manifest.last:
                self.report.beyond += 1
            elif not self._root_holds(manifest, copy):
                self.report.add(Class.INCONSISTENT, name, f"its root of size {copy.size} is not that of the tiles")

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
        raw = self._files.read(tile_path(str(level), index, tile_width(manifest.size, level, index)))
        return split(raw) if raw is not None else []

    def _check_entries(self, manifest: Manifest) -> None:
        for start in range(manifest.first, manifest.last, TILE_WIDTH):
            self._check_bundle(manifest, start)
            self._progress(self.report.entries, manifest.last - manifest.first)

    def _check_bundle(self, manifest: Manifest, start: int) -> None:
        index, width = start // TILE_WIDTH, min(TILE_WIDTH, manifest.last - start)
        name = tile_path("entries", index, width)
        raw = self._files.read(name)
        if raw is None:
            self.report.add(Class.MISSING, name, f"entries {start} to {start + width - 1} are not there")
            return
        try:
            entries = unpack(raw)
        except Malformed as error:
            self.report.add(Class.MALFORMED, name, str(error))
            return
        if len(entries) != width:
            self.report.add(Class.MISSING, name, f"{len(entries)} entries where there must be {width}")
            return
        leaves = [leaf_hash(entry) for entry in entries]
        self._check_leaves(manifest, index, leaves, entries)
        personal = self._read_personal(manifest, index, start, width)
        self.report.entries += width
        for number, entry in enumerate(entries, start=start):
            if entry:
                self._check_entry(number, entry, personal.get(number))

    def _check_leaves(self, manifest: Manifest, index: int, leaves: list[bytes], entries: list[bytes]) -> None:
        width = tile_width(manifest.size, 0, index)
        if (0, index) in self._tiles:
            tile = self._tiles[0, index]
        else:
            raw = self._files.read(tile_path("0", index, width))
            if raw is None:
                self.report.add(Class.MISSING, tile_path("0", index, width), "is not there")
                tile = leaves
            else:
                tile = split(raw)
        start = index * TILE_WIDTH
        if tile == leaves:
            if (0, index) not in self._tiles and width == TILE_WIDTH:
                self._check_under_parent(0, index, subtree_root(leaves))
            return
        parent = self._tiles.get((1, index // TILE_WIDTH), [])
        if width == TILE_WIDTH and subtree_root(leaves) in parent[index % TILE_WIDTH : index % TILE_WIDTH + 1]:
            self.report.add(
                Class.INCONSISTENT, tile_path("0", index), "is not the tile of its entries, which are genuine"
            )
            return
        if (0, index) not in self._tiles and len(tile) == TILE_WIDTH:
            self._check_under_parent(0, index, subtree_root(tile))
        for offset, (sealed, leaf) in enumerate(zip(tile, leaves, strict=False)):
            if not entries[offset]:
                self.report.add(Class.MISSING, f"entry {start + offset}", "was sealed, and is not there")
            elif sealed != leaf:
                self.report.add(
                    Class.ALTERED, f"entry {start + offset}", f"is not what was sealed{_name(entries[offset])}"
                )

    def _read_personal(self, manifest: Manifest, index: int, start: int, width: int) -> dict[int, tuple[bytes, bytes]]:
        """Salt and canonical JSON by index."""
        if manifest.personal is None:
            return {}
        name = personal_path(index)
        found: dict[int, tuple[bytes, bytes]] = {}
        lines = (self._files.read(name) or b"\n").split(b"\n")
        if lines.pop() or lines == [b""]:
            lines = [] if lines == [b""] else [b"cut short"]
        for line in lines:
            matched = _PERSONAL(line)
            if matched is None or not start <= int(matched[1]) < start + width or int(matched[1]) in found:
                self.report.add(Class.MALFORMED, name, "a line is not an index, a salt and JSON, each entry once")
            else:
                found[int(matched[1])] = (a2b_base64(matched[2].translate(_STANDARD) + b"="), matched[3])
        self._personal += len(found)
        return found

    def _check_entry(self, index: int, entry: bytes, personal: tuple[bytes, bytes] | None) -> None:
        try:
            event = read_entry(entry)
        except UnknownForm as error:
            if index or not is_opening(entry):
                self.report.add(Class.UNKNOWN, f"entry {index}", f"{error}{_name(entry)}")
            return
        self._check_time(index, event)
        self._check_commitment(index, event, personal)
        if event["family_seq"] is not None:
            self._check_life(index, event)
        elif event["id"] in self._others:
            self.report.add(Class.GAP, f"entry {index}", f"the event {event['id']} stands twice")
        else:
            self._others.add(event["id"])
            if event["action"] == "subject.erased":
                self._erased.add(event["subject_id"])

    def _check_life(self, index: int, event: Members) -> None:
        life = self._lives.get(event["family_id"])
        if life is None:
            life = self._lives[event["family_id"]] = Life()
        try:
            life.tell(event)
        except IllegalLife as error:
            self.report.add(Class.GAP, f"entry {index}", f"session {event['family_id']}: {error}")

    def _check_time(self, index: int, event: Members) -> None:
        at = event["occurred_at"]
        if at > self._latest:
            self._latest = at
            # Compared as text, and moved on once a minute: parsing each time would cost more than all else.
            if at[:16] != self._minute:
                self._minute = at[:16]
                self._floor = (datetime.fromisoformat(at) - TOLERANCE).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        elif at < self._floor:
            self.report.add(Class.TIME, f"entry {index}", f"is dated {at}, after an entry of {self._latest}")

    def _check_commitment(self, index: int, event: Members, personal: tuple[bytes, bytes] | None) -> None:
        commitment = event["commitment"]
        if personal is not None:
            salt, data = personal
            if base64url(sha256(b"\x02" + salt + data).digest()) != commitment:
                self.report.add(Class.PERSONAL, f"entry {index}", "its personal data is not what was committed to")
        elif commitment is not None and self.report.manifest and self.report.manifest.personal is not None:
            self.report.erased += 1
            key = f"{event['subject_id']} {event['actor_id']}"
            self._unexplained.setdefault(key, []).append(str(index))

    def _check_lives(self, manifest: Manifest) -> None:
        beginning = manifest.first > 0 or manifest.minimum_index > 0
        for family, life in self._lives.items():
            if life.waiting and beginning and life.seq == 0:
                try:
                    life.begin_within()
                except IllegalLife as error:
                    self.report.add(Class.GAP, f"session {family}", str(error))
            if life.waiting:
                self.report.add(Class.GAP, f"session {family}", missing_numbers(life))
        self.report.sessions = len(self._lives)
        self.report.newest = self._latest or None

    def _check_personal(self, manifest: Manifest) -> None:
        if manifest.personal is not None and self._personal != manifest.personal:
            self.report.add(
                Class.PERSONAL, "personal", f"{self._personal} records where the manifest counts {manifest.personal}"
            )
        if manifest.last < manifest.size:
            return  # whoever was erased later is not in this bundle
        for people, indexes in self._unexplained.items():
            if not self._erased & set(people.split()):
                for index in indexes:
                    self.report.add(
                        Class.PERSONAL, f"entry {index}", "its personal data is missing, without an erasure"
                    )

    def _check_age(self) -> None:
        if self._oldest is None:
            return
        if not self._latest or datetime.fromisoformat(self._latest) < self._oldest:
            self.report.add(Class.TOO_OLD, "the newest entry", f"is of {self._latest or 'no time'}")

    def _stop(self, kind: Class, place: str, what: str) -> NoReturn:
        self.report.add(kind, place, what)
        raise _Stop


def _name(entry: bytes) -> str:
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
