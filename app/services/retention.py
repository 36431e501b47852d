"""Taking off months whose time is over: only when they are sealed, published, exported, and the export verified."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from app.domain.canonical_json import JsonValue
from app.domain.entries import base64url
from app.domain.errors import RotaError, Unavailable
from app.domain.events import NO_CLIENT, SYSTEM, Action, Event
from app.domain.findings import Report
from app.domain.merkle import TILE_WIDTH
from app.observability.logs import get_logger
from app.repositories.database import Database
from app.repositories.partitions import Partition
from app.services.exports import Exports, Progress, Span

log = get_logger()

LOCK_ATTEMPTS: Final = 10


class RetentionRefused(RotaError):
    """A month that may not be removed. The message says why."""

    code = "retention_refused"


@dataclass(frozen=True, slots=True)
class Due:
    """A month whose time is over."""

    name: str
    attached: Partition | None  # `None`: taken off already, by a run that was broken off
    first_index: int
    last_index: int
    events: int
    span: Span | None  # `None`: it is empty, or an earlier bundle holds all of it


class Retention:
    def __init__(self, database: Database, owner: Database, exports: Exports, *, days: int, legal_hold: bool) -> None:
        """`owner` acts as the owner of the tables: nobody else can take a partition off."""
        self._database = database
        self._owner = owner
        self._exports = exports
        self._days = days
        self._legal_hold = legal_hold

    async def list_due(self) -> AsyncIterator[Due]:
        """
        The months past their time, the oldest first; each is looked at when the one before is done with, for removing
        a month moves the beginning of the log.

        Raises:
            RetentionRefused: no time is set, or a legal hold is, or one of them is not sealed and published.
        """
        if self._legal_hold:
            raise RetentionRefused("ROTA_AUDIT_LEGAL_HOLD is set: nothing is removed.")
        if not self._days:
            raise RetentionRefused("ROTA_AUDIT_RETENTION_DAYS is not set: the trail is kept for ever.")
        async with self._owner.begin() as db:
            now = await db.now()
            partitions = {partition.name: partition for partition in await db.partitions.list_all()}
            detached = await db.partitions.list_detached()
        limit = now - timedelta(days=self._days)
        past = [partition.name for partition in partitions.values() if partition.end <= limit]
        for name in sorted({*past, *detached}):
            yield await self._due(name, partitions.get(name))

    async def remove(
        self, due: Due, archive: Path, *, personal: bool, verify: Callable[[Path], Report], progress: Progress
    ) -> Path | None:
        """
        Export a month, verify the export, and only then take the month off and drop it.

        Writers are never kept waiting. Broken off anywhere, the next run goes on: a bundle that is there is verified
        again, a half-detached partition is finished, and one that was detached is dropped together with its event.

        Returns:
            The bundle; `None` for a month without events.
        Raises:
            RetentionRefused: the export does not verify.
        """
        bundle = archive / due.name if due.span else None
        if due.span is not None and bundle is not None:
            if not bundle.exists():
                await self._exports.write_bundle(
                    bundle, due.span, since=None, until=None, personal=personal, progress=progress
                )
            report = await asyncio.to_thread(verify, bundle)
            held = report.manifest
            if report.exit_code or held is None or held.first > due.span.first or held.last < due.span.last:
                raise RetentionRefused(f"{bundle} does not verify, or is not of all {due.name}: nothing was removed.")
        if due.attached is not None:
            await self._detach(due.name)
        await self._drop(due)
        return bundle

    async def _due(self, name: str, attached: Partition | None) -> Due:
        async with self._owner.begin() as db:
            ends = await db.partitions.find_ends(name)
            head = await db.seals.find_head()
            checkpoint = await db.tiles.find_newest_checkpoint(head.epoch) if head else None
            if ends is None:
                return Due(name, attached, 0, 0, 0, None)
            if head is None or checkpoint is None:
                raise RetentionRefused(f"{name} is not sealed and signed.")
            first_batch = await db.seals.find_batch_of(head.epoch, ends[0])
            last_batch = await db.seals.find_batch_of(head.epoch, ends[1])
            if first_batch is None or last_batch is None:
                raise RetentionRefused(f"{name} is not sealed to its end.")
            # Counted from the end of its batch: what follows the last one is of other months, and is there.
            last = last_batch.first_index + last_batch.count - 1
            last -= await db.seals.count_between(ends[1], last_batch.end)
        first, whole_tiles = first_batch.first_index, -(-(last + 1) // TILE_WIDTH) * TILE_WIDTH
        if whole_tiles > checkpoint.size:
            missing = whole_tiles - checkpoint.size
            raise RetentionRefused(
                f"{name} is not covered by a signed checkpoint in whole tiles: {missing} more are due."
            )
        if whole_tiles <= head.minimum_index:
            return Due(name, attached, first, last, ends[2], None)  # all of it is in the bundle of the month before
        span = Span(head, checkpoint, max(first, head.minimum_index) // TILE_WIDTH * TILE_WIDTH, whole_tiles)
        return Due(name, attached, first, last, ends[2], span)

    async def _detach(self, name: str) -> None:
        """Again while readers of before hold it up; what was begun is finished."""
        for attempt in range(LOCK_ATTEMPTS):
            async with self._owner.begin() as db:
                found = [partition for partition in await db.partitions.list_all() if partition.name == name]
            if not found:
                return
            try:
                await self._owner.detach(found[0])
            except Unavailable:
                if attempt == LOCK_ATTEMPTS - 1:
                    raise
                await asyncio.sleep(0.5 * (attempt + 1))

    async def _drop(self, due: Due) -> None:
        """The table, the lower bound of the log, and the event: all or nothing."""
        async with self._owner.begin() as db:
            if due.span is not None:
                await db.seals.raise_minimum_index(due.span.head.epoch, due.span.last)
            await db.partitions.drop(due.name)
            detail: dict[str, JsonValue] = {
                "partition": due.name,
                "events": due.events,
                "first_index": due.first_index,
                "last_index": due.last_index,
                "checkpoint_size": due.span.checkpoint.size if due.span else 0,
                "root": base64url(due.span.checkpoint.root) if due.span else "",
            }
            await db.audit.add(Event(Action.AUDIT_RETENTION, SYSTEM, NO_CLIENT, detail=detail), at=await db.now())
            await db.commit()
        log.info(Action.AUDIT_RETENTION, partition=due.name, events=due.events)
