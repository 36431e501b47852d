"""Telling the metrics every second how this process stands, for whichever worker is asked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from app.container import Container
from app.observability import metrics

SECONDS: Final = 1.0


@asynccontextmanager
async def sampling(container: Container) -> AsyncIterator[None]:
    """Sample while the body runs."""
    task = asyncio.create_task(_sample_always(container), name="sample")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _sample_always(container: Container) -> None:
    loop = asyncio.get_running_loop()
    while True:
        container.watching.standing.sample()
        due = loop.time() + SECONDS
        await asyncio.sleep(SECONDS)
        metrics.LOOP_LAG.set(max(0.0, loop.time() - due))
