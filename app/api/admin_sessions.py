"""Everybody's sessions, for auditors and administrators to find and to understand."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request

from app.api.dependencies import Access, Auditing, services, stated
from app.api.session_schemas import (
    ExplanationAnswer,
    FoundSessionPage,
    SessionQuery,
    SessionWithTimeline,
    TimelineQuery,
)
from app.http.clients import client_context

router = APIRouter(prefix="/admin/sessions", tags=["administration"])


@router.get("", openapi_extra=stated(Access.AUDITOR))
async def list_all_sessions(
    request: Request, caller: Auditing, query: Annotated[SessionQuery, Query()]
) -> FoundSessionPage:
    """
    Sessions that match all filters, newest first unless `order=oldest`.

    `user` is an id or a username, `ip` an address or a network: that of the sign-in, or with `ip_scope=any` any that
    the session was used from. `browser` and `os` go with or without their version. Both ends of a range belong to it.
    `sort=last_used` needs a filter that bounds the set to 10,000. `next` goes on with the same filter and order only;
    a page may be `cut_short`. That you asked is an event.
    """
    found = await services(request).session_search.search(
        await query.to_filter(services(request).trail),
        sort=query.sort,
        newest_first=query.order == "newest",
        cursor=query.after,
        limit=query.limit,
        actor=caller.as_admin,
        client=client_context(request),
    )
    return FoundSessionPage.of(found, current=caller.session_id)


@router.get("/{session_id}", openapi_extra=stated(Access.AUDITOR))
async def show_any_session(
    session_id: UUID, request: Request, caller: Auditing, query: Annotated[TimelineQuery, Query()]
) -> SessionWithTimeline:
    """A session with its timeline: about `limit` generations, newest first; `timeline.next` leads to older ones."""
    story = await services(request).session_stories.show(
        session_id, cursor=query.after, limit=query.limit, actor=caller.as_admin, client=client_context(request)
    )
    return SessionWithTimeline.of_story(story, current=caller.session_id)


@router.get("/{session_id}/explain", openapi_extra=stated(Access.AUDITOR))
async def explain_session(session_id: UUID, request: Request, caller: Auditing) -> ExplanationAnswer:
    """Why a session is over, or until when it lives: one sentence, and the events that it is built from."""
    explained = await services(request).session_stories.explain(
        session_id, actor=caller.as_admin, client=client_context(request)
    )
    return ExplanationAnswer.of(explained)
