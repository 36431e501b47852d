"""A password of one's own, by the token that somebody was given."""

from fastapi import APIRouter, Request

from app.api.dependencies import Access, services, stated
from app.api.schemas import EndOthersAnswer, PasswordTokenRequest
from app.domain.errors import PasswordRefused, PasswordTokenRejected, TooBusy
from app.http.bodies import Kind, read_body
from app.http.clients import client_context

router = APIRouter(tags=["sign-in"])


@router.put(
    "/password",
    openapi_extra=stated(
        Access.ANYONE, PasswordTokenRequest, Kind.JSON, refuses=(PasswordTokenRejected, PasswordRefused, TooBusy)
    ),
)
async def set_password(request: Request) -> EndOthersAnswer:
    """
    Set your password with a set-password token, which is good once. All your sessions end; then sign in.

    An administrator gave you the token, or `POST /token` did when you signed in with a one-time password. A password
    that is refused leaves the token as it is.
    """
    body = await read_body(request, PasswordTokenRequest, Kind.JSON)
    ended = await services(request).credentials.redeem(body.token, body.new_password, client=client_context(request))
    return EndOthersAnswer(message="The password has been set", sessions_ended=ended)
