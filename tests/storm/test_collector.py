"""The garbage collector, which stops everything while it looks through a process."""

import subprocess
import sys

START = """
import asyncio, gc
import uvicorn
from app.http.server import DrainingServer

async def application(scope, receive, send):
    ...

async def main():
    server = DrainingServer(uvicorn.Config(application, port=0, lifespan="off", log_level="error"))
    server.lifespan = server.config.load() or server.config.lifespan_class(server.config)
    before = len(gc.get_objects())
    await server.startup()
    print(before, gc.get_freeze_count(), len(gc.get_objects()))
    await server.shutdown()

asyncio.run(main())
"""


def test_what_is_there_at_the_start_is_not_looked_at_again() -> None:
    """Of some hundred thousand objects, only those that come with requests are left to the collector."""
    done = subprocess.run([sys.executable, "-c", START], check=True, capture_output=True, text=True)
    before, frozen, left = map(int, done.stdout.split())
    assert frozen >= before > 10_000
    assert left < before / 10
