"""
From error to answer: the one table, and problem documents (RFC 9457).

No answer repeats input: FastAPI's own 422 would send a password back to whoever mistyped the field beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Match

from app.domain import errors
from app.http import oauth_errors
from app.observability.logs import get_logger

log = get_logger()

MEDIA_TYPE: Final = "application/problem+json"
CLEARING: Final = "rota.clearing"  # in a request's scope: the Set-Cookie that takes away the refresh token it brought


@dataclass(frozen=True, slots=True)
class Answer:
    """
    How an error is answered.

    Args:
        oauth: The `error` of RFC 6749 section 5.2 or RFC 6750 section 3.1, where the error has one.
        challenge: Whether `WWW-Authenticate` goes with it (RFC 6750 section 3).
    """

    status: HTTPStatus
    oauth: str | None = None
    challenge: bool = False


ANSWERS: Final[dict[type[errors.RotaError], Answer]] = {
    errors.RotaError: Answer(HTTPStatus.INTERNAL_SERVER_ERROR),
    errors.InputInvalid: Answer(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request"),
    errors.UsernameRefused: Answer(HTTPStatus.UNPROCESSABLE_ENTITY),
    errors.PasswordRefused: Answer(HTTPStatus.UNPROCESSABLE_ENTITY),
    errors.UsernameTaken: Answer(HTTPStatus.CONFLICT),
    errors.UnsupportedGrantType: Answer(HTTPStatus.BAD_REQUEST, "unsupported_grant_type"),
    errors.InvalidScope: Answer(HTTPStatus.BAD_REQUEST, "invalid_scope"),
    errors.InvalidCredentials: Answer(HTTPStatus.UNAUTHORIZED, "invalid_grant", challenge=True),
    errors.TooManyAttempts: Answer(HTTPStatus.TOO_MANY_REQUESTS),
    errors.RefreshTokenRejected: Answer(HTTPStatus.UNAUTHORIZED, "invalid_grant", challenge=True),
    errors.CredentialsDisagree: Answer(HTTPStatus.BAD_REQUEST, "invalid_request"),
    errors.AccessTokenRejected: Answer(HTTPStatus.UNAUTHORIZED, "invalid_token", challenge=True),
    errors.OperatorTokenRejected: Answer(HTTPStatus.UNAUTHORIZED, "invalid_token", challenge=True),
    errors.NotPermitted: Answer(HTTPStatus.FORBIDDEN),
    errors.SessionNotFound: Answer(HTTPStatus.NOT_FOUND),
    errors.UserNotFound: Answer(HTTPStatus.NOT_FOUND),
    errors.RevocationNotFound: Answer(HTTPStatus.NOT_FOUND),
    errors.FingerprintRefused: Answer(HTTPStatus.CONFLICT),
    errors.FingerprintExpired: Answer(HTTPStatus.CONFLICT),
    errors.UserDeleted: Answer(HTTPStatus.CONFLICT),
    errors.ImportRunning: Answer(HTTPStatus.CONFLICT),
    errors.ImportAltered: Answer(HTTPStatus.CONFLICT),
    errors.LastAdministrator: Answer(HTTPStatus.CONFLICT),
    errors.OwnAccount: Answer(HTTPStatus.CONFLICT),
    errors.PasswordTokenRejected: Answer(HTTPStatus.UNAUTHORIZED, "invalid_grant", challenge=True),
    errors.PasswordChangeRequired: Answer(HTTPStatus.FORBIDDEN),
    errors.OneTimePasswordElsewhere: Answer(HTTPStatus.BAD_REQUEST, "invalid_grant"),
    errors.ClientRejected: Answer(HTTPStatus.UNAUTHORIZED, "invalid_client", challenge=True),
    errors.ClientNotPermitted: Answer(HTTPStatus.FORBIDDEN, "insufficient_scope", challenge=True),
    errors.GrantNotPermitted: Answer(HTTPStatus.BAD_REQUEST, "unauthorized_client"),
    errors.TokenOfAnotherClient: Answer(HTTPStatus.BAD_REQUEST, "invalid_grant"),
    errors.UnsupportedTokenType: Answer(HTTPStatus.BAD_REQUEST, "unsupported_token_type"),
    errors.ClientNotFound: Answer(HTTPStatus.NOT_FOUND),
    errors.ClientIdTaken: Answer(HTTPStatus.CONFLICT),
    errors.ClientHasNoSecrets: Answer(HTTPStatus.CONFLICT),
    errors.UserDisabled: Answer(HTTPStatus.CONFLICT),
    errors.EventNotFound: Answer(HTTPStatus.NOT_FOUND),
    errors.EventNotSealed: Answer(HTTPStatus.CONFLICT),
    errors.FeedCursorGone: Answer(HTTPStatus.GONE),
    errors.TooManyStreams: Answer(HTTPStatus.TOO_MANY_REQUESTS),
    # Never an OAuth error: clients throw their tokens away on invalid_grant.
    errors.Unavailable: Answer(HTTPStatus.SERVICE_UNAVAILABLE),
}


class BodyInvalid(errors.InputInvalid):
    """A body whose members are wrong; `findings` says which, as `validation_findings` makes them."""

    def __init__(self, findings: list[dict[str, Any]]) -> None:
        self.findings = findings
        super().__init__()


class UnsupportedMediaType(errors.InputInvalid):
    """A body of a kind that the route does not take."""

    code = "unsupported_media_type"


class BodyTooLarge(errors.InputInvalid):
    """More than any of our requests needs."""

    code = "body_too_large"
    message = "The body is too large."


class BodyTooSlow(errors.InputInvalid):
    """It did not arrive in time."""

    code = "body_too_slow"
    message = "The body did not arrive in time."


class CookieMalformed(errors.InputInvalid):
    """A cookie under one of our names that cannot be read. The answer takes it away (`clearing`), or it would stay."""

    code = "cookie_malformed"
    message = "A cookie of this service could not be read, and has been removed; please try again."

    def __init__(self, *, clearing: str, why: str) -> None:
        self.clearing = clearing
        super().__init__(why=why)


class CrossSiteRequest(errors.NotPermitted):
    """A browser sends it for a page that may not ask this."""

    code = "cross_site_request"
    message = (
        "This was not sent by a page of this service or of an origin that it allows. A program that keeps cookies says "
        "where it speaks from by an Origin header."
    )


ANSWERS[CookieMalformed] = Answer(HTTPStatus.BAD_REQUEST, "invalid_request")


class CredentialInUrl(errors.InputInvalid):
    """A URL that holds a token, or a parameter that is named like one."""

    code = "credential_in_url"
    message = (
        "A credential must not stand in a URL, where logs and histories keep it. Send it in the body or in the "
        "Authorization header; take this one for known, and replace it."
    )


ANSWERS[CredentialInUrl] = Answer(HTTPStatus.BAD_REQUEST, "invalid_request")


class UriTooLong(errors.InputInvalid):
    """Answered by the protocol, before there is a request."""

    code = "request_uri_too_long"
    message = "Request-URI Too Long."


class PathNotFound(errors.RotaError):
    """A path that a route could have and has not, here; or that others may have read as another one."""

    code = "not_found"
    message = "Not Found."


ANSWERS[UriTooLong] = Answer(HTTPStatus.REQUEST_URI_TOO_LONG)
ANSWERS[PathNotFound] = Answer(HTTPStatus.NOT_FOUND)
ANSWERS[BodyTooSlow] = Answer(HTTPStatus.REQUEST_TIMEOUT, "invalid_request")
ANSWERS[BodyTooLarge] = Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "invalid_request")
ANSWERS[UnsupportedMediaType] = Answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "invalid_request")


def problem(
    request_id: object,
    status: int,
    code: str,
    detail: str,
    headers: dict[str, str] | None = None,
    **more: Any,
) -> JSONResponse:
    """A problem document; `more` are its extension members."""
    content = {
        "type": f"urn:rota:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": int(status),
        "detail": detail,
        "code": code,
        "request_id": str(request_id),
        **more,
    }
    return JSONResponse(content, status, headers, media_type=MEDIA_TYPE)


def validation_findings(found: Sequence[Any]) -> list[dict[str, Any]]:
    """Where and what, never the value. The name of an unknown member is the sender's text too, so it is left out."""
    return [
        {
            "loc": list(error["loc"][:-1] if error["type"] == "extra_forbidden" else error["loc"]),
            "type": error["type"],
            "msg": _words(error["type"], error["msg"]),
        }
        for error in found
    ]


