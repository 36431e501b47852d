"""The publisher: signs the tree's head once it has committed, and puts it where the database's owner cannot reach."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from app.domain.checkpoints import Checkpoint, Malformed, epoch_origin
from app.domain.entries import epoch_entry
from app.domain.errors import RotaError
from app.domain.events import NO_CLIENT, SYSTEM, Action, Event
from app.domain.merkle import Tree, leaf_hash
from app.observability.logs import get_logger
from app.repositories.database import Database, UnitOfWork
from app.repositories.seals import Head
from app.repositories.tiles import StoredCheckpoint
from app.security.notes import NoteSigner, SignatureInvalid, open_note
from app.services.sinks import DirectorySink, SinkConflict

log = get_logger()

HEARTBEAT: Final = timedelta(minutes=10)


class HistoryRefused(RotaError):
    """What was published is not a beginning of what is here. Nothing is signed until an operator has decided."""

    code = "history_refused"


class SinkUnavailable(RotaError):
    """What was published cannot be read, or nothing can be added to it. Nothing is signed then."""

    code = "sink_unavailable"
    message = "The checkpoint sink cannot be used."


@dataclass(frozen=True, slots=True)
class Published:
    """The newest published checkpoint."""

    checkpoint: Checkpoint
    note: str


class Publishing:
    def __init__(self, database: Database, signer: NoteSigner, sink: DirectorySink) -> None:
        self._database = database
        self._signer = signer
        self._sink = sink
        self._known: tuple[str, Tree] | None = None  # the tree of the newest checkpoint, as this process derived it

    async def publish(self) -> bool:
        """
        Sign and publish the committed head, if it is new; whether anything was published.

        The root is derived anew, from the newest published checkpoint and the leaves after it: what is signed is
        consistent with it or is not signed. The note is stored, then published; whatever crash comes between, the next
        call publishes what was stored. One publisher works at a time.

        Raises:
            HistoryRefused: the published history is longer than ours, or another one; a restored copy, or a forgery.
            SinkUnavailable: the sink is away or full.
        """
        async with self._database.begin() as db:
            if not await db.jobs.try_lock("audit.publish"):
                return False
            head = await db.seals.find_head()
            if head is None:
                return False
            published = await self._newest(head)
            if published is not None and published.checkpoint.size > head.size:
                raise HistoryRefused(
                    f"The published history has {published.checkpoint.size} entries, this database {head.size}: it is "
                    "an older copy. To go on from here, open a further incarnation (rota audit open-epoch)."
                )
            tree = await self._derive(db, head, published)
            await self._push_stored(db, head, published)
            if published is not None and published.checkpoint.size == head.size:
                return False
            stored = await db.tiles.find_newest_checkpoint(head.epoch)
            if stored is not None and stored.size == head.size:
                return True  # stored before, and pushed just now
            if head.size == 0:
                return False
            if head.epoch > 1 and head.opening is None:
                raise HistoryRefused("A further incarnation without an opening is nobody's decision; it is not signed.")
            checkpoint = Checkpoint(head.origin, head.size, tree.root())
            note = self._signer.sign(head.origin, checkpoint.text())
            await db.tiles.add_checkpoint(
                head.epoch, StoredCheckpoint(checkpoint.size, checkpoint.root, note, await db.now())
            )
            await db.commit()
        await self._push(head.origin, checkpoint.size, note)
        return True

    async def beat(self) -> bool:
        """Write a heartbeat into a trail in which nothing has happened for a while, so that silence means trouble."""
        async with self._database.begin() as db:
            if not await db.jobs.try_lock("audit.heartbeat"):
                return False
            now = await db.now()
            newest = await db.audit.find_newest_time()
            if newest is not None and now - newest < HEARTBEAT:
                return False
            await db.audit.add(Event(Action.AUDIT_HEARTBEAT, SYSTEM, NO_CLIENT), at=now)
            await db.commit()
        return False

    async def open_epoch(self, why: str, *, maintenance: Database) -> str:
        """
        Begin a further incarnation of the log, whose first entry holds the newest published checkpoint and the reason.

        All events that are in the database are sealed anew under the new name: what was sealed under the former one may
        be another history.

        Returns:
            The new origin.
        Raises:
            SinkUnavailable: the newest published checkpoint cannot be read.
        """
        async with maintenance.begin() as db:
            head = await db.seals.find_head()
            if head is None:
                raise HistoryRefused("Nothing was sealed here yet: there is nothing to continue.")
            published = await self._newest(head)
            now, removed = await db.now(), await db.seals.has_removed()
            entry = epoch_entry(
                opened_at=now, previous_checkpoint=published.note if published else "", reason=why, removed=removed
            )
            epoch = head.epoch + 1
            first = head.origin if head.epoch == 1 else head.origin.rpartition("/epoch-")[0]
            origin = epoch_origin(first, epoch)
            await db.seals.open_epoch(epoch=epoch, origin=origin, opening=entry.decode(), leaf=leaf_hash(entry))
            lost = max(0, published.checkpoint.size - head.size) if published else 0
            opened = Event(
                Action.AUDIT_EPOCH_OPENED, SYSTEM, NO_CLIENT, detail={"epoch": epoch, "lost": lost, "why": why}
            )
            await db.audit.add(opened, at=now)
            await db.commit()
        log.warning(Action.AUDIT_EPOCH_OPENED, origin=origin)
        return origin

    async def _newest(self, head: Head) -> Published | None:
        try:
            note = await asyncio.to_thread(self._sink.find_newest, head.origin)
        except OSError as error:
            raise SinkUnavailable(why=_words(error)) from error
        if note is None:
            return None
        try:
            checkpoint = Checkpoint.parse(open_note(note, [self._signer.key(head.origin)]))
        except (Malformed, SignatureInvalid) as error:
            raise HistoryRefused(f"The newest published checkpoint is not ours: {error}.") from None
        if checkpoint.origin != head.origin:
            raise HistoryRefused("The newest published checkpoint is of another log.")
        return Published(checkpoint, note)

    async def _derive(self, db: UnitOfWork, head: Head, published: Published | None) -> Tree:
        """The head's tree, from the published one and the leaves after it."""
        known, tree = self._known or ("", Tree())
        if published is None:
            tree = Tree()
        elif known != head.origin or tree.size != published.checkpoint.size:
            tree = await _get_tree(db, head, published.checkpoint.size)
        if published is not None and tree.root() != published.checkpoint.root:
            raise HistoryRefused(
                f"The published checkpoint of size {published.checkpoint.size} is of another history than this "
                "database's. To go on from here, open a further incarnation (rota audit open-epoch)."
            )
        grown = Tree.restore(tree.size, tree.stored_edge())
        while grown.size < head.size:
            for leaf in await db.tiles.get_leaves(head, grown.size, head.size):
                grown.append(leaf)
            await asyncio.sleep(0)
        if grown.root() != head.root:
            raise HistoryRefused(f"The tiles do not lead to the root that is stored for size {head.size}.")
        self._known = (head.origin, grown)
        return grown

    async def _push_stored(self, db: UnitOfWork, head: Head, published: Published | None) -> None:
        """Publish what was signed and stored, but not published."""
        stored = await db.tiles.find_newest_checkpoint(head.epoch)
        if stored is None or (published is not None and stored.size <= published.checkpoint.size):
            return
        tree = await _get_tree(db, head, stored.size)
        if tree.root() != stored.root:
            raise HistoryRefused(f"The stored checkpoint of size {stored.size} is of another history.")
        await self._push(head.origin, stored.size, stored.note)

    async def _push(self, origin: str, size: int, note: str) -> None:
        try:
            await asyncio.to_thread(self._sink.publish, origin, size, note)
        except SinkConflict as error:
            raise HistoryRefused(str(error)) from error
        except OSError as error:
            raise SinkUnavailable(why=_words(error)) from error
        log.debug("audit.published", origin=origin, size=size)


async def _get_tree(db: UnitOfWork, head: Head, size: int) -> Tree:
    try:
        return await db.tiles.get_tree(head, size)
    except (LookupError, ValueError):
        raise HistoryRefused(f"The tiles of size {size} are not there.") from None


def _words(error: OSError) -> str:
    return error.strerror or type(error).__name__
