"""Time is PostgreSQL's. This port lets tests move it."""

from datetime import UTC, datetime


class Clock:
    """The wall: the database tells the time of every decision, the host's clock only picks published keys."""

    def for_database(self) -> datetime | None:
        """Passed to statements as `:now`; `None` means the statement's own time."""
        return None

    def on_host(self) -> datetime:
        """Good to within days; never compared with a stored time."""
        return datetime.now(UTC)
