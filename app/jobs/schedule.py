"""The table of jobs, and the loop that runs them in every serving process."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from app.container import Container
from app.domain.errors import RotaError, Unavailable
from app.observability.logs import describe_failure, get_logger

log = get_logger()


REFUSED_SECONDS: Final = (
    9  # before what was refused, or broke, is tried again: it is for the operator, and said until then
)
PAUSE_SECONDS: Final = 1  # between batches: no job is in a hurry, and all share the database with refreshes


@dataclass(frozen=True, slots=True)
class Job:
    """`work` does one bounded batch and says whether there is more to do, which begins after `pause_seconds`."""

    name: str
    every_seconds: float
    work: Callable[[Container], Awaitable[bool]]
    pause_seconds: float = PAUSE_SECONDS


async def _publish(services: Container) -> bool:
    if services.publishing is not None:
        await services.publishing.publish()
    return False


async def _beat(services: Container) -> bool:
    return await services.publishing.beat() if services.publishing else False


JOBS: Final = (
    Job("expiry", 30, lambda services: services.housekeeping.end_lapsed_sessions()),
    Job("refusals", 30, lambda services: services.housekeeping.sum_up_refusals()),
    Job("login failures", 30, lambda services: services.housekeeping.sum_up_login_failures()),
    Job("password tokens", 300, lambda services: services.credentials.remove_expired()),
    Job("partitions", 3600, lambda services: services.housekeeping.make_partitions()),
    Job("audit.seal", 0.5, lambda services: services.sealing.seal(), pause_seconds=0),
    Job("audit.publish", 1, _publish),
    Job("audit.heartbeat", 60, _beat),
    Job("audit.guard", 60, lambda services: services.guard.check_some()),
    Job("audit.watch", 10, lambda services: services.sealing.watch()),
)


@asynccontextmanager
async def running_jobs(container: Container) -> AsyncIterator[None]:
    """Run all jobs while the body runs."""
    tasks = [asyncio.create_task(_run(job, container), name=f"job {job.name}") for job in JOBS]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _run(job: Job, services: Container) -> None:
    while True:
        more = False
        try:
            more = await job.work(services)
        except Unavailable as error:
            log.warning("job.delayed", job=job.name, why=error.why)
        except RotaError as error:
            log.error("job.refused", job=job.name, code=error.code, message=error.message, why=error.why)
            await asyncio.sleep(REFUSED_SECONDS)
        except Exception as error:  # noqa: BLE001 - one bad batch must not end the job for good
            log.error("job.broke", job=job.name, **describe_failure(error))
            await asyncio.sleep(REFUSED_SECONDS)
        # Processes that started together shall not come together.
        await asyncio.sleep((job.pause_seconds if more else job.every_seconds) * random.uniform(0.8, 1.2))  # noqa: S311
