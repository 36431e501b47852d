"""Numbers, and the jobs that keep house."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from app.api.dependencies import Access, Auditing, services, stated
from app.api.stats_schemas import Jobs, StatsAnswer, StatsQuery
from app.http.clients import client_context

router = APIRouter(prefix="/admin", tags=["administration"])


@router.get("/stats", openapi_extra=stated(Access.AUDITOR))
async def show_stats(request: Request, caller: Auditing, query: Annotated[StatsQuery, Query()]) -> StatsAnswer:
    """
    Active sessions and users now; sign-ins, refreshes, failures, reuse and ends by hour or day (UTC); where most
    failures came from.

    Buckets are whole: the range is widened to those that hold `from` and `to`. By default it is the last 24 hours, or
    with `bucket=day` the last 30 days; at most 31 days by hour and 400 by day. That you asked is an event itself.
    """
    found = await services(request).stats.answer(
        query.since, query.until, query.bucket, actor=caller.as_admin, client=client_context(request)
    )
    return StatsAnswer.of(found)


@router.get("/jobs", openapi_extra=stated(Access.AUDITOR))
async def list_jobs(request: Request, caller: Auditing) -> Jobs:
    """Which job does what, when it last ran and runs next, what it found, and what it failed with."""
    duties = request.app.state.duties
    lines = await services(request).job_runs.show(duties, actor=caller.as_admin, client=client_context(request))
    return Jobs.of(lines)
