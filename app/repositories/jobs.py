from uuid import UUID

from sqlalchemy import Boolean, func, literal_column, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.models import JobCursorRow


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

    async def set_cursor(self, job: str, position: UUID) -> None:
        first = insert(JobCursorRow).values(job=job, position=position)
        moved = first.on_conflict_do_update(index_elements=[JobCursorRow.job], set_={"position": position})
        await self._db.execute(moved)

    async def login_is_superuser(self) -> bool:
        """Whether the login, not the role it acts as, may do anything."""
        found = select(literal_column("rolsuper", Boolean)).select_from(text("pg_roles"))
        return bool((await self._db.execute(found.where(text("rolname = session_user")))).scalar_one())
