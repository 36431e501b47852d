"""One's own account."""

from fastapi import APIRouter, Request

from app.api.dependencies import Access, After, Limit, SignedIn, services, stated
from app.api.schemas import EndOthersAnswer, EventAnswer, EventPage, MeAnswer, PasswordChangeRequest
from app.domain.errors import InvalidCredentials, PasswordRefused, TooBusy
from app.domain.pages import write_cursor
from app.http.bodies import Kind, read_body
from app.http.clients import client_context

router = APIRouter(prefix="/me", tags=["own account"])


@router.get("", openapi_extra=stated(Access.SIGNED_IN))
async def show_me(request: Request, caller: SignedIn) -> MeAnswer:
    """Who you are, and from which session you speak."""
    return MeAnswer.of_session(await services(request).users.get(caller.user_id), caller.session_id)


@router.put(
    "/password",
    openapi_extra=stated(
        Access.SIGNED_IN, PasswordChangeRequest, Kind.JSON, refuses=(InvalidCredentials, PasswordRefused, TooBusy)
    ),
)
async def change_password(request: Request, caller: SignedIn) -> EndOthersAnswer:
    """Set a new password. All your other sessions end with it."""
    body = await read_body(request, PasswordChangeRequest, Kind.JSON)
    ended = await services(request).password_change.change(
        caller, current=body.current_password, new=body.new_password, client=client_context(request)
    )
    return EndOthersAnswer(message="The password has been changed", sessions_ended=ended)


@router.get("/events", openapi_extra=stated(Access.SIGNED_IN))
async def list_my_events(request: Request, caller: SignedIn, after: After, limit: Limit = 50) -> EventPage:
    """What the audit trail says of you, newest first."""
    page = await services(request).trail.list_page(caller.user_id, after=after, limit=limit)
    return EventPage(
        items=[EventAnswer.of(event) for event in page.items],
        next=write_cursor(page.after) if page.after else None,
    )
