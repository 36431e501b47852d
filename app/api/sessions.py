"""One's own sessions."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends

from app.api.dependencies import After, Client, Limit, Services, SignedIn
from app.api.schemas import EndAnswer, EndOthersAnswer, LabelRequest, SessionAnswer, SessionPage
from app.domain.events import user_actor
from app.domain.families import EndReason
from app.domain.pages import write_cursor
from app.http.bodies import Kind, body_documentation, body_of

router = APIRouter(prefix="/sessions", tags=["own sessions"])


@router.get("")
async def list_sessions(caller: SignedIn, services: Services, after: After, limit: Limit = 25) -> SessionPage:
    """Your live sessions and those ended in the last 30 days, newest first."""
    seen = await services.sessions.list_page(caller.user_id, after=after, limit=limit)
    return SessionPage(
        items=[SessionAnswer.of(family, now=seen.now, current=caller.session_id) for family in seen.page.items],
        next=write_cursor(seen.page.after) if seen.page.after else None,
    )


@router.delete("")
async def end_other_sessions(caller: SignedIn, services: Services, client: Client) -> EndOthersAnswer:
    """End all your sessions but this one."""
    ended = await services.sessions.end_others(caller, client=client)
    return EndOthersAnswer(message="All other sessions have ended", sessions_ended=ended)


@router.get("/{session_id}")
async def show_session(session_id: UUID, caller: SignedIn, services: Services) -> SessionAnswer:
    """One of your sessions."""
    family, now = await services.sessions.get(caller.user_id, session_id)
    return SessionAnswer.of(family, now=now, current=caller.session_id)


@router.patch("/{session_id}", openapi_extra=body_documentation(LabelRequest, Kind.JSON))
async def label_session(
    session_id: UUID,
    body: Annotated[LabelRequest, Depends(body_of(LabelRequest, Kind.JSON))],
    caller: SignedIn,
    services: Services,
    client: Client,
) -> SessionAnswer:
    """Name one of your sessions; null takes the name away."""
    family, now = await services.sessions.label(caller, session_id, body.label, client=client)
    return SessionAnswer.of(family, now=now, current=caller.session_id)


@router.delete("/{session_id}")
async def end_session(session_id: UUID, caller: SignedIn, services: Services, client: Client) -> EndAnswer:
    """End one of your sessions."""
    actor = user_actor(caller.user_id)
    ended = await services.sessions.end(caller.user_id, session_id, actor=actor, client=client, reason=EndReason.LOGOUT)
    return EndAnswer(message="The session has ended", session_id=session_id, ended=ended)
