"""What the checks of `rota doctor` look at."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from app.domain.checks import Finding
from app.domain.clock import Clock
from app.domain.jobs import Duty
from app.domain.key_calendar import Calendar
from app.repositories.database import Database
from app.repositories.inspection import Inspection
from app.services.job_runs import JobRuns
from app.services.key_calendar import KeyCalendar
from app.services.sealing import Sealing
from app.settings import Examined, Settings

GIGABYTE: Final = 1024**3


@dataclass(frozen=True, slots=True)
class Services:
    """Of the server's own, those that know more than the tables say."""

    database: Database
    sealing: Sealing
    job_runs: JobRuns
    keys: KeyCalendar


@dataclass(frozen=True, slots=True)
class Patient:
    """
    Args:
        services: `None`: with these settings no server could be built.
        processes: Server processes there are to be, if told.
        backup_stamp: The file that the backup touches; empty: nobody told.
        find_drift: What differs between a database and the models; blocks.
    """

    examined: Examined
    inspection: Inspection
    services: Services | None
    duties: Sequence[Duty]
    clock: Clock
    find_drift: Callable[[str], str | None]
    processes: int | None = None
    backup_stamp: str = ""
    _calendars: list[Calendar] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        return self.examined.settings

    @property
    def server(self) -> Services:
        """For checks that need it, which are not made without."""
        if self.services is None:
            raise LookupError("no services")
        return self.services

    async def calendar(self) -> Calendar:
        """The calendar of keys, asked for once."""
        if not self._calendars:
            self._calendars.append(await self.server.keys.look())
        return self._calendars[0]


Look = Callable[[Patient], Awaitable[Finding]]


def listed(names: Sequence[str], *, most: int = 5) -> str:
    """Some names, and how many more."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def size(count: float) -> str:
    """Bytes for people."""
    return f"{count / GIGABYTE:.1f} GB"
