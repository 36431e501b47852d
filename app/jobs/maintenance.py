"""Running the jobs one after the other until nothing is left to do, beside any server that runs them too."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from app.container import Container
from app.domain.errors import Unavailable
from app.domain.jobs import Done
from app.jobs.schedule import Job, Teller, name_of, run_batch

BUSY_SECONDS: Final = 0.05  # another process has the job for the length of a batch
PATIENCE_SECONDS: Final = 60.0  # after which it is left to that process
ROUNDS: Final = 10  # of a walk, if each leaves out rows that somebody keeps locked


class State(StrEnum):
    DONE = "done"
    BUSY = "busy"  # another process has it
    DELAYED = "delayed"  # trouble that passes
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class JobReport:
    """What came of one job."""

    job: str
    state: State
    rows: int
    batches: int
    seconds: float
    error: str | None


async def maintain(
    services: Container, jobs: Sequence[Job], tell: Callable[[Job, int], None]
) -> AsyncIterator[JobReport]:
    """
    Run each job until it leaves nothing to do, and report on it; one that fails does not keep the others from running.

    A walk that another process has begun is gone to its end and then begun anew: what was due at the start is done.

    Args:
        tell: Is told the rows that a job has done so far.
    """
    for job in jobs:
        yield await _run_to_end(services, job, tell)


async def _run_to_end(services: Container, job: Job, tell: Callable[[Job, int], None]) -> JobReport:
    began, rows, batches, rounds = time.monotonic(), 0, 0, 0
    busy_since: float | None = None
    teller = Teller(job, services)
    due_at, error = await _now(services)
    while True:
        teller.begin()
        done = Done()
        if error is None:
            done, error = await run_batch(job, services)
        if done.busy:
            busy_since = busy_since or time.monotonic()
            waits = time.monotonic() - busy_since < PATIENCE_SECONDS
        else:
            busy_since, rows, batches = None, rows + done.rows, batches + 1
            rounds += not done.more
            # A walk begun before, or one that left out what somebody had locked: once more.
            waits = done.walks and not (done.more or (done.whole_since and due_at and done.whole_since >= due_at))
            waits = waits and rounds < ROUNDS
        over = error is not None or not (done.more or waits)
        await teller.end(done, error, again_in=job.every_seconds, at_once=over)
        tell(job, rows)
        if over:
            took = round(time.monotonic() - began, 3)
            return JobReport(job.name, _state(done, error), rows, batches, took, name_of(error))
        if waits:
            await asyncio.sleep(BUSY_SECONDS)


async def _now(services: Container) -> tuple[datetime | None, Exception | None]:
    try:
        return await services.job_runs.now(), None
    except Unavailable as error:
        return None, error


def _state(done: Done, error: Exception | None) -> State:
    if error is not None:
        return State.DELAYED if isinstance(error, Unavailable) else State.FAILED
    left_out = done.walks and done.whole_since is None
    return State.BUSY if done.busy or left_out else State.DONE
