"""What all lists of administrators share: the event that somebody looked, and cursors bound to what was asked."""

import base64
import binascii
from collections.abc import Mapping
from typing import Final

from app.domain.canonical_json import JsonValue
from app.domain.clients import ClientContext
from app.domain.errors import InputInvalid
from app.domain.events import Action, Actor, Event
from app.domain.pages import Position, pack_position, unpack_position
from app.repositories.database import Database
from app.security.keys import CURSOR_TAG_BYTES, Keyring

_POSITION_BYTES: Final = 24


class AdminReads:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(
        self, what: str, asked: Mapping[str, JsonValue], count: int, *, actor: Actor, client: ClientContext
    ) -> None:
        """
        Write down that somebody read: what, what they asked for, how many rows they saw; not the rows.

        Committed before they get the answer, and in a transaction of its own, so that the read before it needs no
        transaction id and holds up no sealing.

        Args:
            asked: No names and no addresses: only their keyed hash (`Keyring.name_digest`).
        """
        event = Event(Action.ADMIN_QUERIED, actor, client, detail={"what": what, "filter": asked, "count": count})
        async with self._database.begin() as db:
            await db.audit.add(event, at=await db.now())
            await db.commit()


class Cursors:
    """Places in lists, as text that only we can write, and that is good for one filter and order."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def write(self, position: Position, fingerprint: bytes) -> str:
        packed = pack_position(position)
        return base64.urlsafe_b64encode(packed + self._keyring.cursor_tag(packed + fingerprint)).decode("ascii")

    def read(self, cursor: str, fingerprint: bytes) -> Position:
        """
        The place that a cursor names.

        Raises:
            InputInvalid: not of ours, edited, or of another filter or order.
        """
        try:
            raw = base64.b64decode(cursor, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        packed, tag = raw[:_POSITION_BYTES], raw[_POSITION_BYTES:]
        if len(tag) != CURSOR_TAG_BYTES or not self._keyring.is_cursor_tag(tag, packed + fingerprint):
            raise InputInvalid("after: the cursor is not valid for this filter and order.", field="after")
        return unpack_position(packed)
