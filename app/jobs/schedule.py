"""The table of jobs, and the loop that runs them in every serving process."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from app.container import Container
from app.domain.errors import RotaError, Unavailable
from app.domain.jobs import Done, Duty
from app.observability.logs import describe_failure, get_logger
from app.observability.metrics import JOB_BATCHES, JOB_SECONDS, JobOutcome

log = get_logger()


REFUSED_SECONDS: Final = (
    9.0  # before what was refused, or broke, is tried again: it is for the operator, and said until then
)
PAUSE_SECONDS: Final = 1.0  # between batches: no job is in a hurry, and all share the database with refreshes
END_SECONDS: Final = 5.0  # for the batches at work, from the word that there shall be no others
TELL_SECONDS: Final = 10.0  # between two entries in the table of jobs while a job goes on, or finds nothing to do


@dataclass(frozen=True)
class Job(Duty):
    """`work` does one bounded batch; if that leaves more to do, the next begins after `pause_seconds`."""

    work: Callable[[Container], Awaitable[Done | bool]]
    pause_seconds: float = PAUSE_SECONDS


async def _publish(services: Container) -> bool:
    if services.publishing is not None:
        await services.publishing.publish()
    return False


async def _beat(services: Container) -> bool:
    return await services.publishing.beat() if services.publishing else False


# In the order in which they are run one by one: room for events first, then who writes events, then who reads them.
# A name is the key of the job's lock, cursor and runs: it stays what it is.
JOBS: Final = (
    Job(
        "partitions",
        3600,
        lambda services: services.housekeeping.make_partitions(),
        entity="months of the trail",
        retention="none; 90 days ahead are kept made",
        reason="without a month to write to, nobody can sign in",
    ),
    Job(
        "expiry",
        30,
        lambda services: services.housekeeping.end_lapsed_sessions(),
        entity="sessions past a limit",
        retention="none; over at the limit itself",
        reason="writes down the end and its reason; whoever asks before sees it as over, too",
    ),
    Job(
        "refusals",
        30,
        lambda services: services.housekeeping.sum_up_refusals(),
        entity="counted refusals",
        retention="until their minute is over",
        reason="one event for those beyond the first of a minute",
    ),
    Job(
        "login failures",
        30,
        lambda services: services.housekeeping.sum_up_login_failures(),
        entity="counted failures to sign in",
        retention="until their minute is over",
        reason="one event for those beyond the first five of a minute that are alike",
    ),
    Job(
        "login throttles",
        60,
        lambda services: services.housekeeping.remove_old_throttles(),
        entity="counts by which guessing is slowed down",
        retention="24 hours without a failure; of addresses until their rate has recovered",
        reason="they say nothing any more",
    ),
    Job(
        "password tokens",
        300,
        lambda services: services.credentials.remove_expired(),
        entity="set-password tokens",
        retention="until they expire",
        reason="nobody can use them any more",
    ),
    Job(
        "notifications",
        3600,
        lambda services: services.notifications.remove_old(),
        entity="what people are to be told",
        retention="until it is acknowledged; 30 days",
        reason="what nobody has fetched by then is no news any more",
    ),
    Job(
        "revocations",
        1,
        lambda services: services.revocation_work.work(),
        entity="sessions to be ended in bulk",
        retention="none",
        reason="what an administrator ordered goes on, whoever was killed",
        pause_seconds=0,
    ),
    Job(
        "session retention",
        3600,
        lambda services: services.housekeeping.remove_ended_sessions(),
        entity="sessions that have ended",
        retention="after their end",
        days_setting="session_retention_days",
        reason="what is not kept need not be guarded; their events stay",
    ),
    Job(
        "stats",
        2,
        lambda services: services.stats.count(),
        entity="counts by hour and day",
        retention="for ever",
        reason="numbers are answered from counts, not from the whole trail",
        pause_seconds=0.1,
    ),
    Job(
        "stats sources",
        3600,
        lambda services: services.stats.remove_old_sources(),
        entity="counts by address and agent",
        retention="400 days, or as long as the trail if that is shorter",
        reason="they are personal data",
    ),
    Job(
        "audit.seal",
        0.5,
        lambda services: services.sealing.seal(),
        entity="committed events",
        retention="for ever",
        reason="what is sealed cannot be changed unnoticed",
        pause_seconds=0,
    ),
    Job(
        "audit.publish",
        1,
        _publish,
        entity="signed tree heads",
        retention="for ever",
        reason="who holds one can see whether the past was changed",
    ),
    Job(
        "audit.heartbeat",
        60,
        _beat,
        entity="an event, if there was none for ten minutes",
        retention="as the trail",
        reason="silence can be told from a sealer that stands still",
    ),
    Job(
        "audit.guard",
        60,
        lambda services: services.guard.check_some(),
        entity="triggers, months, counts of what was sealed",
        retention="none",
        reason="an alarm if the trail was tampered with",
    ),
    Job(
        "audit.watch",
        10,
        lambda services: services.sealing.watch(),
        entity="the lag of the sealing",
        retention="none",
        reason="an alarm with who holds it up",
    ),
)


@asynccontextmanager
async def running_jobs(container: Container) -> AsyncIterator[Callable[[], None]]:
    """
    Run all jobs while the body runs.

    The body is given what ends them before that: no batch is begun after it was called. Those at work come to their
    ends, within bounds; a batch that is cut off was not done, and is somebody else's next one.
    """
    ending = _Ending()
    tasks = [asyncio.create_task(_run(job, container, ending), name=f"job {job.name}") for job in JOBS]
    try:
        yield ending.begin
    finally:
        ending.begin()
        await asyncio.wait(tasks, timeout=ending.seconds_left)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Ending:
    """That the jobs are to end, and how long they may take."""

    def __init__(self) -> None:
        self._word = asyncio.Event()
        self._until = 0.0

    def begin(self) -> None:
        if not self._word.is_set():
            self._until = time.monotonic() + END_SECONDS
            self._word.set()

    @property
    def begun(self) -> bool:
        return self._word.is_set()

    @property
    def seconds_left(self) -> float:
        return max(0.0, self._until - time.monotonic())

    async def wait(self, seconds: float) -> None:
        """For so long, or until it begins."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._word.wait()


