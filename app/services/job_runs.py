"""The table of jobs: what each is for, when it ran, when it runs next."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.domain.clients import ClientContext
from app.domain.events import Actor
from app.domain.jobs import Duty, JobRun
from app.repositories.database import Database
from app.services.admin_reads import AdminReads
from app.settings import Settings, variable

_ERROR_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class JobLine:
    """
    One line of the table.

    Args:
        retention: As it is set here, in words.
        run: `None`: it has never run.
        overdue: Nobody has run it for longer than it should take: no server is running, or it hangs.
    """

    duty: Duty
    retention: str
    run: JobRun | None
    overdue: bool


class JobRuns:
    def __init__(self, database: Database, settings: Settings, reads: AdminReads) -> None:
        self._database = database
        self._settings = settings
        self._reads = reads

    async def now(self) -> datetime:
        """The database's time."""
        async with self._database.begin() as db:
            return await db.now()

    async def record(
        self,
        duty: Duty,
        *,
        took: float,
        rows: int,
        added: int,
        is_whole: bool,
        whole_since: datetime | None = None,
        again_in: float,
        error: str | None = None,
    ) -> None:
        """
        Remember a run of a job, good or bad.

        Args:
            took: Seconds since it began.
            rows: Since it began; `added` of them are not in the table yet.
            is_whole: Whether it left nothing to do.
            whole_since: What was due then is done; if not given, it is what was due when the run began.
            again_in: Seconds until it is due again.
        """
        async with self._database.begin() as db:
            now = await db.now()
            began_at = now - timedelta(seconds=took)
            await db.jobs.record(
                duty.name,
                began_at=began_at,
                ended_at=now,
                next_at=now + timedelta(seconds=again_in),
                rows=rows,
                added=added,
                whole_since=(whole_since or began_at) if is_whole else None,
                error=error and error[:_ERROR_CHARACTERS],
            )
            await db.commit()

    async def list_lines(self, duties: Sequence[Duty]) -> list[JobLine]:
        """The table, in the order of the duties."""
        async with self._database.begin() as db:
            runs, now = await db.jobs.list_runs(), await db.now()
        return [_line(duty, runs.get(duty.name), now, self._retention(duty)) for duty in duties]

    async def show(self, duties: Sequence[Duty], *, actor: Actor, client: ClientContext) -> list[JobLine]:
        """The same for somebody who asked; that they did is an event."""
        lines = await self.list_lines(duties)
        await self._reads.record("jobs", {}, len(lines), actor=actor, client=client)
        return lines

    def _retention(self, duty: Duty) -> str:
        if not duty.days_setting:
            return duty.retention
        if self._settings.audit_legal_hold:
            return f"for ever ({variable('audit_legal_hold')})"
        days = getattr(self._settings, duty.days_setting)
        kept = f"{days} days" if days else "for ever"
        return f"{kept} {duty.retention} ({variable(duty.days_setting)})"


def _line(duty: Duty, run: JobRun | None, now: datetime, retention: str) -> JobLine:
    late = run is None or now > run.next_at + timedelta(seconds=max(60.0, 2 * duty.every_seconds))
    return JobLine(duty, retention, run, late)
