"""What a verification finds: kinds of findings, and its report."""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from app.domain.bundles import Manifest

KEPT: Final = 100  # findings shown; all are counted


class Class(IntEnum):
    """Kinds of findings; the number is the exit code of `rota audit verify`. The smallest one found decides."""

    MALFORMED = 10  # not a bundle, or a part of it cannot be read
    SIGNATURE = 11  # a checkpoint that no trusted key has signed, or a wrong signature
    INCONSISTENT = 12  # checkpoints, tiles and roots contradict each other
    MISSING = 13  # an entry or a tile is not there
    ALTERED = 14  # an entry is not the one that was sealed
    GAP = 15  # a session's life has a gap, a repetition, or an illegal step
    UNKNOWN = 16  # an entry of a version or form that this program does not know
    TIME = 17  # an entry is dated long before one that stands before it
    PERSONAL = 18  # personal data is missing without an erasure, or is not what was committed to
    TOO_OLD = 19  # the newest entry is older than asked for: sealing or publishing has stopped


@dataclass(frozen=True, slots=True)
class Finding:
    kind: Class
    place: str
    what: str


@dataclass(slots=True)
class Report:
    """What was found, and how much was looked at."""

    manifest: Manifest | None = None
    entries: int = 0
    checkpoints: int = 0
    sessions: int = 0
    newest: str | None = None
    erased: int = 0
    beyond: int = 0  # checkpoints of copies that this bundle cannot check
    newer: int = 0  # the size of the largest copy, if the log had grown beyond the bundle when it was made
    findings: list[Finding] = field(default_factory=list)
    counts: dict[Class, int] = field(default_factory=dict)

    def add(self, kind: Class, place: str, what: str) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if len(self.findings) < KEPT:
            self.findings.append(Finding(kind, place, what))

    @property
    def exit_code(self) -> int:
        return min(self.counts, default=0)
