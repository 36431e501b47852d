"""
Verifying an exported trail offline: no database, no network, no trust in who exported it, only in the public keys.

What is checked, in order: signatures of the checkpoints; one root a size; the roots of all checkpoints from the tiles;
each tile under the one above it, up to the signed root; each entry under its tile; each entry's form under the
vocabulary; each session's life, counted without gaps; times; personal data under its commitment.
"""

import gc
import re
from binascii import a2b_base64
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from app.domain.bundles import Manifest, personal_path, unpack
from app.domain.checkpoints import Malformed, previous_origin
from app.domain.entries import base64url
from app.domain.entry_forms import UnknownForm, read_entry, read_opening
from app.domain.findings import Class, Report
from app.domain.lives import IllegalLife, Life, Members, missing_numbers
from app.domain.merkle import TILE_WIDTH, leaf_hash, tile_path
from app.domain.tree_verification import Files, OpenNote, Stop, TreeVerifier, name_of

_PERSONAL: Final = re.compile(
    rb"(0|[1-9]\d{0,17}) ([A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]) (\{\"ip\":.*\})", re.DOTALL
).fullmatch
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")

TOLERANCE: Final = timedelta(minutes=5)  # by which an event may be older than one before it in the tree


class Verifier(TreeVerifier):
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
        super().__init__(files, open_note, copies=copies)
        self._oldest = oldest
        self._progress = progress
        self._lives: dict[str, Life] = {}
        self._others: set[str] = set()
        self._unexplained: dict[str, list[str]] = {}
        self._erased: set[str] = set()
        self._latest = ""
        self._floor = self._minute = ""
        self._personal = 0
        self._retained = self._beginning_removed = False
        self._continued: str | None = None

    def run(self) -> Report:
        """All checks, to the end or to where nothing more can be checked."""
        collecting = gc.isenabled()
        gc.disable()  # nothing here is cyclic, and the collector would walk all sessions again and again
        try:
            return self._run()
        finally:
            if collecting:
                gc.enable()

    def _run(self) -> Report:
        try:
            manifest = self._read_manifest()
            self._continued = previous_origin(manifest.origin)
            checkpoints = self._read_checkpoints(manifest)
            self._check_tiles(manifest, checkpoints[-1])
            self._check_roots(manifest, checkpoints)
            self._check_entries(manifest)
            self._check_copies(manifest, checkpoints)
            self._check_lives(manifest)
            self._check_personal(manifest)
            self._check_beginning(manifest)
            self._check_age()
            self._check_files()
        except Stop:
            pass
        return self.report

    def _check_files(self) -> None:
        others = self._files.count() - len(self._belonging)
        if others > 0:
            self.report.add(Class.MALFORMED, "the bundle", f"holds {others} files that do not belong to it")

    def _read_manifest(self) -> Manifest:
        raw = self._read("manifest.json")
        if raw is None:
            self._stop(Class.MALFORMED, "manifest.json", "is not there")
        try:
            self.report.manifest = Manifest.parse(raw)
        except Malformed as error:
            self._stop(Class.MALFORMED, "manifest.json", str(error))
        return self.report.manifest

    def _check_entries(self, manifest: Manifest) -> None:
        for start in range(manifest.first, manifest.last, TILE_WIDTH):
            self._check_bundle(manifest, start)
            self._progress(self.report.entries, manifest.last - manifest.first)

    def _check_bundle(self, manifest: Manifest, start: int) -> None:
        index, width = start // TILE_WIDTH, min(TILE_WIDTH, manifest.last - start)
        name = tile_path("entries", index, width)
        raw = self._read(name)
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

    def _read_personal(self, manifest: Manifest, index: int, start: int, width: int) -> dict[int, tuple[bytes, bytes]]:
        """Salt and canonical JSON by index."""
        if manifest.personal is None:
            return {}
        name = personal_path(index)
        found: dict[int, tuple[bytes, bytes]] = {}
        lines = (self._read(name) or b"\n").split(b"\n")
        if lines.pop() or lines == [b""]:
            lines = [] if lines == [b""] else [b"cut short"]
        for line in lines:
            matched = _PERSONAL(line)
            number, salt, data = matched.groups() if matched else (b"-1", b"", b"")
            entry = int(number)
            if not start <= entry < start + width or entry in found:
                self.report.add(Class.MALFORMED, name, "a line is not an index, a salt and JSON, each entry once")
            else:
                found[entry] = (a2b_base64(salt.translate(_STANDARD) + b"="), data)
        self._personal += len(found)
        return found

    def _check_entry(self, index: int, entry: bytes, personal: tuple[bytes, bytes] | None) -> None:
        try:
            if index == 0 and self._continued is not None:
                self._check_opening(read_opening(entry), self._continued)
                return
            event = read_entry(entry)
        except UnknownForm as error:
            self.report.add(Class.UNKNOWN, f"entry {index}", f"{error}{name_of(entry)}")
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
            self._retained |= event["action"] == "audit.retention"

    def _check_opening(self, opening: Members, previous_origin: str) -> None:
        """A further incarnation begins with the last checkpoint of the one before, signed under that one's name."""
        self._beginning_removed = opening["removed"]
        if opening["previous_checkpoint"]:
            self._previous = self._open("entry 0, the checkpoint before", opening["previous_checkpoint"])
            if self._previous is not None and self._previous.origin != previous_origin:
                self.report.add(
                    Class.INCONSISTENT, "entry 0", f"continues {self._previous.origin}, not {previous_origin}"
                )

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
        beginning = manifest.first > 0 or self._beginning_removed
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

    def _check_beginning(self, manifest: Manifest) -> None:
        """Entries may only be gone from the beginning where the log itself says so."""
        if manifest.minimum_index and manifest.last == manifest.size and not self._retained:
            self.report.add(Class.GAP, "the log", f"begins at {manifest.minimum_index}, and no event says why")

    def _check_age(self) -> None:
        if self._oldest is None:
            return
        if not self._latest or datetime.fromisoformat(self._latest) < self._oldest:
            self.report.add(Class.TOO_OLD, "the newest entry", f"is of {self._latest or 'no time'}")
