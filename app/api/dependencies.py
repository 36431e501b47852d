"""
What routes ask for.

What guards a route is a FastAPI dependency (`SignedIn`), so that it also shows in the API docs. What a route merely
reads of its request is a plain function: a dependency costs some 40 µs each, and a refresh has 1 ms in all.
"""

import hmac
import re
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Any, Final

from fastapi import Depends, Query, Request
from fastapi.security import OAuth2PasswordBearer

from app.api.parameters import refuse_other_parameters
from app.container import Container
from app.domain.errors import AccessTokenRejected, InputInvalid, NotPermitted, OperatorTokenRejected, RotaError
from app.domain.pages import Position, read_cursor
from app.domain.users import Role
from app.http.bodies import Body, Kind, body_documentation
from app.services.authentication import Caller

PAGE_LIMIT: Final = 100
_IDEMPOTENCY_KEY: Final = re.compile(r"[\x21-\x7E]{22,255}", re.ASCII)

# Only shows the sign-in form in the API docs; `bearer_token` reads the header.
_documented = OAuth2PasswordBearer(tokenUrl="token", auto_error=False)


class Access(StrEnum):
    """Who may call a route. Every route says it, in the API docs too."""

    ANYONE = "anyone"
    SIGNED_IN = "signed in"
    AUDITOR = "auditor"  # and administrators
    ADMIN = "administrator"
    OPERATOR = "operator"  # with ROTA_OPERATOR_TOKEN; where that is not set, nobody
    CLIENT = "API client"  # with the scope that the route's guard names


def stated(
    access: Access,
    body: type[Body] | None = None,
    *kinds: Kind,
    required: bool = True,
    optionally: Access | None = None,
    refuses: tuple[type[RotaError], ...] = (),
) -> dict[str, Any]:
    """
    `openapi_extra` of a route: who may call it, what body it reads, and what it may refuse.

    Args:
        optionally: Where anyone may call it: whose credential makes a difference.
        refuses: What does not follow from the rest; see `app/api/openapi.py`.
    """
    documented = body_documentation(body, *kinds, required=required) if body else {}
    if optionally:
        documented["x-access-optional"] = optionally.value
    return {"x-access": access.value, "x-refuses": [kind.__name__ for kind in refuses], **documented}


def services(request: Request) -> Container:
    found: Container = request.app.state.container
    return found


def bearer_token(request: Request) -> str | None:
    """
    The access token of the request, if it carries one.

    Raises:
        AccessTokenRejected: several `Authorization` headers, or one of another scheme (RFC 6750 section 2.1).
    """
    given = request.headers.getlist("authorization")
    if not given:
        return None
    scheme, _, token = given[0].partition(" ")
    if len(given) > 1 or scheme.lower() != "bearer":
        raise AccessTokenRejected(why="authorization header")
    return token.strip(" ")


def is_operator(request: Request) -> bool:
    """Whether the request carries the operator's token. Where none is set, nobody does."""
    wanted = services(request).settings.operator_token.get_secret_value()
    try:
        given = bearer_token(request)
    except AccessTokenRejected:
        return False
    # Of the digests, so that not even the length shows in the time it takes.
    presented, expected = (sha256((text or "").encode()).digest() for text in (given, wanted))
    return bool(wanted) and hmac.compare_digest(presented, expected)


async def operating(request: Request, _: Annotated[str | None, Depends(_documented)]) -> None:
    """Lets the operator pass, who runs the server and has no account in it."""
    if not is_operator(request):
        raise OperatorTokenRejected


async def signed_in(request: Request, _: Annotated[str | None, Depends(_documented)]) -> Caller:
    """Lets a request pass whose access token is of a live session, and says whose."""
    return await services(request).authentication.authenticate(bearer_token(request))


async def auditing(request: Request, caller: Annotated[Caller, Depends(signed_in)]) -> Caller:
    """Lets those pass who may read everybody's trail, if they ask only what the route knows."""
    if caller.role not in {Role.AUDITOR, Role.ADMIN}:
        raise NotPermitted
    refuse_other_parameters(request)
    return caller


async def administering(request: Request, caller: Annotated[Caller, Depends(signed_in)]) -> Caller:
    """Lets those pass who may act on everybody's accounts and sessions, likewise."""
    if caller.role is not Role.ADMIN:
        raise NotPermitted
    refuse_other_parameters(request)
    return caller


def idempotency_key(request: Request) -> str | None:
    """
    The `Idempotency-Key` header: 22 to 255 visible ASCII characters, so that it can hold 128 random bits.

    Raises:
        InputInvalid: any other text, or the header twice.
    """
    given = request.headers.getlist("idempotency-key")
    if not given:
        return None
    if len(given) > 1 or not _IDEMPOTENCY_KEY.fullmatch(given[0]):
        raise InputInvalid("Idempotency-Key must stand once and have 22 to 255 visible ASCII characters.")
    return given[0]


async def page_position(after: Annotated[str | None, Query(max_length=200)] = None) -> Position | None:
    """The cursor of a page, as the page before it gave it."""
    return read_cursor(after) if after is not None else None


SignedIn = Annotated[Caller, Depends(signed_in)]
Auditing = Annotated[Caller, Depends(auditing)]
Administering = Annotated[Caller, Depends(administering)]
After = Annotated[Position | None, Depends(page_position)]
Limit = Annotated[int, Query(ge=1, le=PAGE_LIMIT)]
