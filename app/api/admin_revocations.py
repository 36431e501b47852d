"""Ending anybody's sessions: one, all of a user, or in bulk."""

from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from app.api.dependencies import Access, Administering, Auditing, services, stated
from app.api.revocation_schemas import (
    DryRunAnswer,
    RevocationAnswer,
    RevocationPage,
    RevocationQuery,
    RevocationRequest,
    missing,
)
from app.api.schemas import EndAnswer, EndOthersAnswer
from app.domain.errors import FingerprintExpired, FingerprintRefused
from app.http.bodies import Kind, read_body
from app.http.clients import client_context

# Before the routes of single sessions: `revocations` is no session's id.
router = APIRouter(prefix="/admin", tags=["ending sessions"])


@router.post(
    "/sessions/revocations",
    openapi_extra=stated(Access.ADMIN, RevocationRequest, Kind.JSON, refuses=(FingerprintRefused, FingerprintExpired)),
    status_code=HTTPStatus.ACCEPTED,
    responses={200: {"model": DryRunAnswer}},
)
async def end_in_bulk(request: Request, response: Response, caller: Administering) -> RevocationAnswer | DryRunAnswer:
    """
    End all sessions that match a filter, in two steps.

    First with `dry_run: true`: 200 with what would end, and a `fingerprint`. Then the same filter with that
    `fingerprint` and a `reason` for the trail (3 to 200 characters, no personal data): 202 with the job that does it.
    It ends what still matches then and was created before the dry run. Your own session stays, unless
    `include_own_session`. Another filter, another caller: 409 `fingerprint_refused`; after ten minutes: 409
    `fingerprint_expired`. The same request again answers with the same job.
    """
    body = await read_body(request, RevocationRequest, Kind.JSON)
    order = await body.to_order(services(request).trail)
    revocations, client = services(request).revocations, client_context(request)
    if body.dry_run:
        response.status_code = HTTPStatus.OK
        return DryRunAnswer.of(await revocations.preview(order, caller=caller, client=client))
    if body.fingerprint is None:
        raise missing("fingerprint")
    if body.reason is None:
        raise missing("reason")
    started = await revocations.start(
        order,
        body.fingerprint,
        why=body.reason,
        include_own_session=body.include_own_session,
        caller=caller,
        client=client,
    )
    response.headers["Location"] = f"{router.prefix}/sessions/revocations/{started.id}"
    return RevocationAnswer.of(started)


@router.get("/sessions/revocations", openapi_extra=stated(Access.AUDITOR))
async def list_revocations(
    request: Request, caller: Auditing, query: Annotated[RevocationQuery, Query()]
) -> RevocationPage:
    """All bulk ends, newest first."""
    found, following = await services(request).revocations.list_page(
        cursor=query.after, limit=query.limit, actor=caller.as_admin, client=client_context(request)
    )
    return RevocationPage(items=[RevocationAnswer.of(revocation) for revocation in found], next=following)


@router.get("/sessions/revocations/{revocation_id}", openapi_extra=stated(Access.AUDITOR))
async def show_revocation(revocation_id: UUID, request: Request, caller: Auditing) -> RevocationAnswer:
    """How far a bulk end has come."""
    found = await services(request).revocations.get(
        revocation_id, actor=caller.as_admin, client=client_context(request)
    )
    return RevocationAnswer.of(found)


@router.post("/sessions/revocations/{revocation_id}/cancel", openapi_extra=stated(Access.ADMIN))
async def cancel_revocation(revocation_id: UUID, request: Request, caller: Administering) -> RevocationAnswer:
    """Stop a bulk end after the batch under way. What has ended stays ended; one that is over stays as it is."""
    stopped = await services(request).revocations.cancel(
        revocation_id, actor=caller.as_admin, client=client_context(request)
    )
    return RevocationAnswer.of(stopped)


@router.delete("/sessions/{session_id}", openapi_extra=stated(Access.ADMIN))
async def end_anybodys_session(session_id: UUID, request: Request, caller: Administering) -> EndAnswer:
    """End one session, whosever it is."""
    ended = await services(request).sessions.end_anybodys(
        session_id, actor=caller.as_admin, client=client_context(request)
    )
    return EndAnswer(message="The session has ended", session_id=session_id, ended=ended)


@router.delete("/users/{user_id}/sessions", openapi_extra=stated(Access.ADMIN))
async def end_all_sessions_of_a_user(user_id: UUID, request: Request, caller: Administering) -> EndOthersAnswer:
    """End all sessions of a user: your own too, if they are yours."""
    ended = await services(request).sessions.end_all_of(user_id, actor=caller.as_admin, client=client_context(request))
    return EndOthersAnswer(message="All sessions of the user have ended", sessions_ended=ended)
