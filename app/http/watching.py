"""What is noted of each request: how it was answered, and how long that took."""

import time
from typing import Final

from starlette.types import Message, Scope

from app.observability.logs import get_logger
from app.observability.metrics import METHODS, NO_ROUTE, OTHER, REQUEST_SECONDS, REQUESTS, SLOW_REQUESTS

log = get_logger()

_METHODS: Final = frozenset(METHODS)
_CLASSES: Final = ("abandoned", "1xx", "2xx", "3xx", "4xx", "5xx")
_STREAM: Final = (b"content-type", b"text/event-stream")
WAITING: Final = "waiting"  # in the request's state: it waits because it was asked to


class WatchedRequest:
    """One request, from its head to the end of its answer; an event stream has none, so there to its beginning."""

    __slots__ = ("_began", "_scope", "_seconds", "_slow_seconds", "status")

    def __init__(self, scope: Scope, slow_seconds: float) -> None:
        self._scope = scope
        self._slow_seconds = slow_seconds
        self._began = time.perf_counter()
        self._seconds: float | None = None
        self.status: int | None = None

    @property
    def method(self) -> str:
        method: str = self._scope["method"]
        return method if method in _METHODS else OTHER

    @property
    def route(self) -> str:
        """Its template, never its path."""
        route = self._scope.get("route")
        template: str | None = getattr(route, "path_format", None) or getattr(route, "path", None)
        return template or NO_ROUTE

    def begin_answer(self, message: Message) -> None:
        self.status = message["status"]
        if any(name == _STREAM[0] and value.startswith(_STREAM[1]) for name, value in message["headers"]):
            self._seconds = time.perf_counter() - self._began

    def end(self) -> None:
        """Count it, and say so if it was slow."""
        seconds = time.perf_counter() - self._began if self._seconds is None else self._seconds
        method, route = self.method, self.route
        REQUESTS.add(method, route, _CLASSES[(self.status or 0) // 100])
        REQUEST_SECONDS.observe(seconds, method, route)
        if seconds >= self._slow_seconds and WAITING not in self._scope["state"]:
            SLOW_REQUESTS.add(route)
            log.warning(
                "request.slow", method=method, route=route, status=self.status, milliseconds=round(1000 * seconds)
            )
