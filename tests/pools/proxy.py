"""A TCP proxy before a database, that can stop handing on: what is lost without a word."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from sqlalchemy import make_url


@dataclass
class Proxy:
    url: str
    hands_on: asyncio.Event = field(default_factory=asyncio.Event)

    def swallow(self) -> None:
        """From now on whatever comes is read and lost, and connections are taken and never answered."""
        self.hands_on.clear()


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[Proxy]:
    target = make_url(url)
    host, port = str(target.query.get("host") or target.host), target.port or 5432
    tasks: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await proxy.hands_on.wait()
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(OSError):
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await proxy.hands_on.wait()
        if host.startswith("/"):
            there = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            there = await asyncio.open_connection(host, port)
        for task in (asyncio.create_task(pump(reader, there[1])), asyncio.create_task(pump(there[0], writer))):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    here = target.set(host="127.0.0.1", port=server.sockets[0].getsockname()[1]).difference_update_query(["host"])
    proxy = Proxy(here.render_as_string(hide_password=False))
    proxy.hands_on.set()
    try:
        yield proxy
    finally:
        proxy.hands_on.set()
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
