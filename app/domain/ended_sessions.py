"""The sessions whose access tokens could still be going round although they are over, held in memory."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

ACCESS_SECONDS_MAXIMUM: Final = 900

# By any process's setting, not ours: while a setting is being changed, another one issues longer tokens. The minute is
# for a failover to a database whose clock is a little behind.
KEPT: Final = timedelta(seconds=ACCESS_SECONDS_MAXIMUM + 60)

_SLOT_SECONDS: Final = 120  # nine slots to look into; what is forgotten is held for so much longer at most


class EndedSessions:
    """
    A set of session ids that forgets each some time after the session's end.

    Ids stand in sets by the time of the end, as 16 bytes each (some 150 bytes of memory in all), so that forgetting
    touches only what is forgotten.
    """

    def __init__(self) -> None:
        self._slots: dict[int, set[bytes]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._slots.values()))

    def __contains__(self, session_id: UUID) -> bool:
        key = session_id.bytes
        for slot in self._slots.values():  # noqa: SIM110 - twice as fast as any()
            if key in slot:
                return True
        return False

    def add(self, session_id: UUID, ended_at: datetime) -> None:
        slot = int(ended_at.timestamp()) // _SLOT_SECONDS
        ids = self._slots.get(slot)
        if ids is None:
            ids = self._slots[slot] = set()
        ids.add(session_id.bytes)

    def forget(self, now: datetime, *, limit: int) -> bool:
        """Drop ids past their time, `limit` of them at most; whether there are more."""
        oldest = int((now - KEPT).timestamp()) // _SLOT_SECONDS
        for slot in [slot for slot in self._slots if slot < oldest]:
            ids = self._slots[slot]
            while ids and limit:
                ids.pop()
                limit -= 1
            if ids:
                return True
            del self._slots[slot]
        return False
