"""Keeping the view of ended sessions, in every serving process."""

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
