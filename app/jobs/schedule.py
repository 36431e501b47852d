"""The table of jobs, and the loop that runs them in every serving process."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from app.container import Container
from app.domain.errors import Unavailable
from app.observability.logs import describe_failure, get_logger
from app.services.housekeeping import Housekeeping

log = get_logger()


PAUSE_SECONDS: Final = 1  # between batches: no job is in a hurry, and all share the database with refreshes


@dataclass(frozen=True, slots=True)
class Job:
    """`work` does one bounded batch and says whether there is more to do."""

    name: str
    every_seconds: float
    work: Callable[[Housekeeping], Awaitable[bool]]


JOBS: Final = (
    Job("expiry", 30, Housekeeping.end_lapsed_sessions),
    Job("refusals", 30, Housekeeping.sum_up_refusals),
    Job("partitions", 3600, Housekeeping.make_partitions),
)


@asynccontextmanager
async def running_jobs(container: Container) -> AsyncIterator[None]:
    """Run all jobs while the body runs."""
    tasks = [asyncio.create_task(_run(job, container.housekeeping), name=f"job {job.name}") for job in JOBS]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _run(job: Job, housekeeping: Housekeeping) -> None:
    while True:
        more = False
        try:
            more = await job.work(housekeeping)
        except Unavailable as error:
            log.warning("job.delayed", job=job.name, why=error.why)
        except Exception as error:  # noqa: BLE001 - one bad batch must not end the job for good
            log.error("job.broke", job=job.name, **describe_failure(error))
        # Processes that started together shall not come together.
        await asyncio.sleep((PAUSE_SECONDS if more else job.every_seconds) * random.uniform(0.8, 1.2))  # noqa: S311
