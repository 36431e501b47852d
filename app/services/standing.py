"""How this process stands, for whichever worker is asked for the metrics."""

from app.observability import metrics
from app.observability.metrics import Lane
from app.repositories.database import Database
from app.security.passwords import PasswordHasher
from app.services.ended_view import EndedView
from app.services.feed_hub import Hub


class Standing:
    def __init__(
        self, database: Database, hasher: PasswordHasher, hub: Hub, ended_view: EndedView, *, pool_size: int
    ) -> None:
        self._database = database
        self._hasher = hasher
        self._hub = hub
        self._ended_view = ended_view
        self._pool_size = pool_size

    def sample(self) -> None:
        """Set all that can be read off this process."""
        metrics.PROCESSES.set(1)
        metrics.CONNECTIONS_LIMIT.set(self._pool_size // 2, Lane.HOT)
        metrics.CONNECTIONS_LIMIT.set(self._pool_size, Lane.UNITS)
        for lane, usage in ((Lane.HOT, self._database.hot), (Lane.UNITS, self._database.units)):
            metrics.CONNECTIONS_IN_USE.set(usage.busy, lane)
            metrics.CONNECTIONS_WAITING.set(usage.waiting, lane)
        metrics.HASHES_RUNNING.set(self._hasher.running)
        metrics.HASHES_WAITING.set(self._hasher.waiting)
        metrics.FOLLOWERS.set(len(self._hub.followers))
        metrics.VIEW_SIZE.set(self._ended_view.size)
        if (age := self._ended_view.age) is not None:
            metrics.VIEW_AGE.set(age)
