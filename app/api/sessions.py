"""One's own sessions."""

from uuid import UUID

from fastapi import APIRouter, Request

from app.api.dependencies import Access, After, Limit, SignedIn, services, stated
from app.api.schemas import EndAnswer, EndOthersAnswer, LabelRequest, SessionAnswer, SessionPage
from app.domain.events import user_actor
from app.domain.families import EndReason
from app.domain.pages import write_cursor
from app.http.bodies import Kind, read_body
from app.http.clients import client_context

router = APIRouter(prefix="/sessions", tags=["own sessions"])


@router.get("", openapi_extra=stated(Access.SIGNED_IN))
async def list_sessions(request: Request, caller: SignedIn, after: After, limit: Limit = 25) -> SessionPage:
    """Your live sessions and those ended in the last 30 days, newest first."""
    seen = await services(request).sessions.list_page(caller.user_id, after=after, limit=limit)
    return SessionPage(
        items=[SessionAnswer.of(family, now=seen.now, current=caller.session_id) for family in seen.page.items],
        next=write_cursor(seen.page.after) if seen.page.after else None,
    )


@router.delete("", openapi_extra=stated(Access.SIGNED_IN))
async def end_other_sessions(request: Request, caller: SignedIn) -> EndOthersAnswer:
    """End all your sessions but this one."""
    ended = await services(request).sessions.end_others(caller, client=client_context(request))
    return EndOthersAnswer(message="All other sessions have ended", sessions_ended=ended)


@router.get("/{session_id}", openapi_extra=stated(Access.SIGNED_IN))
async def show_session(session_id: UUID, request: Request, caller: SignedIn) -> SessionAnswer:
    """One of your sessions."""
    family, now = await services(request).sessions.get(caller.user_id, session_id)
    return SessionAnswer.of(family, now=now, current=caller.session_id)


@router.patch("/{session_id}", openapi_extra=stated(Access.SIGNED_IN, LabelRequest, Kind.JSON))
async def label_session(session_id: UUID, request: Request, caller: SignedIn) -> SessionAnswer:
    """Name one of your sessions; null takes the name away."""
    body = await read_body(request, LabelRequest, Kind.JSON)
    family, now = await services(request).sessions.label(caller, session_id, body.label, client=client_context(request))
    return SessionAnswer.of(family, now=now, current=caller.session_id)


@router.delete("/{session_id}", openapi_extra=stated(Access.SIGNED_IN))
async def end_session(session_id: UUID, request: Request, caller: SignedIn) -> EndAnswer:
    """End one of your sessions."""
    ended = await services(request).sessions.end(
        caller.user_id,
        session_id,
        actor=user_actor(caller.user_id),
        client=client_context(request),
        reason=EndReason.LOGOUT,
    )
    return EndAnswer(message="The session has ended", session_id=session_id, ended=ended)
