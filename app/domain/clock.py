"""Time is PostgreSQL's. This port lets tests move it."""

import time
from datetime import UTC, datetime
from typing import Final

# Of two durations the one that counts a suspended host's sleep too, where the system tells it.
_STEADY: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock:
    """The wall: the database tells the time of every decision, the host's clock only picks published keys."""

    def for_database(self) -> datetime | None:
        """Passed to statements as `:now`; `None` means the statement's own time."""
        return None

    def on_host(self) -> datetime:
        """Good to within days; never compared with a stored time."""
        return datetime.now(UTC)

    def elapsed(self) -> float:
        """Seconds since some moment. Nobody can set it, so what it measures does not depend on the host's clock."""
        return time.clock_gettime(_STEADY)
