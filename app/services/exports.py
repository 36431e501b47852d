"""Exporting the trail: proven bundles, and plain lists for other programs."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import UUID

from app.domain.bundles import Manifest, pack, personal_path, tiles_for
from app.domain.clients import ClientContext
from app.domain.entries import (
    SealedFields,
    base64url,
    commitment_of,
    entry_of,
    event_salt,
    moment,
    person_of,
    personal_data,
)
from app.domain.errors import RotaError
from app.domain.events import Action, Actor, Event
from app.domain.merkle import TILE_WIDTH, leaf_hash, tile_path
from app.domain.pages import Position
from app.repositories.database import Database, UnitOfWork
from app.repositories.seals import Batch, Head
from app.repositories.tiles import StoredCheckpoint

PAGE: Final = 4096  # events read in one short transaction
CHECKPOINTS_PAGE: Final = 1000

Progress = Callable[[int, int], None]
"""How many are done, and of how many."""

Exported = tuple[bytes, str | None]
"""An entry, and its salt and personal data if there is any."""


class NothingSigned(RotaError):
    """There is no signed checkpoint, so nothing can be proven."""

    code = "nothing_signed"
    message = "No checkpoint was signed yet: set ROTA_AUDIT_SIGNING_KEY and ROTA_AUDIT_SINK, and wait a second."


class NothingThere(RotaError):
    code = "nothing_there"
    message = "No sealed event falls into this time."


@dataclass(frozen=True, slots=True)
class Span:
    """What a bundle will hold."""

    head: Head
    checkpoint: StoredCheckpoint
    first: int
    last: int


class Exports:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def announce(
        self, form: str, since: datetime | None, until: datetime | None, *, actor: Actor, client: ClientContext
    ) -> None:
        """Write down that somebody exports, before anything is read: reading then needs no transaction id."""
        detail = {"format": form, "from": _moment(since), "to": _moment(until)}
        async with self._database.begin() as db:
            await db.audit.add(Event(Action.AUDIT_EXPORTED, actor, client, detail=detail), at=await db.now())
            await db.commit()

    async def span(self, since: datetime | None, until: datetime | None) -> Span:
        """
        The stretch of the tree that covers a time range, in whole tiles, under the newest signed checkpoint.

        Raises:
            NothingSigned, NothingThere: as they say.
        """
        async with self._database.begin() as db:
            head = await db.seals.find_head()
            checkpoint = await db.tiles.find_newest_checkpoint(head.epoch) if head else None
            if head is None or checkpoint is None:
                raise NothingSigned
            found = await db.seals.find_range(head.epoch, since, until)
        first, last = found or (0, 0)
        if since is None:
            first = 0
        first = max(first, head.minimum_index) // TILE_WIDTH * TILE_WIDTH
        last = min(-(-last // TILE_WIDTH) * TILE_WIDTH, checkpoint.size)
        if first >= last:
            raise NothingThere
        return Span(head, checkpoint, first, last)

    async def write_bundle(
        self,
        target: Path,
        span: Span,
        *,
        since: datetime | None,
        until: datetime | None,
        personal: bool,
        progress: Progress,
    ) -> Manifest:
        """
        Write a bundle into a new directory; it appears under its name when it is whole.

        Entries are read in pages, each in a transaction of its own: no snapshot grows old, memory stays flat.

        Raises:
            FileExistsError: there is something already.
            OSError: it cannot be written.
        """
        work = _begin(target)
        async with self._database.begin() as db:
            exported_at = await db.now()
        with_data = await self._write_entries(work, span, personal=personal, progress=progress)
        await self._write_tiles(work, span)
        checkpoints = await self._write_checkpoints(work, span)
        manifest = Manifest(
            origin=span.head.origin,
            size=span.checkpoint.size,
            first=span.first,
            last=span.last,
            checkpoints=checkpoints,
            personal=with_data if personal else None,
            minimum_index=span.head.minimum_index,
            exported_at=moment(exported_at),
            since=_moment(since),
            until=_moment(until),
        )
        (work / "manifest.json").write_text(manifest.text(), encoding="utf-8")
        await asyncio.to_thread(os.sync)  # whoever is told that it is there may remove what it holds
        work.rename(target)
        await asyncio.to_thread(os.sync)
        return manifest

    async def _write_entries(self, work: Path, span: Span, *, personal: bool, progress: Progress) -> int:
        """The entries and their personal data; how many had any."""
        index, with_data = span.first, 0
        entries: list[bytes] = []
        records: list[str] = []
        async for entry, record in self._entries(span):
            entries.append(entry)
            if record is not None and personal:
                records.append(f"{index} {record}\n")
                with_data += 1
            index += 1
            if index % TILE_WIDTH == 0 or index == span.last:
                tile = (index - 1) // TILE_WIDTH
                _write(work / tile_path("entries", tile, len(entries)), pack(entries))
                if records:
                    _write(work / personal_path(tile), "".join(records).encode())
                entries, records = [], []
                progress(index - span.first, span.last - span.first)
        return with_data

    async def _entries(self, span: Span) -> AsyncIterator[Exported]:
        """Entries of the span with their personal data, in order; an empty one where the event is gone."""
        index = span.first
        if index == 0 and span.head.opening is not None:
            yield span.head.opening.encode(), None
            index = 1
        while index < span.last:
            first, exported = await self._read_window(span.head, index)
            for each in exported[index - first : span.last - first]:
                yield each
            index = first + len(exported)

    async def _read_window(self, head: Head, index: int) -> tuple[int, list[Exported]]:
        """Whole batches from the one that holds an index on: the first index, and as many entries as were sealed."""
        async with self._database.begin() as db:
            await db.seals.freeze()  # or an erasure between two statements would take a salt away from under an event
            holding = await db.seals.find_batch_at(head.epoch, index)
            if holding is None:
                raise NothingThere
            batches = await db.seals.list_batches(head.epoch, since=holding.first_index, limit=PAGE)
            window: list[Batch] = []
            count = 0
            for batch in batches:
                if window and count + batch.count > PAGE:
                    break
                window.append(batch)
                count += batch.count
            events = (await db.seals.read_between(window[0].start, window[-1].end)).events
            people = {person_of(event.actor_kind, event.actor_id, event.subject_id) for event in events}
            salts = await db.seals.find_salts(people)
            exported = [_export(event, salts) for event in events]
            first = window[0].first_index
            if len(events) != count:  # by retention or by somebody: each leaf gets the event that it is of
                leaves = [leaf async for leaf in _leaves(db, head, first, first + count)]
                by_leaf = {leaf_hash(each[0]): each for each in exported}
                exported = [by_leaf.get(leaf, (b"", None)) for leaf in leaves]
        return first, exported

    async def _write_tiles(self, work: Path, span: Span) -> None:
        wanted = list(tiles_for(span.checkpoint.size, span.first, span.last))
        for start in range(0, len(wanted), TILE_WIDTH):
            async with self._database.begin() as db:
                for level, index, width in wanted[start : start + TILE_WIDTH]:
                    try:
                        hashes = await db.tiles.get_tile(span.head, level, index, width)
                    except LookupError:
                        continue  # somebody has removed it: the verifier will name the place
                    _write(work / tile_path(str(level), index, width), b"".join(hashes))

    async def _write_checkpoints(self, work: Path, span: Span) -> int:
        """All signed heads of the range, and the newest; how many."""
        count, after = 0, span.first
        with (work / "checkpoints").open("w", encoding="utf-8") as file:
            while True:
                async with self._database.begin() as db:
                    found = await db.tiles.list_checkpoints(
                        span.head.epoch, after=after, until=span.last, limit=CHECKPOINTS_PAGE
                    )
                for checkpoint in found:
                    if checkpoint.size < span.checkpoint.size:
                        file.write(f"{checkpoint.note}\n")
                        count += 1
                if len(found) < CHECKPOINTS_PAGE:
                    break
                after = found[-1].size
            file.write(span.checkpoint.note)
        (work / "checkpoint").write_text(span.checkpoint.note, encoding="utf-8")
        return count + 1

    async def count(self, since: datetime | None, until: datetime | None) -> int:
        """About how many events a list will have."""
        async with self._database.begin() as db:
            head = await db.seals.find_head()
            return await db.seals.estimate_count(head.epoch, since, until) if head else 0

    async def pages(self, since: datetime | None, until: datetime | None) -> AsyncIterator[list[SealedFields]]:
        """Events by time, in pages, each read in a transaction of its own."""
        after: Position | None = None
        while True:
            async with self._database.begin() as db:
                page = await db.audit.list_between(since, until, after=after, limit=PAGE)
            if page:
                yield page
            if len(page) < PAGE:
                return
            after = Position(page[-1].occurred_at, page[-1].id)


def _export(event: SealedFields, salts: Mapping[UUID, bytes]) -> Exported:
    person = person_of(event.actor_kind, event.actor_id, event.subject_id)
    erased = event.commitment is not None or (event.ip is None and event.user_agent is None)
    if erased or person not in salts:
        return entry_of(event, event.commitment), None
    record = f"{base64url(event_salt(salts[person], event.id))} {personal_data(event.ip, event.user_agent)}"
    return entry_of(event, commitment_of(event, salts)), record


async def _leaves(db: UnitOfWork, head: Head, start: int, end: int) -> AsyncIterator[bytes]:
    while start < end:
        for leaf in await db.tiles.get_leaves(head, start, end):
            yield leaf
            start += 1


def _moment(at: datetime | None) -> str | None:
    return None if at is None else moment(at)


def _begin(target: Path) -> Path:
    """The folder to write into; it takes its name at the end."""
    if target.exists():
        raise FileExistsError(f"{target} is there already")
    work = target.with_name(f".{target.name}.partial")
    shutil.rmtree(work, ignore_errors=True)  # of an export that was broken off
    work.mkdir(parents=True)
    return work


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
