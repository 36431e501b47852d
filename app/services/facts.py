"""What the metrics say of the whole installation, read from the database when somebody asks."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app import __version__
from app.domain.errors import Unavailable
from app.domain.jobs import Duty
from app.observability import metrics
from app.observability.logs import describe_failure, get_logger
from app.observability.metrics import DECLARED
from app.observability.shared_counts import summed
from app.repositories.database import Database
from app.services.job_runs import JobRuns
from app.services.readiness import Readiness

log = get_logger()

KEPT_SECONDS: Final = 3.0  # several collectors cost the database no more than one
READ_SECONDS: Final = 3.0  # for each part; a collector waits ten by default
UNSEALED_LIMIT: Final = 100_000


@dataclass(frozen=True, slots=True)
class Sample:
    """One number: of which metric, with which labels."""

    metric: str
    value: float
    labels: tuple[str, ...] = ()


Part = Callable[[], Awaitable[list[Sample]]]


class Facts:
    """
    Read at most every three seconds. A part that cannot be read is left out: an old number would look like a new one.
    """

    def __init__(self, database: Database, readiness: Readiness, job_runs: JobRuns) -> None:
        self._database = database
        self._readiness = readiness
        self._job_runs = job_runs
        self._reading = asyncio.Lock()
        self._samples: list[Sample] = []
        self._read_at: float | None = None

    async def exposition(self, duties: Sequence[Duty]) -> bytes:
        """
        All metrics, in the text format of Prometheus: the counts of all processes of this server, and the facts.

        Args:
            duties: The table of jobs.
        """
        samples = await self._read(duties)
        # Adding up the workers' files takes some milliseconds, in which others have their turn.
        return await asyncio.to_thread(_write, samples)

    async def _read(self, duties: Sequence[Duty]) -> list[Sample]:
        loop = asyncio.get_running_loop()
        async with self._reading:
            if self._read_at is None or loop.time() - self._read_at >= KEPT_SECONDS:
                samples = [Sample(metrics.BUILD_INFO, 1, (__version__,)), *await self._read_readiness()]
                whole = True
                for part in (self._read_clock, self._read_sealing, self._read_schema, lambda: self._read_jobs(duties)):
                    found = await _try(part) if whole else None
                    whole = found is not None
                    samples += found or []
                samples.append(Sample(metrics.DATABASE_UP, whole))
                self._samples, self._read_at = samples, loop.time()
            return self._samples

    async def _read_readiness(self) -> list[Sample]:
        report = await self._readiness.report()
        checks = [Sample(metrics.READY_CHECK, each.ok, (each.check,)) for each in report.findings]
        return [Sample(metrics.READY, report.ready), *checks]

    async def _read_clock(self) -> list[Sample]:
        return [Sample(metrics.CLOCK_SKEW, (await self._readiness.measure_skew()).total_seconds())]

    async def _read_sealing(self) -> list[Sample]:
        async with self._database.begin() as db:
            now, partitions = await db.now(), await db.partitions.list_all()
            end = max((partition.end for partition in partitions if not partition.half_detached), default=now)
            samples = [Sample(metrics.PARTITIONS_AHEAD, max(0.0, (end - now).total_seconds() / 86_400))]
            head = await db.seals.find_head()
            if head is not None:
                oldest = await db.seals.find_oldest_unsealed(head)
                newest = await db.tiles.find_newest_checkpoint(head.epoch)
                unsealed = await db.facts.count_unsealed(head, limit=UNSEALED_LIMIT)
                samples += [
                    Sample(metrics.SEALING_LAG, max(0.0, (now - oldest).total_seconds()) if oldest else 0.0),
                    Sample(metrics.UNSEALED, unsealed),
                ]
                if newest is not None:
                    samples.append(Sample(metrics.CHECKPOINT_AT, newest.signed_at.timestamp()))
        return samples

    async def _read_schema(self) -> list[Sample]:
        current, verdict = await self._readiness.judge_schema()
        return [
            Sample(metrics.SCHEMA_INFO, 1, (current,)),
            Sample(metrics.SCHEMA_PENDING, len(verdict.pending)),
            Sample(metrics.SCHEMA_SERVED, verdict.refusal is None),
        ]

    async def _read_jobs(self, duties: Sequence[Duty]) -> list[Sample]:
        samples = []
        for line in await self._job_runs.list_lines(duties):
            name = (line.duty.name,)
            samples.append(Sample(metrics.JOB_INTERVAL, line.duty.every_seconds, name))
            samples.append(Sample(metrics.JOB_OVERDUE, line.overdue, name))
            if (run := line.run) is None:
                continue
            samples.append(Sample(metrics.JOB_FAILING, run.error is not None, name))
            samples.append(Sample(metrics.JOB_LAST_SECONDS, (run.ended_at - run.began_at).total_seconds(), name))
            success = run.ended_at if run.error is None else run.whole_since
            if success is not None:
                samples.append(Sample(metrics.JOB_SUCCESS, success.timestamp(), name))
        return samples


async def _try(part: Part) -> list[Sample] | None:
    try:
        async with asyncio.timeout(READ_SECONDS):
            return await part()
    except (TimeoutError, Unavailable):
        return None
    except Exception as error:  # noqa: BLE001 - what is left of the metrics is needed all the more
        log.error("metrics.unread", **describe_failure(error))
        return None


class _Facts(Collector):
    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = samples

    def collect(self) -> Iterable[Metric]:
        families: dict[str, GaugeMetricFamily] = {}
        for sample in self._samples:
            declared = DECLARED[sample.metric]
            family = families.setdefault(
                sample.metric, GaugeMetricFamily(declared.name, declared.help, labels=declared.label_names)
            )
            family.add_metric(sample.labels, float(sample.value))
        return families.values()


def _write(samples: Iterable[Sample]) -> bytes:
    facts = CollectorRegistry()
    facts.register(_Facts(samples))
    return generate_latest(summed(metrics.REGISTRY)) + generate_latest(facts)
