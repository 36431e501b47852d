"""What goes in and comes out at `/admin/stats` and `/admin/jobs`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from app.api.parameters import Moment, Parameters
from app.domain.stats import Counts, Numbers, Width
from app.services.job_runs import JobLine


class StatsQuery(Parameters):
    bucket: Width = Width.HOUR
    since: Annotated[Moment | None, Field(alias="from")] = None
    until: Annotated[Moment | None, Field(alias="to")] = None


class ActiveAnswer(BaseModel):
    """
    Sessions that are alive, and how many users have one. `lapsed` are past a limit, their ends not written yet, and not
    among them. If `is_exact` is false there may be further such ones, so that both numbers are upper bounds;
    `ends_written_until` says how far the writing of ends has come.
    """

    as_of: datetime
    sessions: int
    users: int
    lapsed: int
    is_exact: bool
    ends_written_until: datetime | None


class CountsAnswer(BaseModel):
    """`failures` includes reuse and is the sum of `failures_by_action`; failures that were summed up all count."""

    sign_ins: int
    refreshes: int
    failures: int
    reuse_detections: int
    failures_by_action: dict[str, int]
    ends: dict[str, int]

    @classmethod
    def members(cls, counts: Counts) -> dict[str, Any]:
        return {name: getattr(counts, name) for name in CountsAnswer.model_fields}


class BucketAnswer(CountsAnswer):
    start: datetime


class Series(BaseModel):
    """Every bucket of the range, without gaps, and their sum. `from` is inclusive, `to` is not."""

    model_config = ConfigDict(serialize_by_alias=True)

    as_of: datetime
    bucket: Width
    since: Annotated[datetime, Field(serialization_alias="from")]
    until: Annotated[datetime, Field(serialization_alias="to")]
    totals: CountsAnswer
    items: list[BucketAnswer]


class Address(BaseModel):
    address: str
    failures: int


class Agent(BaseModel):
    agent: str
    failures: int


class Sources(BaseModel):
    """
    Where most failures of the range came from, ten at most; of IPv6 the /64. If `is_exact` is false, one that is not
    here may have had as many. `kept_since`: these are not kept for earlier times.
    """

    as_of: datetime
    kept_since: datetime
    addresses: list[Address]
    addresses_are_exact: bool
    agents: list[Agent]
    agents_are_exact: bool


class StatsAnswer(BaseModel):
    """`as_of`: all that had happened by then is counted. `waiting`: events that are not yet, up to 1,000."""

    as_of: datetime
    waiting: int
    active: ActiveAnswer
    series: Series
    failure_sources: Sources

    @classmethod
    def of(cls, found: Numbers) -> Self:
        return cls(
            as_of=found.as_of,
            waiting=found.waiting,
            active=ActiveAnswer(**{name: getattr(found.active, name) for name in ActiveAnswer.model_fields}),
            series=Series(
                as_of=found.as_of,
                bucket=found.span.width,
                since=found.span.since,
                until=found.span.until,
                totals=CountsAnswer(**CountsAnswer.members(found.totals)),
                items=[BucketAnswer(start=at, **CountsAnswer.members(counts)) for at, counts in found.buckets],
            ),
            failure_sources=Sources(
                as_of=found.as_of,
                kept_since=found.sources_since,
                addresses=[Address(address=value, failures=count) for value, count in found.addresses.items],
                addresses_are_exact=found.addresses.is_exact,
                agents=[Agent(agent=value, failures=count) for value, count in found.agents.items],
                agents_are_exact=found.agents.is_exact,
            ),
        )


class JobAnswer(BaseModel):
    """
    A job. `rows` is of the last run that found anything (`rows_at`), `total_rows` of all runs; `error` of the last run.
    What was due at `done_until` is done. `overdue`: no process has run it for longer than that should take.
    """

    job: str
    entity: str
    retention: str
    reason: str
    every_seconds: float
    last_run: datetime | None
    last_run_seconds: float | None
    next_run: datetime | None
    overdue: bool
    rows: int
    rows_at: datetime | None
    total_rows: int
    done_until: datetime | None
    error: str | None
    failed_at: datetime | None

    @classmethod
    def of(cls, line: JobLine) -> Self:
        run = line.run
        return cls(
            job=line.duty.name,
            entity=line.duty.entity,
            retention=line.retention,
            reason=line.duty.reason,
            every_seconds=line.duty.every_seconds,
            last_run=run.ended_at if run else None,
            last_run_seconds=(run.ended_at - run.began_at).total_seconds() if run else None,
            next_run=run.next_at if run else None,
            overdue=line.overdue,
            rows=run.rows if run else 0,
            rows_at=run.found_at if run else None,
            total_rows=run.total if run else 0,
            done_until=run.whole_since if run else None,
            error=run.error if run else None,
            failed_at=run.failed_at if run else None,
        )


class Jobs(BaseModel):
    items: list[JobAnswer]

    @classmethod
    def of(cls, lines: Sequence[JobLine]) -> Self:
        return cls(items=[JobAnswer.of(line) for line in lines])
