"""Sign-in of first-party apps: register, log in, refresh, log out."""

from fastapi import APIRouter, Request, Response, status

from app.api.browsers import (
    CLEAR_SITE_DATA,
    device_cookie,
    in_body,
    in_cookies,
    named_session_agrees,
    refresh_cookie,
    refuse_foreign_sign_in,
    token_to_spend,
)
from app.api.dependencies import Access, bearer_token, idempotency_key, services, stated
from app.api.schemas import (
    EndAnswer,
    LogoutRequest,
    Place,
    RefreshRequest,
    RegisterRequest,
    SignInAnswer,
    TokenAnswer,
    TokenRequest,
    UserAnswer,
)
from app.domain.errors import (
    AccessTokenRejected,
    CredentialsDisagree,
    InputInvalid,
    InvalidCredentials,
    InvalidScope,
    PasswordChangeRequired,
    PasswordRefused,
    RefreshTokenRejected,
    RegistrationClosed,
    TooBusy,
    TooManyAttempts,
    UnsupportedGrantType,
    UsernameRefused,
    UsernameTaken,
)
from app.http import cookies
from app.http.bodies import Kind, read_body
from app.http.clients import client_context
from app.http.errors import CookieMalformed, CrossSiteRequest
from app.services.opening import Terms
from app.services.tokens import IssuedTokens

router = APIRouter(tags=["sign-in"])

BOTH = (Kind.FORM, Kind.JSON)
OF_COOKIES = (CredentialsDisagree, CookieMalformed, CrossSiteRequest)
SIGN_IN = (
    InvalidCredentials,
    PasswordChangeRequired,
    TooManyAttempts,
    TooBusy,
    RefreshTokenRejected,
    *OF_COOKIES,
    InvalidScope,
    UnsupportedGrantType,
)


@router.post(
    "/refresh",
    response_model=TokenAnswer,
    openapi_extra=stated(
        Access.ANYONE, RefreshRequest, *BOTH, required=False, refuses=(RefreshTokenRejected, *OF_COOKIES)
    ),
)
async def refresh(request: Request) -> TokenAnswer | Response:
    """
    Spend a refresh token for a new pair: the body's, or the one in a browser's cookie, which gets the new one too.

    The token just spent may be presented again for some seconds, or for an hour by a request with the same
    `Idempotency-Key`, and gets the same successor. Any other spent token ends the session. After a 503 or a lost
    answer, present the same token again.
    """
    cookie = refresh_cookie(request)
    body = await read_body(request, RefreshRequest, *BOTH)
    issued = await _spend(request, token_to_spend(request, cookie, body.refresh_token))
    return TokenAnswer.of(issued) if cookie is None else in_cookies(request, issued)


@router.post(
    "/token",
    response_model=SignInAnswer,
    response_model_exclude_none=True,
    openapi_extra=stated(Access.ANYONE, TokenRequest, Kind.FORM, refuses=SIGN_IN),
)
async def token(request: Request) -> SignInAnswer | Response:
    """
    Sign in with a password, or refresh with `grant_type=refresh_token` (see `/refresh`).

    With `refresh_token_in=cookie` the refresh token comes in a cookie and not in the answer. The session of a cookie
    that a sign-in brings along ends with it. A scope that is asked for at sign-in is not granted; the answer says what
    was (RFC 6749 section 3.3). With the `device_token` of an earlier sign-in, in the form or in its cookie, other
    people's failures on your name do not keep you out. After too many failures: 429, and `Retry-After` says for how
    long.
    """
    cookie = refresh_cookie(request)
    body = await read_body(request, TokenRequest, Kind.FORM)
    if body.refresh_token_in is Place.COOKIE:
        refuse_foreign_sign_in(request)
    if body.grant_type == "password":
        issued = await _sign_in(request, body, cookie)
        brought = False
    elif body.grant_type == "refresh_token":
        presented = token_to_spend(request, cookie, body.refresh_token)
        if body.scope and presented is not None:
            raise InvalidScope  # no session has any yet, so this would be more than was granted (RFC 6749 section 6)
        issued = await _spend(request, presented)
        brought = cookie is not None
    else:
        raise UnsupportedGrantType
    if brought or body.refresh_token_in is Place.COOKIE:
        return in_cookies(request, issued)  # what came in a cookie is never shown to scripts
    return SignInAnswer.of(issued) if cookie is None else in_body(issued)


@router.post(
    "/logout",
    openapi_extra=stated(
        Access.ANYONE,
        LogoutRequest,
        *BOTH,
        required=False,
        optionally=Access.SIGNED_IN,
        refuses=(AccessTokenRejected, RefreshTokenRejected, *OF_COOKIES),
    ),
)
async def logout(request: Request, response: Response) -> EndAnswer:
    """
    End this session, known by its access token, or by any of its refresh tokens when that has expired: in the body, or
    in a browser's cookie.
    """
    cookie = refresh_cookie(request)
    body = await read_body(request, LogoutRequest, *BOTH)
    if cookie is not None:
        named_session_agrees(request, cookie, body.refresh_token)
    presented = body.refresh_token or cookie
    client = client_context(request)
    try:
        caller = await services(request).authentication.identify(bearer_token(request))
        session_id, ended = (
            caller.session_id,
            await services(request).sessions.log_out(caller, refresh_token=body.refresh_token, client=client),
        )
    except AccessTokenRejected:
        if presented is None:
            raise
        session_id, ended = await services(request).sessions.log_out_with_refresh_token(presented, client=client)
    response.headers.update(CLEAR_SITE_DATA)
    if cookie is not None:
        response.headers.append("set-cookie", cookies.clearing(cookies.REFRESH))
    return EndAnswer(message="Logged out successfully", session_id=session_id, ended=ended)


@router.post(
    "/register",
    status_code=status.HTTP_201_CREATED,
    openapi_extra=stated(
        Access.ANYONE,
        RegisterRequest,
        Kind.JSON,
        refuses=(RegistrationClosed, UsernameTaken, UsernameRefused, PasswordRefused, TooManyAttempts, TooBusy),
    ),
)
async def register(request: Request) -> UserAnswer:
    """
    Make an account, where registration is open.

    A password that may not be set is 422 with a `reason`, such as `too_short` or `common`.
    """
    body = await read_body(request, RegisterRequest, Kind.JSON)
    user = await services(request).users.register(body.username, body.password, client=client_context(request))
    return UserAnswer.of(user)


async def _sign_in(request: Request, body: TokenRequest, cookie: str | None) -> IssuedTokens:
    """A session for the password; the one of the browser's cookie ends in the same transaction (ASVS 7.2.4)."""
    if body.username is None or body.password is None:
        raise InputInvalid("username and password are needed.")
    device = device_cookie(request)
    replaces = None if cookie is None else await services(request).sessions.find_proven(cookie)
    return await services(request).sign_in.with_password(
        body.username,
        body.password,
        client=client_context(request),
        terms=Terms(replaces=replaces),
        device_tokens=[token for token in (body.device_token, device) if token],
    )


async def _spend(request: Request, presented: str | None) -> IssuedTokens:
    if presented is None:
        raise InputInvalid("refresh_token is needed.", field="refresh_token")
    return await services(request).refresh.rotate(
        presented, idempotency_key=idempotency_key(request), client=client_context(request)
    )
