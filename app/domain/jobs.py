"""What a job of housekeeping is, what one batch of it did, and how its runs are remembered."""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Done:
    """
    What one bounded batch did. True while there is more to do.

    Args:
        rows: How many it wrote, counted, removed or made.
        more: Whether the next batch would find something at once.
        busy: Another process has the job at this moment, and nothing was done here.
        walks: Whether the batches go through a table, which may have been begun by another process.
        whole_since: At the end of a walk: when it began, if it left nothing out. All that was due then is done.
    """

    rows: int = 0
    more: bool = False
    busy: bool = False
    walks: bool = False
    whole_since: datetime | None = None

    def __bool__(self) -> bool:
        return self.more


BUSY = Done(busy=True)


@dataclass(frozen=True)
class Duty:
    """
    A line of the table of jobs.

    Args:
        name: Stable: it is the key of the job's lock, cursor and runs.
        entity: What it works on.
        retention: How long that is kept before the job comes to it, in words.
        days_setting: The setting that says so in days, 0 for ever; `retention` then says what of it.
        reason: Why there is such a job.
    """

    name: str
    every_seconds: float
    entity: str = field(kw_only=True)
    retention: str = field(kw_only=True)
    reason: str = field(kw_only=True)
    days_setting: str = field(kw_only=True, default="")


@dataclass(frozen=True, slots=True)
class JobRun:
    """
    How a job has been going, by whoever ran it.

    Args:
        began_at, ended_at: Of the last run: a batch, or several short ones told together.
        next_at: When it is due again.
        rows: Of the last run that found anything; `found_at` is when that was.
        total: Since the table was made.
        whole_since: All that was due by then is done.
        error: What the last run failed with, as a code and a word; `None`: it did not.
        failed_at: When a run last failed.
    """

    job: str
    began_at: datetime
    ended_at: datetime
    next_at: datetime
    rows: int
    found_at: datetime | None
    total: int
    whole_since: datetime | None
    error: str | None
    failed_at: datetime | None
