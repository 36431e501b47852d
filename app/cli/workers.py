"""Server processes: one in place, or several that share a listening socket under one that watches over them."""

import contextlib
import multiprocessing
import os
import signal
import socket
import time
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any, Final

import uvicorn
from uvicorn.config import STARTUP_FAILURE

from app.http.server import HURRY, STOP_SIGNALS, WHOLE_SECONDS, DrainingServer
from app.observability.logs import configure_logs, get_logger
from app.security.processors import VARIABLE, share_of_processors, usable_processors

log = get_logger()

WHOLE_SECONDS_OF_ALL: Final = WHOLE_SECONDS + 0.5  # each ends itself before that
RESTART_SECONDS: Final = 1.0  # between a worker's start and that of its successor: one that dies at once dies slowly

_WELL: Final = (0, -signal.SIGTERM, -HURRY)  # stopped; or killed before it served, when nothing was lost

Options = dict[str, Any]


def serve_here(options: Options, listening: socket.socket) -> int:
    """Serve in this process until told to stop; the exit code."""
    server = DrainingServer(uvicorn.Config(**options))
    server.run(sockets=[listening])
    return 0 if server.started else STARTUP_FAILURE


def serve_with_workers(options: Options, listening: socket.socket, count: int) -> int:
    """Serve in so many processes of our own until told to stop; the exit code."""
    return _Supervisor(options, listening, count).run()


def _work(options: Options, listening: socket.socket, processors: int) -> None:
    """A worker, in its own process; `processors` is its share, so that all of them together hash on each just once."""
    os.environ[VARIABLE] = str(processors)
    configure_logs("json")
    _Worker(uvicorn.Config(**options), supervised=True).run(sockets=[listening])


class _Worker(DrainingServer):
    """Stops, too, when the supervisor is gone: an orphan would hold the port against its successors."""

    async def on_tick(self, counter: int) -> bool:
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive() and not self.should_exit:
            log.warning("worker.orphaned")
            self.handle_exit(signal.SIGTERM, None)
        return await super().on_tick(counter)


class _Supervisor:
    """
    Replaces workers that die, and hands on what it is told: the first SIGTERM or SIGINT stops all in good order,
    another one at once.
    """

    def __init__(self, options: Options, listening: socket.socket, count: int) -> None:
        self._options = options
        self._listening = listening
        self._count = count
        self._share = share_of_processors(usable_processors(), count)
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[SpawnProcess] = []
        self._spare = count  # to be started at once
        self._started_at = 0.0
        self._stop_by: float | None = None
        self._code = 0
        self._told, self._tell = socket.socketpair()
        self._tell.setblocking(False)

    def run(self) -> int:
        for sig in STOP_SIGNALS:
            signal.signal(sig, self._hear)
        log.info("workers.starting", supervisor=os.getpid(), workers=self._count, processors=self._share)
        while self._stop_by is None or self._workers:
            if self._stop_by is None:
                self._fill_up()
            elif time.monotonic() > self._stop_by:
                self._kill_all()
            ready = wait([self._told, *(worker.sentinel for worker in self._workers)], timeout=0.5)
            if self._told in ready:
                for _ in self._told.recv(64):
                    self._stop()
            self._bury()
        log.info("workers.stopped", code=self._code)
        return self._code

    def _hear(self, sig: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(BlockingIOError):  # a hundred waiting signals are enough
            self._tell.send(bytes([sig]))

    def _fill_up(self) -> None:
        """As many as there should be; one that replaces another not before its time."""
        while len(self._workers) < self._count:
            if self._spare == 0 and time.monotonic() - self._started_at < RESTART_SECONDS:
                return
            worker = self._context.Process(target=_work, args=(self._options, self._listening, self._share))
            worker.start()
            self._workers.append(worker)
            self._spare = max(0, self._spare - 1)
            self._started_at = time.monotonic()

    def _stop(self) -> None:
        """Have all stop, or hurry if they have been told before."""
        if self._stop_by is None:
            self._stop_by = time.monotonic() + WHOLE_SECONDS_OF_ALL
            # Ours must not be the last: what waits in it would be reset when we end, with requests that nobody took.
            self._listening.close()
            self._send(signal.SIGTERM)
        else:
            self._send(HURRY)

    def _send(self, sig: signal.Signals) -> None:
        for worker in self._workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid or 0, sig)

    def _bury(self) -> None:
        for worker in [worker for worker in self._workers if not worker.is_alive()]:
            self._workers.remove(worker)
            log.info("worker.ended", worker=worker.pid, code=worker.exitcode)
            if self._stop_by is not None:
                self._code = self._code or int(worker.exitcode not in _WELL)
            elif worker.exitcode == STARTUP_FAILURE:  # its successor would fail likewise
                self._code = STARTUP_FAILURE
                self._stop()

    def _kill_all(self) -> None:
        for worker in self._workers:
            worker.kill()
        self._stop_by = time.monotonic() + WHOLE_SECONDS_OF_ALL
