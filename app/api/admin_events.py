"""The whole trail, for auditors and administrators."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import PlainTextResponse

from app.api.audit_schemas import EventQuery, FoundEvents, Histogram, HistogramQuery
from app.api.dependencies import Access, Auditing, services, stated
from app.domain.errors import EventNotSealed
from app.domain.event_filters import EventFilter, read_actions
from app.http.clients import client_context
from app.services.trail import Trail

router = APIRouter(prefix="/admin/events", tags=["audit trail"])

NO_SUCH_PERSON = UUID(int=1)  # nobody has this id, so nothing matches


@router.get("", openapi_extra=stated(Access.AUDITOR))
async def list_events(request: Request, caller: Auditing, query: Annotated[EventQuery, Query()]) -> FoundEvents:
    """
    Events that match all filters, newest first unless `order=oldest`.

    `action` may be repeated and may be a noun with `.*`. `actor` and `subject` are ids or usernames. `from` and `to`
    are inclusive. `next` goes on with the same filter and order only. That you asked is an event itself.
    """
    found = await services(request).trail.search(
        await _read(services(request).trail, query),
        newest_first=query.order == "newest",
        cursor=query.after,
        limit=query.limit,
        with_count=query.count,
        actor=caller.as_admin,
        client=client_context(request),
    )
    return FoundEvents.of(found)


@router.get("/histogram", openapi_extra=stated(Access.AUDITOR))
async def show_histogram(request: Request, caller: Auditing, query: Annotated[HistogramQuery, Query()]) -> Histogram:
    """How many events of each action there were, by minute, hour or day (UTC); by default the last hundred of them."""
    counts = await services(request).trail.histogram(
        await _read(services(request).trail, query),
        query.bucket,
        actor=caller.as_admin,
        client=client_context(request),
    )
    return Histogram.of(counts, query.bucket)


@router.get(
    "/{event_id}/proof",
    openapi_extra=stated(Access.AUDITOR, refuses=(EventNotSealed,)),
    response_class=PlainTextResponse,
)
async def prove_event(event_id: UUID, request: Request, caller: Auditing) -> PlainTextResponse:
    """
    That an event is in the signed tree: a C2SP tlog-proof, whose extra data is the entry.

    409 while no signed checkpoint covers it, which takes a second or two.
    """
    proof = await services(request).proofs.prove(event_id)
    asked = {"event": str(event_id)}
    await services(request).trail.record("proof", asked, 1, caller.as_admin, client_context(request))
    return PlainTextResponse(
        proof.text(), headers={"Content-Disposition": f'attachment; filename="{event_id}.tlog-proof"'}
    )


async def _read(trail: Trail, query: HistogramQuery | EventQuery) -> EventFilter:
    return EventFilter(
        actions=read_actions(query.action),
        outcome=query.outcome,
        actor_id=await _person(trail, query.actor),
        subject_id=await _person(trail, query.subject),
        family_id=query.session,
        network=query.ip,
        request_id=query.request_id,
        since=query.since,
        until=query.until,
    )


async def _person(trail: Trail, name_or_id: str | None) -> UUID | None:
    if name_or_id is None:
        return None
    found = await trail.find_person(name_or_id)
    return NO_SUCH_PERSON if found is None else found
