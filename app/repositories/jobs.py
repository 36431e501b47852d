from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Boolean, func, literal_column, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.jobs import JobRun
from app.models import JobCursorRow, JobRunRow

RECORD: Final = """
INSERT INTO job_runs AS r (job, began_at, ended_at, next_at, rows, found_at, total, whole_since, error, failed_at)
VALUES ($1, $2, $3, $4, $5, CASE WHEN $5::bigint > 0 THEN $3::timestamptz END, $8, $6, $7,
        CASE WHEN $7::text IS NOT NULL THEN $3::timestamptz END)
ON CONFLICT (job) DO UPDATE SET
  began_at = excluded.began_at, ended_at = excluded.ended_at, next_at = excluded.next_at,
  rows = CASE WHEN excluded.rows > 0 THEN excluded.rows ELSE r.rows END,
  found_at = coalesce(excluded.found_at, r.found_at), total = r.total + excluded.total,
  whole_since = coalesce(greatest(excluded.whole_since, r.whole_since), r.whole_since),
  error = excluded.error, failed_at = coalesce(excluded.failed_at, r.failed_at)
"""
JOB_BATCH_MILLISECONDS: Final = 1000


class JobRepository:
    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def try_lock(self, job: str) -> bool:
        """
        Whether this transaction may do the job; false while another process does.

        An advisory lock of the transaction, not of the session: it also holds behind a transaction pooler, and dies
        with its holder.
        """
        locked: bool = (
            await self._db.execute(select(func.pg_try_advisory_xact_lock(func.hashtext(f"rota job {job}"))))
        ).scalar_one()
        return locked

    async def lock(self, job: str) -> None:
        """Keep everybody from the job until the end of this transaction; waits for whoever does it now."""
        await self._db.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"rota job {job}"))))

    async def find_cursor(self, job: str) -> UUID | None:
        found = select(JobCursorRow.position).where(JobCursorRow.job == job)
        return (await self._db.execute(found)).scalar_one_or_none()

    async def find_walk(self, job: str) -> tuple[UUID | None, datetime | None]:
        """Where a walk goes on, and when it began; nothing: one has to begin."""
        found = select(JobCursorRow.position, JobCursorRow.began_at).where(JobCursorRow.job == job)
        row = (await self._db.execute(found)).one_or_none()
        return (row.position, row.began_at) if row else (None, None)

    async def set_cursor(self, job: str, position: UUID, began_at: datetime | None = None) -> None:
        values = {"position": position, "began_at": began_at}
        first = insert(JobCursorRow).values(job=job, **values)
        await self._db.execute(first.on_conflict_do_update(index_elements=[JobCursorRow.job], set_=values))

    async def limit_statements(self) -> None:
        """
        Let no statement of this transaction take longer than a batch may hold its locks; one that would is given up.
        """
        await self._db.execute(text(f"SET LOCAL statement_timeout = {JOB_BATCH_MILLISECONDS}"))

    async def record(
        self,
        job: str,
        *,
        began_at: datetime,
        ended_at: datetime,
        next_at: datetime,
        rows: int,
        added: int,
        whole_since: datetime | None,
        error: str | None,
    ) -> None:
        """Remember a run. `whole_since`: nothing was left at its end of what had been due then."""
        values = (job, began_at, ended_at, next_at, rows, whole_since, error, added)
        await self._db.exec_driver_sql(RECORD, values)

    async def list_runs(self) -> dict[str, JobRun]:
        """The runs of every job that has ever run."""
        rows = await self._db.execute(select(*JobRunRow.__table__.columns))
        return {row.job: JobRun(**row._asdict()) for row in rows}

    async def login_is_superuser(self) -> bool:
        """Whether the login, not the role it acts as, may do anything."""
        found = select(literal_column("rolsuper", Boolean)).select_from(text("pg_roles"))
        return bool((await self._db.execute(found.where(text("rolname = session_user")))).scalar_one())