async def run_batch(job: Job, services: Container) -> tuple[Done, RotaError | Exception | None]:
    """One batch: what it did, or what kept it from doing anything."""
    began = time.monotonic()
    done, error = await _try_batch(job, services)
    JOB_SECONDS.observe(time.monotonic() - began, job.name)
    if error is None:
        outcome = JobOutcome.BUSY if done.busy else JobOutcome.DONE
    elif isinstance(error, Unavailable):
        outcome = JobOutcome.DELAYED
    else:
        outcome = JobOutcome.REFUSED if isinstance(error, RotaError) else JobOutcome.BROKE
    JOB_BATCHES.add(job.name, outcome)
    return done, error


async def _try_batch(job: Job, services: Container) -> tuple[Done, RotaError | Exception | None]:
    try:
        done = await job.work(services)
    except Unavailable as error:
        log.warning("job.delayed", job=job.name, why=error.why)
        return Done(), error
    except RotaError as error:
        log.error("job.refused", job=job.name, code=error.code, message=error.message, why=error.why)
        return Done(), error
    except Exception as error:  # noqa: BLE001 - one bad batch must not end the job for good
        log.error("job.broke", job=job.name, **describe_failure(error))
        return Done(), error
    return (done if isinstance(done, Done) else Done(more=done)), None


def name_of(error: Exception | None) -> str | None:
    """What the table of jobs says of an error: a code and what it is about, never a driver's words or a value."""
    if error is None:
        return None
    if isinstance(error, RotaError):
        return f"{error.code}: {error.why or error.message}"
    return f"broke: {type(error).__name__}"


class Teller:
    """Enters a job's runs into the table: each at its end, a long one also on its way, idle ones now and then."""

    def __init__(self, job: Job, services: Container) -> None:
        self._job = job
        self._runs = services.job_runs
        self._began: float | None = None
        self._told_at: float | None = None
        self._rows = 0  # of this run
        self._told_rows = 0
        self._error: str | None = None

    def begin(self) -> None:
        """A batch begins."""
        if self._began is None:
            self._began, self._rows, self._told_rows = time.monotonic(), 0, 0

    async def end(self, done: Done, error: Exception | None, *, again_in: float, at_once: bool = False) -> None:
        """A batch is over. Enter it if it is time for that, or if it is the end of a run that did something."""
        now, name = time.monotonic(), name_of(error)
        began = now if self._began is None else self._began
        self._rows += done.rows
        waited = now - (began if self._told_at is None else self._told_at)
        found = self._rows > 0 and self._job.every_seconds >= TELL_SECONDS
        ends = not done.more and (found or self._told_at is None)
        due = at_once or ends or name != self._error or waited >= TELL_SECONDS
        if due and not (done.busy and self._rows == self._told_rows):
            await self._enter(done, name, took=now - began, again_in=again_in)
        # A quick job's runs that found something are told together.
        if not done.more and (due or not self._rows):
            self._began = None

    async def _enter(self, done: Done, error: str | None, *, took: float, again_in: float) -> None:
        left = done.more or done.busy or (done.walks and done.whole_since is None)
        try:
            await self._runs.record(
                self._job,
                took=took,
                rows=self._rows,
                added=self._rows - self._told_rows,
                is_whole=error is None and not left,
                whole_since=done.whole_since,
                again_in=again_in,
                error=error,
            )
        except Exception as failure:  # noqa: BLE001 - the work is done; that it was cannot be told now
            log.warning("job.untold", job=self._job.name, **describe_failure(failure))
            return
        self._told_at, self._told_rows, self._error = time.monotonic(), self._rows, error


async def _run(job: Job, services: Container, ending: _Ending) -> None:
    teller = Teller(job, services)
    while not ending.begun:
        teller.begin()
        done, error = await run_batch(job, services)
        wait = job.pause_seconds if done.more else job.every_seconds
        if error is not None and not isinstance(error, Unavailable):
            wait += REFUSED_SECONDS
        await teller.end(done, error, again_in=wait)
        # Processes that started together shall not come together.
        await ending.wait(wait * random.uniform(0.8, 1.2))  # noqa: S311
