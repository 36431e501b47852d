"""Proofs for single events: that one entry is in the signed tree."""

from datetime import timedelta
from typing import Final
from uuid import UUID

from app.domain.checkpoints import Proof
from app.domain.entries import commitment_of, entry_of, person_of
from app.domain.errors import EventNotFound, EventNotSealed, StoredStateInvalid
from app.domain.merkle import inclusion_proof, leaf_hash, needed_tiles, root_from_proof
from app.repositories.database import Database

# An id begins with the time at which it was made, on the host's clock: looked for near it first.
_AROUND: Final = (timedelta(minutes=1), timedelta(hours=2), timedelta(days=1))


class Proofs:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def prove(self, event_id: UUID) -> Proof:
        """
        The proof of an event under the newest checkpoint; its extra data is the entry itself.

        The proof is checked before it is given out: an event that was changed after it was sealed has none.

        Raises:
            EventNotFound: there is none of this id, or it was removed when its time was over.
            EventNotSealed: no signed checkpoint covers it yet.
            StoredStateInvalid: the event is not the one that was sealed.
        """
        async with self._database.begin() as db:
            await db.seals.freeze()  # event, salt and tiles of one moment
            for around in _AROUND:
                located = await db.seals.find_event(event_id, around)
                if located.events:
                    break
            else:
                raise EventNotFound
            head = await db.seals.find_head()
            checkpoint = await db.tiles.find_newest_checkpoint(head.epoch) if head else None
            batch = await db.seals.find_batch_of(head.epoch, located.end) if head else None
            if head is None or checkpoint is None or batch is None:
                raise EventNotSealed
            # Counted from the end: what retention removed stood before.
            index = batch.first_index + batch.count - 1 - await db.seals.count_between(located.end, batch.end)
            if index >= checkpoint.size:
                raise EventNotSealed
            event = located.events[0]
            salts = await db.seals.find_salts([person_of(event.actor_kind, event.actor_id, event.subject_id)])
            try:
                tiles = {
                    (level, tile): await db.tiles.get_tile(head, level, tile, width)
                    for level, tile, width in needed_tiles(index, checkpoint.size)
                }
            except LookupError:
                raise StoredStateInvalid("A tile of the sealed tree is missing.", why=f"event {event_id}") from None
        entry = entry_of(event, commitment_of(event, salts) if salts else event.commitment)
        hashes = inclusion_proof(index, checkpoint.size, tiles)
        if root_from_proof(leaf_hash(entry), index, checkpoint.size, hashes) != checkpoint.root:
            raise StoredStateInvalid("This event is not the one that was sealed.", why=f"event {event_id}")
        return Proof(index, hashes, checkpoint.note, entry)
