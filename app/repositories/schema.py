"""The state of the database's schema: which revisions it has, and what no revision means to leave behind."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.events import Action
from app.domain.schema import Applied
from app.models import AuditEventRow, Base, SchemaRevisionRow

TABLE: Final = SchemaRevisionRow.__tablename__
VERSIONS: Final = "alembic_version"

READABLE: Final = """
SELECT name FROM unnest(CAST(:names AS text[])) AS name
 WHERE to_regclass(name) IS NOT NULL AND has_table_privilege(to_regclass(name), 'SELECT')
"""
# Ours: the tables of the models, and the partitions of those that have some. An index that somebody builds at this
# moment is not valid yet, and none of our business.
INVALID: Final = """
SELECT c.relname::text, c.relkind = 'i' FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
  JOIN pg_class AS t ON t.oid = i.indrelid
  LEFT JOIN pg_inherits AS up ON up.inhrelid = t.oid
  LEFT JOIN pg_class AS parent ON parent.oid = up.inhparent
 WHERE t.relnamespace = current_schema()::regnamespace AND coalesce(parent.relname, t.relname) = ANY(:tables)
   AND NOT i.indisvalid
   AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index AS p
                    WHERE p.index_relid = i.indexrelid OR (p.index_relid = 0 AND p.relid = i.indrelid))
 ORDER BY 1
"""
UNVALIDATED: Final = """
SELECT DISTINCT c.conname::text FROM pg_constraint AS c
  JOIN pg_class AS t ON t.oid = c.conrelid
  LEFT JOIN pg_inherits AS up ON up.inhrelid = t.oid
  LEFT JOIN pg_class AS parent ON parent.oid = up.inhparent
 WHERE t.relnamespace = current_schema()::regnamespace AND coalesce(parent.relname, t.relname) = ANY(:tables)
   AND NOT c.convalidated
 ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class InvalidIndex:
    """An index that serves nobody and is written all the same: what an interrupted concurrent build leaves."""

    name: str
    of_one_table: bool  # not the mere catalogue entry of a partitioned one


class SchemaRepository:
    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def list_heads(self) -> list[str]:
        """What Alembic's own table says; empty also for a login that may not read it."""
        if VERSIONS not in await self._readable():
            return []
        found = await self._db.execute(text(f"SELECT version_num::text FROM {VERSIONS} ORDER BY 1"))  # noqa: S608 - a constant
        return list(found.scalars())

    async def list_applied(self) -> list[Applied]:
        """What each applied revision declared; empty before the revision that made the table."""
        if TABLE not in await self._readable():
            return []
        found = select(SchemaRevisionRow.revision, SchemaRevisionRow.oldest_release)
        return [Applied(*row) for row in await self._db.execute(found.order_by(SchemaRevisionRow.revision))]

    async def list_untold(self) -> list[str]:
        """Applied revisions of which no audit event tells yet; locks their rows."""
        if TABLE not in await self._readable():
            return []
        found = select(SchemaRevisionRow.revision).where(SchemaRevisionRow.told_at.is_(None))
        return list((await self._db.execute(found.with_for_update())).scalars())

    async def mark_told(self, revisions: Sequence[str], *, at: datetime) -> None:
        told = update(SchemaRevisionRow).where(SchemaRevisionRow.revision.in_(revisions))
        await self._db.execute(told.values(told_at=at))

    async def find_last_told(self) -> str | None:
        """The revision that the newest event of a migration names; `None`: there is none."""
        told = select(AuditEventRow.detail).where(AuditEventRow.action == Action.SCHEMA_MIGRATED)
        newest = told.order_by(AuditEventRow.occurred_at.desc()).limit(1)
        detail = (await self._db.execute(newest)).scalar_one_or_none()
        return None if detail is None else str(json.loads(detail)["to"])

    async def has_trail(self) -> bool:
        return "audit_events" in await self._readable("audit_events")

    async def list_invalid_indexes(self) -> list[InvalidIndex]:
        return [InvalidIndex(*row) for row in await self._db.execute(text(INVALID), _OUR_TABLES)]

    async def list_unvalidated(self) -> list[str]:
        """Constraints that were added `NOT VALID` and hold for new rows only."""
        return list((await self._db.execute(text(UNVALIDATED), _OUR_TABLES)).scalars())

    async def see_as_server(self) -> None:
        """See what the server may see, if the login sees nothing by itself and may act as it; for one transaction."""
        if await self._readable():
            return
        member = text("SELECT 1 FROM pg_roles WHERE rolname = 'rota_app' AND pg_has_role(oid, 'MEMBER')")
        if (await self._db.execute(member)).first():
            await self._db.execute(text("SET LOCAL ROLE rota_app"))

    async def _readable(self, *names: str) -> set[str]:
        wanted = list(names or (VERSIONS, TABLE))
        return set((await self._db.execute(text(READABLE), {"names": wanted})).scalars())


_OUR_TABLES: Final[dict[str, Any]] = {"tables": sorted(Base.metadata.tables)}
