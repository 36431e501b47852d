"""The sealer: committed events become leaves of the tree, in one total order, each exactly once."""

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.domain.entries import SALT_BYTES, SealedFields, commitment_of, entry_of, person_of
from app.domain.errors import StoredStateInvalid
from app.domain.events import NO_CLIENT, SYSTEM, Action, Event, Outcome
from app.domain.jobs import BUSY, Done
from app.domain.merkle import Tree, leaf_hash
from app.observability.logs import get_logger
from app.repositories.database import Database, UnitOfWork
from app.repositories.seals import Batch, Head, Holder

log = get_logger()

BATCH: Final = 8192
BREATH: Final = 64  # events hashed between two looks at what else there is to do; about a millisecond
NOT_THIS_CLUSTER: Final = (
    "This database was copied into another cluster, whose transaction ids have not come so far: nothing would be "
    "sealed. To go on from here, open a further incarnation (rota audit open-epoch)."
)
LAG_WARNING_SECONDS: Final = 10
LAG_ALARM_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class SealStatus:
    """
    How the sealing stands.

    Args:
        lag_seconds: Age of the oldest event that is not sealed yet; 0 if all are.
        holders: If there is a lag: the transactions that may be the cause, the oldest first.
    """

    origin: str
    epoch: int
    tree_size: int
    lag_seconds: float
    holders: Sequence[Holder]
    checkpoint_size: int | None
    checkpoint_at: datetime | None


