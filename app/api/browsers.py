"""
What browsers bring and take in cookies.

Only `/token`, `/refresh` and `/logout` look at cookies. Nothing is done for a request without any but a look at its
headers: most refreshes are not a browser's.
"""

from typing import Final

from fastapi import Request
from fastapi.responses import JSONResponse

from app.api.dependencies import bearer_token, services
from app.api.schemas import SignInAnswer, TokenAnswer
from app.domain.device_token import join
from app.domain.errors import AccessTokenRejected, CredentialsDisagree
from app.http import cookies
from app.http.csrf import Origins, refuse_cross_site
from app.services.tokens import IssuedTokens

# Not "cookies": that would take those of all applications of the site, and the device cookie, which is to outlive the
# session: by it a device is known whose owner somebody else is guessing at. Our own cookie is cleared by name.
CLEAR_SITE_DATA: Final = {"Clear-Site-Data": '"cache", "storage"'}

_IN_COOKIES: Final = {"refresh_token"}  # and the device's token, which is not of this answer


def refresh_cookie(request: Request) -> str | None:
    """
    The refresh token that the request carries in our cookie.

    Raises:
        CrossSiteRequest: a page has sent it that may not.
        CookieMalformed: the cookie cannot be read.
    """
    pairs = cookies.find_pairs(request, cookies.REFRESH)
    if not pairs:
        return None
    refuse_cross_site(request, Origins.of(services(request).settings), by_cookie=True)
    return cookies.read_refresh_token(request, pairs)


def device_cookie(request: Request) -> str | None:
    """
    The device token that the request carries in our cookie.

    Raises:
        As `refresh_cookie`.
    """
    pairs = cookies.find_pairs(request, cookies.DEVICE)
    if not pairs:
        return None
    refuse_cross_site(request, Origins.of(services(request).settings), by_cookie=True)
    return cookies.read_device_tokens(pairs)


def refuse_foreign_sign_in(request: Request) -> None:
    """
    Whoever may have cookies set must be a page of ours or a listed one: another could sign its visitor in as somebody
    else, who would then see what the visitor does.

    Raises:
        CrossSiteRequest: the browser says that it is not.
    """
    refuse_cross_site(request, Origins.of(services(request).settings), by_cookie=False)


def named_session_agrees(request: Request, cookie: str, refresh_token: str | None) -> None:
    """
    See that an access token and a refresh token beside the cookie are of the cookie's session.

    The access token may be expired: two people who use one browser by turns have each their own page open, and its
    token tells that the cookie is the other's by now.

    Raises:
        CredentialsDisagree: one of them is not, or there are several of a kind; nothing was done.
    """
    if len(request.headers.getlist("authorization")) > 1:
        raise CredentialsDisagree(why="authorization twice")
    try:
        bearer = bearer_token(request)
    except AccessTokenRejected:  # of another scheme: a proxy's before us perhaps
        bearer = None
    session_id = services(request).authentication.session_of(bearer)
    services(request).sessions.check_agreement(cookie, session_id=session_id, refresh_token=refresh_token)


def token_to_spend(request: Request, cookie: str | None, refresh_token: str | None) -> str | None:
    """
    The one refresh token that the request wants to spend, if any.

    Raises:
        CredentialsDisagree: the body has another than the cookie, be it of the same session.
    """
    if cookie is None:
        return refresh_token
    if refresh_token not in {None, cookie}:
        raise CredentialsDisagree(why="refresh token")
    named_session_agrees(request, cookie, refresh_token)
    return cookie


def in_cookies(request: Request, issued: IssuedTokens) -> JSONResponse:
    """
    The pair with its refresh token, and the device's token if there is one, in cookies and not in the body.

    Other people who have signed in with the browser stay known to it.
    """
    answer = JSONResponse(TokenAnswer.of(issued).model_dump(mode="json", exclude=_IN_COOKIES))
    refresh = cookies.set_cookie(cookies.REFRESH, issued.refresh_token, seconds=issued.refresh_expires_in)
    answer.headers.append("set-cookie", refresh)
    if issued.device_token is not None:
        devices = join(issued.device_token, device_cookie(request) or "")
        device = cookies.set_cookie(cookies.DEVICE, devices, seconds=cookies.DEVICE_SECONDS)
        answer.headers.append("set-cookie", device)
    return answer


def in_body(issued: IssuedTokens) -> JSONResponse:
    """The pair in the body, where the request brought the cookie of a session that this one has replaced."""
    answer = JSONResponse(SignInAnswer.of(issued).model_dump(mode="json", exclude_none=True))
    answer.headers.append("set-cookie", cookies.clearing(cookies.REFRESH))
    return answer
