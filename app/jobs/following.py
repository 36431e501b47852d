"""Keeping the view of ended sessions, and knowing how far behind a replica is, in every serving process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.container import Container


@asynccontextmanager
async def following_ends(container: Container) -> AsyncIterator[None]:
    """Follow while the body runs. Until the view is loaded, each access token costs a read."""
    task = asyncio.create_task(container.ended_view.follow(), name="follow ends")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def following_replica(container: Container) -> AsyncIterator[None]:
    """Measure while the body runs; without a replica there is nothing to do."""
    task = asyncio.create_task(container.replica.follow(), name="follow replica")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
