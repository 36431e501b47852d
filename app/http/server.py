"""
uvicorn's server with an end in good order: readiness first, then no new work, then what runs, then the rest.

uvicorn alone closes idle connections at the moment of the signal, under requests that a proxy is just sending on them;
resets what waits to be accepted; and ends by the signal, as if it had failed.
"""

import asyncio
import contextlib
import gc
import os
import signal
import socket
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final

import uvicorn
from uvicorn.server import ServerState

from app.http.protocol import DRAINING, STOPPING, BoundedHttpProtocol
from app.observability.logs import get_logger

log = get_logger()

# Together with what the application's own end may take, less than the 20 seconds that we promise.
NOTICE_SECONDS: Final = 1.0  # of serving as before while not ready any more
LINGER_SECONDS: Final = 1.0  # of idle connections after that; proxies that keep them shorter never see one closed
REQUEST_SECONDS: Final = 10.0  # for running requests, from the signal
LEAVE_SECONDS: Final = 1.0  # for what is left to hang up
WHOLE_SECONDS: Final = 19  # after which the kernel ends the process, whatever it hangs on
LOOK_SECONDS: Final = 0.05

HURRY: Final = signal.SIGUSR1  # from the supervisor of several workers to each of them
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class ServedState(ServerState):
    """What the server's connections share."""

    def __init__(self) -> None:
        super().__init__()
        self.draining = False


class DrainingServer(uvicorn.Server):
    """
    The first SIGTERM or SIGINT stops it in good order, another one at once: running requests are cut off then.

    Args:
        supervised: Somebody else receives the signals too, and hands on what is to be done (`HURRY`). Both receive
            what is sent to the whole process group, so here a second signal does not mean that somebody is in a hurry.
    """

    def __init__(self, config: uvicorn.Config, *, supervised: bool = False) -> None:
        super().__init__(config)
        self.server_state: ServedState = ServedState()
        self._supervised = supervised
        self._hurried = False
        self._requests_until = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler's form
        if not self.should_exit:
            signal.alarm(WHOLE_SECONDS)  # nobody handles it, so it needs nothing of ours to work
        elif not self._supervised:
            self._hurried = True
        self._hurried = self._hurried or sig == HURRY
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """For good: to stop when told to is no failure, and a late signal must not make one of it."""
        for sig in (*STOP_SIGNALS, HURRY):
            signal.signal(sig, self.handle_exit)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What is there now stays, and what comes with requests is little: the collector would look through all of it
        # again and again, 0.1 s each time in which no request goes on.
        gc.freeze()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        await super().serve(sockets)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            _, left = await asyncio.wait(left, timeout=LEAVE_SECONDS)
        # All is done that can be. What waits for a database that does not answer would be waited for by whoever runs
        # the loop; and where the time was needed, none is left for an interpreter that tidies up.
        if self.started and (left or asyncio.get_running_loop().time() > self._requests_until):
            log.warning("server.left_at_once", tasks=len(left))
            os._exit(0)

    async def main_loop(self) -> None:
        await super().main_loop()
        self._begin_draining()
        await self._wait(NOTICE_SECONDS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._begin_draining()
        await self._stop_listening(sockets or [])
        self._tell(STOPPING)
        await self._wait(LINGER_SECONDS, unless_idle=True)
        await super().shutdown()

    def _begin_draining(self) -> None:
        if not self.server_state.draining:
            self.server_state.draining = True
            self._requests_until = asyncio.get_running_loop().time() + REQUEST_SECONDS
            self._tell(DRAINING)
            for connection in list(self.server_state.connections):
                if isinstance(connection, BoundedHttpProtocol):
                    connection.drain()

    def _tell(self, what: str) -> None:
        told = self.lifespan.state.get(what)
        if told is not None:
            told()

    async def _stop_listening(self, sockets: list[socket.socket]) -> None:
        """
        Close the listeners, but not before what waits in them is taken: its clients believe to be connected, may have
        sent a request, and cannot repeat it if it is reset.
        """
        # Not by `dup`, which may make the socket blocking for a moment, for the other workers too.
        last = [socket.socket(fileno=os.dup(listener.fileno())) for listener in sockets]
        for server in self.servers:
            server.close()
        for listener in sockets:
            listener.close()
        self.servers = []
        await asyncio.sleep(LOOK_SECONDS)  # until the loop has let go of them
        waiting: list[socket.socket] = []
        for listener in last:
            listener.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    waiting.append(listener.accept()[0])
            listener.close()  # right after: this is what ends the listening, here or with the last of the workers
        for connection in waiting:
            connection.setblocking(False)
            with contextlib.suppress(OSError):  # gone meanwhile
                await asyncio.get_running_loop().connect_accepted_socket(self._make_protocol, connection)

    def _make_protocol(self) -> asyncio.Protocol:
        protocol: Any = self.config.http_protocol_class
        made: asyncio.Protocol = protocol(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

    async def _wait(self, seconds: float, *, unless_idle: bool = False) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while loop.time() < until and not self._hurried:
            if unless_idle and not self.server_state.connections:
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _wait_tasks_to_complete(self) -> None:
        """
        Raises:
            TimeoutError: they take too long, or somebody is in a hurry; what still runs is to be cut off.
        """
        loop = asyncio.get_running_loop()
        while self.server_state.connections or self.server_state.tasks:
            if self._hurried or loop.time() > self._requests_until:
                raise TimeoutError
            await asyncio.sleep(LOOK_SECONDS)
