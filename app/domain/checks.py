"""What a check of `rota doctor` is, and what it may come to."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"
    SKIPPED = "skipped"  # it could not be looked at, and says why


class Need(StrEnum):
    """What must be there for a check to be made."""

    NOTHING = "nothing"
    DATABASE = "database"  # a database that answers the server's login
    SCHEMA = "schema"  # Rota's tables in it
    SERVER = "server"  # besides: settings with which the server's own services can be built


@dataclass(frozen=True, slots=True)
class Check:
    """
    A line of the list.

    Args:
        id: Stable: group, point, name.
        title: What holds when all is well.
        matters: Why that matters, for whoever reads the list.
        fix: What to do about it; commands and settings in backquotes.
        seconds: Its deadline.
    """

    id: str
    title: str
    matters: str
    fix: str
    need: Need = Need.DATABASE
    seconds: float = 5

    @property
    def group(self) -> str:
        return self.id.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check came to, in one sentence; `fix` if there is something better to say than the list does."""

    verdict: Verdict
    why: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Examination:
    """A check and its finding."""

    check: Check
    finding: Finding

    @property
    def fix(self) -> str | None:
        """What to do, where something is to be done."""
        if self.finding.verdict in {Verdict.OK, Verdict.SKIPPED}:
            return None
        return self.finding.fix or self.check.fix


def ok(why: str) -> Finding:
    return Finding(Verdict.OK, why)


def warning(why: str, fix: str = "") -> Finding:
    return Finding(Verdict.WARNING, why, fix)


def failure(why: str, fix: str = "") -> Finding:
    return Finding(Verdict.FAILURE, why, fix)


def skipped(why: str) -> Finding:
    return Finding(Verdict.SKIPPED, why)


def graded(value: float, why: str, *, warn_above: float, fail_above: float = float("inf"), fix: str = "") -> Finding:
    """A finding by two limits."""
    if value > fail_above:
        return failure(why, fix)
    return warning(why, fix) if value > warn_above else ok(why)
