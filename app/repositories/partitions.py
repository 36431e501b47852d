"""The trail's partitions: how far they reach, whether they are protected, and taking one off."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.repositories.seals import Place

PARTITIONS: Final = r"""
SELECT c.relname::text,
       (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''([^'']+)''\)'))[1]::timestamptz,
       (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \(''([^'']+)''\)'))[1]::timestamptz,
       i.inhdetachpending
  FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
 WHERE i.inhparent = 'audit_events'::regclass ORDER BY 2
"""
# Every partition and the trail itself must have these, and the tree's tables theirs, for everybody and always.
UNPROTECTED: Final = """
SELECT c.relname::text FROM pg_class AS c
 WHERE (c.oid = 'audit_events'::regclass
        OR c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'audit_events'::regclass))
   AND 3 <> (SELECT count(*) FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid
              WHERE t.tgrelid = c.oid AND t.tgenabled = 'A'
                AND (t.tgname, p.proname) IN (('audit_no_update', 'audit_allow_erasure'),
                                              ('audit_no_delete', 'audit_refuse'),
                                              ('audit_no_truncate', 'audit_refuse')))
UNION ALL
SELECT name FROM unnest(ARRAY['audit_batches', 'audit_tiles', 'audit_checkpoints']) AS name
 WHERE 2 <> (SELECT count(*) FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid
              WHERE t.tgrelid = name::regclass AND t.tgenabled = 'A' AND p.proname = 'audit_refuse'
                AND t.tgname IN ('audit_no_change', 'audit_no_truncate'))
 ORDER BY 1
"""
DETACHED: Final = r"""
SELECT c.relname::text FROM pg_class AS c
 WHERE c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'audit_events'::regclass)
   AND c.relkind = 'r' AND c.relname ~ '^audit_events_\d{4}_\d{2}$' AND NOT c.relispartition
 ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Partition:
    """One month of the trail."""

    name: str
    start: datetime
    end: datetime
    half_detached: bool


class PartitionRepository:
    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def make(self, until: datetime) -> int:
        """Make the months' partitions up to that time; how many were missing."""
        made: int = (await self._db.execute(select(func.audit_make_partitions(until)))).scalar_one()
        return made

    async def list_all(self) -> list[Partition]:
        """The partitions, the oldest first."""
        rows: Any = (await self._db.exec_driver_sql(PARTITIONS)).all()
        return [Partition(row[0], row[1], row[2], row[3]) for row in rows]

    async def list_unprotected(self) -> list[str]:
        """Tables of the trail that lack a trigger, or have one that is not always on."""
        return list((await self._db.exec_driver_sql(UNPROTECTED)).scalars())

    async def list_detached(self) -> list[str]:
        """Months that were taken off and not dropped yet: an interrupted retention."""
        return list((await self._db.exec_driver_sql(DETACHED)).scalars())

    async def find_ends(self, name: str) -> tuple[Place, Place, int] | None:
        """The first and the last place of a partition, and how many events it has; `None`: none."""
        first = await self._end(name, "")
        last = await self._end(name, " DESC")
        if first is None or last is None:
            return None
        await self._db.execute(text("SET LOCAL statement_timeout = '10min'"))  # a month may be long, and nobody waits
        counted: int = (await self._db.exec_driver_sql(f"SELECT count(*) FROM {name}")).scalar_one()  # noqa: S608
        return first, last, counted

    async def _end(self, name: str, way: str) -> Place | None:
        ordered = f"ORDER BY epoch{way}, xact_id{way}, seq{way} LIMIT 1"
        found: Any = await self._db.exec_driver_sql(f"SELECT epoch, xact_id::text, seq FROM {name} {ordered}")  # noqa: S608
        row = found.one_or_none()
        return None if row is None else Place(*row)

    async def detach(self, partition: Partition) -> None:
        """
        Take a partition off without keeping writers out. Outside a transaction; as the owner.

        An interrupted one is finished.
        """
        word = "FINALIZE" if partition.half_detached else "CONCURRENTLY"
        await self._db.exec_driver_sql(f"ALTER TABLE audit_events DETACH PARTITION {partition.name} {word}")

    async def protect(self, name: str) -> None:
        """Give a table that is no partition any more the triggers that it lost with that. As the owner."""
        await self._db.execute(text("SELECT audit_protect(CAST(:name AS regclass))"), {"name": name})

    async def drop(self, name: str) -> None:
        await self._db.exec_driver_sql(f"DROP TABLE {name}")
