"""Sign-in of first-party apps: register, log in, refresh, log out."""

from typing import Annotated

from fastapi import APIRouter, Depends, status

from app.api.dependencies import BearerToken, Client, IdempotencyKey, Services, anyone
from app.api.schemas import (
    EndAnswer,
    LogoutRequest,
    RefreshRequest,
    RegisterRequest,
    TokenAnswer,
    TokenRequest,
    UserAnswer,
)
from app.domain.errors import AccessTokenRejected, InputInvalid, UnsupportedGrantType
from app.http.bodies import Kind, body_documentation, body_of

router = APIRouter(tags=["sign-in"], dependencies=[Depends(anyone)])

BOTH = (Kind.FORM, Kind.JSON)


@router.post(
    "/register",
    status_code=status.HTTP_201_CREATED,
    openapi_extra=body_documentation(RegisterRequest, Kind.JSON),
)
async def register(
    body: Annotated[RegisterRequest, Depends(body_of(RegisterRequest, Kind.JSON))],
    services: Services,
    client: Client,
) -> UserAnswer:
    """Make an account, where registration is open."""
    return UserAnswer.of(await services.users.register(body.username, body.password, client=client))


@router.post("/token", openapi_extra=body_documentation(TokenRequest, Kind.FORM))
async def token(
    body: Annotated[TokenRequest, Depends(body_of(TokenRequest, Kind.FORM))],
    services: Services,
    client: Client,
    key: IdempotencyKey,
) -> TokenAnswer:
    """Sign in with a password, or refresh with `grant_type=refresh_token` (see `/refresh`)."""
    if body.grant_type == "password":
        if body.username is None or body.password is None:
            raise InputInvalid("username and password are needed.")
        issued = await services.sign_in.with_password(body.username, body.password, scope=body.scope, client=client)
    elif body.grant_type == "refresh_token":
        if body.refresh_token is None:
            raise InputInvalid("refresh_token is needed.")
        issued = await services.refresh.rotate(body.refresh_token, idempotency_key=key, client=client)
    else:
        raise UnsupportedGrantType
    return TokenAnswer.of(issued)


@router.post("/refresh", openapi_extra=body_documentation(RefreshRequest, *BOTH))
async def refresh(
    body: Annotated[RefreshRequest, Depends(body_of(RefreshRequest, *BOTH))],
    services: Services,
    client: Client,
    key: IdempotencyKey,
) -> TokenAnswer:
    """
    Spend a refresh token for a new pair.

    The token just spent may be presented again for some seconds, or for an hour by a request with the same
    `Idempotency-Key`, and gets the same successor. Any other spent token ends the session. After a 503 or a lost
    answer, present the same token again.
    """
    return TokenAnswer.of(await services.refresh.rotate(body.refresh_token, idempotency_key=key, client=client))


@router.post("/logout", openapi_extra=body_documentation(LogoutRequest, *BOTH, required=False))
async def logout(
    body: Annotated[LogoutRequest, Depends(body_of(LogoutRequest, *BOTH))],
    services: Services,
    client: Client,
    access_token: BearerToken,
) -> EndAnswer:
    """End this session, known by its access token, or by any of its refresh tokens when that has expired."""
    try:
        caller = await services.authentication.identify(access_token)
        session_id, ended = caller.session_id, await services.sessions.log_out(caller, client=client)
    except AccessTokenRejected:
        if body.refresh_token is None:
            raise
        session_id, ended = await services.sessions.log_out_with_refresh_token(body.refresh_token, client=client)
    return EndAnswer(message="Logged out successfully", session_id=session_id, ended=ended)
