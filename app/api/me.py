"""One's own account."""

from typing import Annotated

from fastapi import APIRouter, Depends

from app.api.dependencies import After, Client, Limit, Services, SignedIn
from app.api.schemas import EndOthersAnswer, EventAnswer, EventPage, MeAnswer, PasswordChangeRequest
from app.domain.pages import write_cursor
from app.http.bodies import Kind, body_documentation, body_of

router = APIRouter(prefix="/me", tags=["own account"])


@router.get("")
async def show_me(caller: SignedIn, services: Services) -> MeAnswer:
    """Who you are, and from which session you speak."""
    return MeAnswer.of_session(await services.users.get(caller.user_id), caller.session_id)


@router.put("/password", openapi_extra=body_documentation(PasswordChangeRequest, Kind.JSON))
async def change_password(
    body: Annotated[PasswordChangeRequest, Depends(body_of(PasswordChangeRequest, Kind.JSON))],
    caller: SignedIn,
    services: Services,
    client: Client,
) -> EndOthersAnswer:
    """Set a new password. All your other sessions end with it."""
    ended = await services.password_change.change(
        caller, current=body.current_password, new=body.new_password, client=client
    )
    return EndOthersAnswer(message="The password has been changed", sessions_ended=ended)


@router.get("/events")
async def list_my_events(caller: SignedIn, services: Services, after: After, limit: Limit = 50) -> EventPage:
    """What the audit trail says of you, newest first."""
    page = await services.trail.list_page(caller.user_id, after=after, limit=limit)
    return EventPage(
        items=[EventAnswer.of(event) for event in page.items], next=write_cursor(page.after) if page.after else None
    )
