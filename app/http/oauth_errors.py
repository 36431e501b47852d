"""Errors of `/oauth2/*`, to the letter of RFC 6749 section 5.2: plain JSON, 400 unless the client itself is refused."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi.responses import JSONResponse

from app.domain import errors

PATHS: Final = "/oauth2/"
NOT_KEPT: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}  # RFC 6749 section 5.1

# By code, whatever the same error is elsewhere: nothing the user can send makes this grant good.
_INVALID_GRANT: Final = frozenset({"invalid_credentials", "refresh_token_rejected"})
_KEPT: Final = frozenset(
    {
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    }
)
_NOT_ALLOWED: Final = re.compile(r"[^\x20\x21\x23-\x5B\x5D-\x7E]")  # in error_description


def as_oauth(kind: type[errors.RotaError], status: HTTPStatus, name: str | None) -> tuple[HTTPStatus, str]:
    """
    Status and `error` of an error here.

    Args:
        status, name: As the table of answers has them for the rest of the API.
    """
    if kind.code in _INVALID_GRANT:
        return HTTPStatus.BAD_REQUEST, "invalid_grant"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status is HTTPStatus.TOO_MANY_REQUESTS:
        # No error of RFC 6749: clients throw their tokens away on invalid_grant, and here no grant was looked at.
        named = issubclass(kind, errors.Unavailable) or status is HTTPStatus.TOO_MANY_REQUESTS
        return status, kind.code if named else "server_error"
    return status if status in _KEPT else HTTPStatus.BAD_REQUEST, name or "invalid_request"


def oauth_error(
    error: errors.RotaError,
    status: HTTPStatus,
    name: str | None,
    headers: dict[str, str],
    findings: Sequence[Mapping[str, Any]] = (),
) -> JSONResponse:
    """
    The answer to an error; arguments as of `as_oauth`.

    Args:
        findings: Which fields are wrong, and in what.
    """
    wrong = [f"{each['loc'][-1]}: {each['msg']}" if each["loc"] else each["msg"] for each in findings]
    if error.code in _INVALID_GRANT:
        headers.pop("WWW-Authenticate", None)
    return answer(*as_oauth(type(error), status, name), ". ".join(wrong) or error.message, headers)


def answer(status: int, name: str, description: str, headers: dict[str, str]) -> JSONResponse:
    content = {"error": name, "error_description": _NOT_ALLOWED.sub("'", description)}
    return JSONResponse(content, status, {**headers, **NOT_KEPT})
