"""The tree's tiles and signed heads. Both are only ever added."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.merkle import HASH_BYTES, TILE_WIDTH, Tile, Tree, edge_widths, split
from app.models import AuditCheckpointRow, AuditTileRow
from app.repositories.seals import Head


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    size: int
    root: bytes
    note: str
    signed_at: datetime


_CHECKPOINT = (
    AuditCheckpointRow.tree_size,
    AuditCheckpointRow.root,
    AuditCheckpointRow.note,
    AuditCheckpointRow.signed_at,
)


class TileRepository:
    def __init__(self, db: AsyncConnection) -> None:
        self._db = db

    async def add_tiles(self, epoch: int, tiles: Sequence[Tile]) -> None:
        rows = [{"epoch": epoch, "level": t.level, "idx": t.index, "data": t.data} for t in tiles]
        if rows:
            await self._db.execute(insert(AuditTileRow), rows)

    async def get_tile(self, head: Head, level: int, index: int, width: int) -> list[bytes]:
        """The first `width` hashes of a tile, full or still growing."""
        found = select(AuditTileRow.data).where(
            AuditTileRow.epoch == head.epoch, AuditTileRow.level == level, AuditTileRow.idx == index
        )
        data: bytes | None = (await self._db.execute(found)).scalar_one_or_none()
        if data is None:
            if level >= len(head.edge) or index != head.size >> (8 * (level + 1)):
                raise LookupError("no such tile")
            data = head.edge[level]
        if len(data) < width * HASH_BYTES:
            raise LookupError("the tile is not so wide")
        return split(data[: width * HASH_BYTES])

    async def get_tree(self, head: Head, size: int) -> Tree:
        """The tree as it was at a size, from its tiles."""
        edge = [
            b"".join(await self.get_tile(head, level, size >> (8 * (level + 1)), width)) if width else b""
            for level, width in enumerate(edge_widths(size))
        ]
        return Tree.restore(size, edge)

    async def get_leaves(self, head: Head, start: int, end: int) -> list[bytes]:
        """Leaf hashes from `start` to the end of its tile, or to `end`."""
        tile, offset = divmod(start, TILE_WIDTH)
        return (await self.get_tile(head, 0, tile, min(TILE_WIDTH, end - tile * TILE_WIDTH)))[offset:]

    async def add_checkpoint(self, epoch: int, checkpoint: StoredCheckpoint) -> None:
        """Store a signed head; a second one for its size is refused by the key."""
        values = {
            "epoch": epoch,
            "tree_size": checkpoint.size,
            "root": checkpoint.root,
            "note": checkpoint.note,
            "signed_at": checkpoint.signed_at,
        }
        await self._db.execute(insert(AuditCheckpointRow).values(values))

    async def find_newest_checkpoint(self, epoch: int) -> StoredCheckpoint | None:
        found = select(*_CHECKPOINT).where(AuditCheckpointRow.epoch == epoch)
        row = (await self._db.execute(found.order_by(AuditCheckpointRow.tree_size.desc()).limit(1))).one_or_none()
        return None if row is None else StoredCheckpoint(*row)

    async def list_checkpoints(self, epoch: int, *, after: int, until: int, limit: int) -> list[StoredCheckpoint]:
        """Signed heads by size, each larger than `after` and at most `until`."""
        size = AuditCheckpointRow.tree_size
        found = select(*_CHECKPOINT).where(AuditCheckpointRow.epoch == epoch, size > after, size <= until)
        return [StoredCheckpoint(*row) for row in await self._db.execute(found.order_by(size).limit(limit))]