class Sealing:
    def __init__(self, database: Database, *, origin: str, origin_is_set: bool = False) -> None:
        """
        Args:
            origin: The log's name; only used when the log is founded, and compared later if it was set explicitly.
        """
        self._database = database
        self._origin = origin
        self._must_match = origin_is_set
        self._alarmed = False

    async def seal(self) -> Done:
        """
        Seal what has committed, up to `BATCH` events; whether there is more to do at once.

        One transaction: either tiles, batch and head all move, or nothing does. While another sealer works, nothing is
        done. Each leaf is computed twice, from two reads; a difference means that memory or disk lies, and nothing is
        sealed then.

        Raises:
            StoredStateInvalid: the two reads differ, or the stored head contradicts itself.
        """
        async with self._database.begin() as db:
            if await db.seals.in_recovery():
                return Done()
            if not await db.jobs.try_lock("audit.seal"):
                return BUSY
            head = await db.seals.find_head()
            if head is None:
                await db.seals.found(self._origin)
                await db.commit()
                return Done(more=True)
            if not await db.seals.is_of_this_cluster(head):
                raise StoredStateInvalid(NOT_THIS_CLUSTER, why="transaction ids are behind the cursor")
            if not (await db.seals.read_unsealed(head, limit=1)).events:
                return Done()  # without having taken a transaction id
            head = await db.seals.lock_head()
            if head is None:
                return BUSY
            if self._must_match and not _belongs(head.origin, self._origin):
                raise StoredStateInvalid(why="ROTA_AUDIT_ORIGIN is not the origin of this log")
            batch = await self._seal_next(db, head)
            if batch is None:
                return Done()
            await db.commit()
        await self._check(batch)
        return Done(batch.count, more=batch.count == BATCH)

    async def _seal_next(self, db: UnitOfWork, head: Head) -> Batch | None:
        unsealed = await db.seals.read_unsealed(head, limit=BATCH)
        if not unsealed.events:
            return None
        tree = Tree.restore(head.size, head.edge)
        if tree.root() != head.root:
            raise StoredStateInvalid(why="the head's root is not that of its edge")
        leaves = await self._hash(db, unsealed.events)
        again = await db.seals.read_between(head.cursor, unsealed.end)
        if leaves != await self._hash(db, again.events):
            raise StoredStateInvalid(why="two reads of the same events differ")
        tiles = [tile for leaf in leaves for tile in tree.append(leaf)]
        times = [event.occurred_at for event in unsealed.events]
        batch = Batch(
            epoch=head.epoch,
            first_index=head.size,
            count=len(leaves),
            start=head.cursor,
            end=unsealed.end,
            root=tree.root(),
            first_at=min(times),
            last_at=max(times),
        )
        await db.tiles.add_tiles(head.epoch, tiles)
        await db.seals.add_batch(batch)
        if not await db.seals.move_head(head, tree, unsealed.end):
            raise StoredStateInvalid(why="the head moved under its lock")
        return batch

    async def _hash(self, db: UnitOfWork, events: Sequence[SealedFields]) -> list[bytes]:
        people = {person_of(e.actor_kind, e.actor_id, e.subject_id) for e in events}
        salts = await db.seals.get_salts(people, new_salt)
        leaves = []
        for number, event in enumerate(events, start=1):
            leaves.append(leaf_hash(entry_of(event, commitment_of(event, salts))))
            if number % BREATH == 0:
                await asyncio.sleep(0)
        return leaves

    async def _check(self, batch: Batch) -> None:
        """Between a batch's cursors there is what was sealed, no more and no less: nothing commits there later."""
        async with self._database.begin() as db:
            counted = await db.seals.count_between(batch.start, batch.end)
        if counted != batch.count:
            await self.alarm("miscounted", f"{counted} events where {batch.count} were sealed from {batch.first_index}")

    async def status(self) -> SealStatus | None:
        """How it stands; `None` before anything was sealed."""
        async with self._database.begin() as db:
            head = await db.seals.find_head()
            if head is None:
                return None
            oldest, now = await db.seals.find_oldest_unsealed(head), await db.now()
            newest = await db.tiles.find_newest_checkpoint(head.epoch)
            lag = max(0.0, (now - oldest).total_seconds()) if oldest else 0.0
            holders = await db.seals.list_horizon_holders() if lag > LAG_WARNING_SECONDS else []
        return SealStatus(
            head.origin,
            head.epoch,
            head.size,
            lag,
            holders,
            newest.size if newest else None,
            newest.signed_at if newest else None,
        )

    async def list_origins(self) -> list[str]:
        """The names of all incarnations, the first one first."""
        async with self._database.begin() as db:
            return await db.seals.list_origins()

    async def watch(self) -> bool:
        """Say so when sealing lags, and who may be the cause; once a lag is long, the trail says it too."""
        status = await self.status()
        if status is None or status.lag_seconds <= LAG_WARNING_SECONDS:
            self._alarmed = False
            return False
        blocker = _describe(status.holders[0]) if status.holders else "nobody: no sealer is running"
        late = status.lag_seconds > LAG_ALARM_SECONDS
        say = log.error if late else log.warning
        say("audit.seal_lags", lag_seconds=round(status.lag_seconds, 1), blocker=blocker, blockers=len(status.holders))
        if late and not self._alarmed:
            self._alarmed = True
            await self.alarm("unsealed", f"unsealed for {status.lag_seconds:.0f} s; blocker: {blocker}"[:500])
        return False

    async def alarm(self, reason: str, found: str) -> None:
        """Write into the trail that its own checks have found something."""
        log.error(Action.AUDIT_ALARM, reason=reason, found=found)
        event = Event(
            Action.AUDIT_ALARM, SYSTEM, NO_CLIENT, outcome=Outcome.FAILURE, reason=reason, detail={"found": found}
        )
        async with self._database.begin() as db:
            await db.audit.add(event, at=await db.now())
            await db.commit()


def new_salt() -> bytes:
    """What hides a person's data in commitments, until it is deleted."""
    return secrets.token_bytes(SALT_BYTES)


def _belongs(origin: str, wanted: str) -> bool:
    return origin == wanted or origin.startswith(f"{wanted}/epoch-")


def _describe(holder: Holder) -> str:
    who = f"{holder.kind} pid {holder.pid}" if holder.pid else holder.kind
    since = holder.since.isoformat(timespec="seconds") if holder.since else "unknown"
    place = f"database {holder.database}, login {holder.username}, application {holder.application!r}"
    return f"{who} in {place}, {holder.state}, since {since}"
