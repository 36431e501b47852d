"""Whether a process is ready for requests: named checks, and what came of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Check(StrEnum):
    """What is asked, in this order. The list is closed: names are labels of metrics."""

    DRAINING = "draining"
    DATABASE = "database"
    SCHEMA = "schema"
    CLOCK = "clock"
    PARTITIONS = "partitions"
    TRAIL = "trail"
    REVOCATION = "revocation"


@dataclass(frozen=True, slots=True)
class Finding:
    """
    What came of one check.

    Args:
        why: What is wrong, or why it was not tried; for an operator's eyes. `None` if all is well.
        tried: False where an earlier failure left nothing to try; such a check is not called ok.
    """

    check: Check
    why: str | None = None
    tried: bool = True

    @property
    def ok(self) -> bool:
        return self.tried and self.why is None


@dataclass(frozen=True, slots=True)
class Report:
    findings: Sequence[Finding]

    @property
    def ready(self) -> bool:
        return all(finding.ok for finding in self.findings)

    @property
    def failed(self) -> str:
        """The names of what is not ok."""
        return ", ".join(finding.check for finding in self.findings if not finding.ok)