def _words(kind: str, message: str) -> str:
    """What is wrong. Parsers quote what they stumble over, so of them only the kind is said."""
    return f"cannot be read as {kind.removesuffix('_parsing')}" if kind.endswith("_parsing") else message


def answer_for(kind: type[errors.RotaError]) -> Answer:
    return next(ANSWERS[each] for each in kind.__mro__ if each in ANSWERS)


def install_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(errors.RotaError, _on_rota_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


async def _on_rota_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.RotaError)  # noqa: S101 - by registration
    return await answer_rota_error(request, error)


async def answer_rota_error(request: Request, error: errors.RotaError) -> JSONResponse:
    answer = answer_for(type(error))
    more: dict[str, Any] = {}
    headers: dict[str, str] = {}
    if answer.oauth:
        more = {"error": answer.oauth, "error_description": error.message}
    if answer.challenge:
        # RFC 6750 section 3.1 has no word for wrong credentials; a bare challenge is what remains.
        named = f', error="{answer.oauth}"' if answer.oauth in {"invalid_token", "insufficient_scope"} else ""
        scheme = "Basic" if isinstance(error, errors.ClientRejected) else "Bearer"
        headers["WWW-Authenticate"] = f'{scheme} realm="rota"{named}'
    if isinstance(error, errors.Unavailable | errors.TooManyStreams | errors.TooManyAttempts):
        headers["Retry-After"] = str(error.retry_after_seconds)
    if (clearing := _clearing(request, error)) is not None:
        headers["Set-Cookie"] = clearing
    if isinstance(error, BodyInvalid):
        more["errors"] = error.findings
    elif isinstance(error, errors.InputInvalid) and error.field is not None:
        place = ["query"] if request.method == "GET" else []
        more["errors"] = [{"loc": [*place, error.field], "type": "value_error", "msg": error.message}]
    if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.warning("request.failed", code=error.code, why=error.why)
    if request.scope["path"].startswith(oauth_errors.PATHS):
        return oauth_errors.oauth_error(error, answer.status, answer.oauth, headers, more.get("errors", []))
    more |= _members(error)
    return problem(request.state.request_id, answer.status, error.code, error.message, headers, **more)


