"""What routes ask for. Each route names `anyone` or `signed_in`: who may call it is never left open."""

import re
from typing import Annotated, Final

from fastapi import Depends, Query, Request
from fastapi.security import OAuth2PasswordBearer

from app.container import Container
from app.domain.clients import ClientContext
from app.domain.errors import AccessTokenRejected, InputInvalid
from app.domain.pages import Position, read_cursor
from app.http.clients import client_context
from app.services.authentication import Caller

PAGE_LIMIT: Final = 100
_IDEMPOTENCY_KEY: Final = re.compile(r"[\x21-\x7E]{22,255}", re.ASCII)

# Only shows the sign-in form in the API docs; `bearer_token` reads the header.
_documented = OAuth2PasswordBearer(tokenUrl="token", auto_error=False)


async def container(request: Request) -> Container:
    found: Container = request.app.state.container
    return found


async def anyone() -> None:
    """Declares a public route."""


async def bearer_token(request: Request) -> str | None:
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


async def signed_in(
    services: Annotated[Container, Depends(container)],
    token: Annotated[str | None, Depends(bearer_token)],
    _: Annotated[str | None, Depends(_documented)],
) -> Caller:
    """Declares a route for signed-in users, and finds out who it is."""
    return await services.authentication.authenticate(token)


async def idempotency_key(request: Request) -> str | None:
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


Services = Annotated[Container, Depends(container)]
Client = Annotated[ClientContext, Depends(client_context)]
SignedIn = Annotated[Caller, Depends(signed_in)]
BearerToken = Annotated[str | None, Depends(bearer_token)]
IdempotencyKey = Annotated[str | None, Depends(idempotency_key)]
After = Annotated[Position | None, Depends(page_position)]
Limit = Annotated[int, Query(ge=1, le=PAGE_LIMIT)]
