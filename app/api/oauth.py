"""The standard surface: RFC 6749 (token), RFC 7009 (revocation), RFC 7662 (introspection)."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from app.api.client_auth import AnyClient, client_with
from app.api.client_schemas import GrantAnswer, GrantRequest, IntrospectionAnswer, PresentedRequest
from app.api.dependencies import Access, idempotency_key, services, stated
from app.domain.api_clients import ApiClient, ClientGrant, ClientScope
from app.domain.errors import (
    GrantNotPermitted,
    InputInvalid,
    InvalidCredentials,
    InvalidScope,
    OneTimePasswordElsewhere,
    RefreshTokenRejected,
    TokenOfAnotherClient,
    TooBusy,
    UnsupportedGrantType,
    UnsupportedTokenType,
)
from app.http.bodies import Kind, read_form_as
from app.http.clients import client_context
from app.http.oauth_errors import NOT_KEPT
from app.services.tokens import IssuedTokens

router = APIRouter(prefix="/oauth2", tags=["standards"])

REFUSED = (
    GrantNotPermitted,
    UnsupportedGrantType,
    InvalidScope,
    InvalidCredentials,
    OneTimePasswordElsewhere,
    RefreshTokenRejected,
    TooBusy,
)
Introspecting = Annotated[ApiClient, Depends(client_with(ClientScope.INTROSPECT))]


@router.post(
    "/token",
    openapi_extra=stated(Access.CLIENT, GrantRequest, Kind.FORM, refuses=REFUSED),
    response_model=GrantAnswer,
    response_model_exclude_unset=True,
)
async def grant_token(request: Request, api_client: AnyClient) -> JSONResponse:
    """
    Tokens for a grant (RFC 6749): `password` for first-party clients that may, `refresh_token`, `client_credentials`.

    A refresh token is bound to the client of its session. `scope` narrows the new access token; the session keeps its
    own. An `Idempotency-Key` works as at `/refresh`.
    """
    form = await read_form_as(request, GrantRequest)
    oauth, client = services(request).oauth, client_context(request)
    match form.grant_type:
        case None:
            raise InputInvalid("grant_type is needed.")
        case ClientGrant.PASSWORD:
            if form.username is None or form.password is None:
                raise InputInvalid("username and password are needed.")
            issued = await oauth.sign_in(
                api_client, form.username, form.password, form.scope, client=client, device_token=form.device_token
            )
        case ClientGrant.REFRESH_TOKEN:
            if form.refresh_token is None:
                raise InputInvalid("refresh_token is needed.")
            issued = await oauth.rotate(
                api_client, form.refresh_token, form.scope, idempotency_key=idempotency_key(request), client=client
            )
        case ClientGrant.CLIENT_CREDENTIALS:
            token, lifetime, scope = await oauth.client_token(api_client, form.scope)
            return _tokens(access_token=token, token_type="Bearer", expires_in=lifetime, scope=scope)  # noqa: S106 - a scheme
        case _:
            raise UnsupportedGrantType("The grant type must be password, refresh_token or client_credentials.")
    return _pair(issued)


@router.post(
    "/revoke",
    openapi_extra=stated(
        Access.CLIENT, PresentedRequest, Kind.FORM, refuses=(TokenOfAnotherClient, UnsupportedTokenType)
    ),
    response_class=Response,
)
async def revoke_token(request: Request, api_client: AnyClient) -> Response:
    """
    End the session of an access or refresh token (RFC 7009). A token that is none, or dead, is a 200 likewise.

    A client ends its own sessions; with the scope `revoke` also those of our own sign-in routes.
    """
    form = await read_form_as(request, PresentedRequest)
    await services(request).oauth.revoke(_needed(form.token), api_client, client=client_context(request))
    return Response(headers=NOT_KEPT)


@router.post(
    "/introspect",
    openapi_extra=stated(Access.CLIENT, PresentedRequest, Kind.FORM),
    response_model=IntrospectionAnswer,
)
async def introspect_token(request: Request, _: Introspecting) -> JSONResponse:
    """Whether an access or refresh token is live, and what it says (RFC 7662). Needs the scope `introspect`."""
    form = await read_form_as(request, PresentedRequest)
    return JSONResponse(await services(request).oauth.introspect(_needed(form.token)), headers=NOT_KEPT)


def _needed(token: str | None) -> str:
    if token is None:
        raise InputInvalid("token is needed.")
    return token


def _pair(issued: IssuedTokens) -> JSONResponse:
    return _tokens(
        access_token=issued.access_token,
        token_type="Bearer",  # noqa: S106 - a scheme
        expires_in=issued.expires_in,
        refresh_token=issued.refresh_token,
        refresh_expires_in=issued.refresh_expires_in,
        session_id=str(issued.session_id),
        scope=issued.scope,
        device_token=issued.device_token or "",
    )


def _tokens(**members: str | int) -> JSONResponse:
    """RFC 6749 section 5.1. What is empty is left out: an empty scope has no spelling (section 3.3)."""
    return JSONResponse({name: value for name, value in members.items() if value != ""}, headers=NOT_KEPT)