def _members(error: errors.RotaError) -> dict[str, Any]:
    """What some errors say besides."""
    if isinstance(error, errors.PasswordChangeRequired):
        return {"password_token": error.token, "expires_in": error.expires_in}
    return {"reason": error.reason} if isinstance(error, errors.PasswordRefused) else {}


def _clearing(request: Request, error: errors.RotaError) -> str | None:
    """A cookie is of no use any more when it was refused for good; never because we could not decide."""
    if isinstance(error, CookieMalformed):
        return error.clearing
    brought: str | None = request.scope.get(CLEARING)
    return brought if isinstance(error, errors.RefreshTokenRejected) else None


async def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - by registration
    return await _on_rota_error(request, BodyInvalid(validation_findings(error.errors())))


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    """The framework's own refusals: no such path, wrong method, body too large."""
    assert isinstance(error, HTTPException)  # noqa: S101 - by registration
    status = HTTPStatus(error.status_code)
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = _methods(request)
        error.headers = {"Allow": ", ".join(sorted(allowed))} if allowed else error.headers
    if request.scope["path"].startswith(oauth_errors.PATHS):
        return oauth_errors.answer(status, "invalid_request", f"{status.phrase}.", dict(error.headers or {}))
    code = status.name.lower()
    return problem(request.state.request_id, status, code, f"{status.phrase}.", dict(error.headers or {}))


def _methods(request: Request) -> set[str]:
    """What the path is there for (RFC 9110 section 10.2.1): each method is a route, and the framework says one's."""
    routes = [route for route in request.app.routes if isinstance(route, APIRoute)]
    words = [route for route in routes if route.path == request.scope["path"]]
    found = words or [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return {method for route in found for method in route.methods or ()}
