"""Sign-in of first-party apps: register, log in, refresh, log out."""

from fastapi import APIRouter, Request, status

from app.api.dependencies import Access, bearer_token, idempotency_key, services, stated
from app.api.schemas import (
    EndAnswer,
    LogoutRequest,
    RefreshRequest,
    RegisterRequest,
    TokenAnswer,
    TokenRequest,
    UserAnswer,
)
from app.domain.errors import AccessTokenRejected, InputInvalid, InvalidScope, UnsupportedGrantType
from app.http.bodies import Kind, read_body
from app.http.clients import client_context

router = APIRouter(tags=["sign-in"])

BOTH = (Kind.FORM, Kind.JSON)


@router.post("/refresh", openapi_extra=stated(Access.ANYONE, RefreshRequest, *BOTH))
async def refresh(request: Request) -> TokenAnswer:
    """
    Spend a refresh token for a new pair.

    The token just spent may be presented again for some seconds, or for an hour by a request with the same
    `Idempotency-Key`, and gets the same successor. Any other spent token ends the session. After a 503 or a lost
    answer, present the same token again.
    """
    body = await read_body(request, RefreshRequest, *BOTH)
    issued = await services(request).refresh.rotate(
        body.refresh_token, idempotency_key=idempotency_key(request), client=client_context(request)
    )
    return TokenAnswer.of(issued)


@router.post("/token", openapi_extra=stated(Access.ANYONE, TokenRequest, Kind.FORM))
async def token(request: Request) -> TokenAnswer:
    """
    Sign in with a password, or refresh with `grant_type=refresh_token` (see `/refresh`).

    A scope that is asked for at sign-in is not granted; the answer says what was (RFC 6749 section 3.3).
    """
    body = await read_body(request, TokenRequest, Kind.FORM)
    client = client_context(request)
    if body.grant_type == "password":
        if body.username is None or body.password is None:
            raise InputInvalid("username and password are needed.")
        issued = await services(request).sign_in.with_password(body.username, body.password, client=client)
    elif body.grant_type == "refresh_token":
        if body.refresh_token is None:
            raise InputInvalid("refresh_token is needed.")
        if body.scope:
            raise InvalidScope  # no session has any yet, so this would be more than was granted (RFC 6749 section 6)
        issued = await services(request).refresh.rotate(
            body.refresh_token, idempotency_key=idempotency_key(request), client=client
        )
    else:
        raise UnsupportedGrantType
    return TokenAnswer.of(issued)


@router.post("/logout", openapi_extra=stated(Access.ANYONE, LogoutRequest, *BOTH, required=False))
async def logout(request: Request) -> EndAnswer:
    """End this session, known by its access token, or by any of its refresh tokens when that has expired."""
    body = await read_body(request, LogoutRequest, *BOTH)
    client = client_context(request)
    try:
        caller = await services(request).authentication.identify(bearer_token(request))
        session_id, ended = (
            caller.session_id,
            await services(request).sessions.log_out(caller, refresh_token=body.refresh_token, client=client),
        )
    except AccessTokenRejected:
        if body.refresh_token is None:
            raise
        session_id, ended = await services(request).sessions.log_out_with_refresh_token(
            body.refresh_token, client=client
        )
    return EndAnswer(message="Logged out successfully", session_id=session_id, ended=ended)


@router.post(
    "/register",
    status_code=status.HTTP_201_CREATED,
    openapi_extra=stated(Access.ANYONE, RegisterRequest, Kind.JSON),
)
async def register(request: Request) -> UserAnswer:
    """
    Make an account, where registration is open.

    A password that may not be set is 422 with a `reason`, such as `too_short` or `common`.
    """
    body = await read_body(request, RegisterRequest, Kind.JSON)
    user = await services(request).users.register(body.username, body.password, client=client_context(request))
    return UserAnswer.of(user)
