"""
Which API client calls, as RFC 6749 section 2.3 lets it say so.

A secret comes by HTTP Basic or in the form, never by both; a client may instead show an access token that it got by
the client credentials grant (RFC 6750).
"""

import base64
import binascii
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Final, NoReturn
from urllib.parse import unquote_plus

from fastapi import Depends, Request
from fastapi.openapi.models import HTTPBase
from fastapi.openapi.models import SecurityBase as SecurityModel
from fastapi.security.base import SecurityBase

from app.api.dependencies import bearer_token, services
from app.domain.api_clients import ApiClient, ClientScope
from app.domain.errors import ClientNotPermitted, ClientRejected, InputInvalid
from app.http.bodies import is_form, read_form

_BOTH: Final = "Only one method of client authentication may be used in a request."


@dataclass(frozen=True, slots=True)
class _Named:
    """How a client names itself."""

    client_id: str
    secret: str | None


class _Guard(SecurityBase):
    """Shows in the API docs how a client authenticates; a dependency more for that would cost each request 20 µs."""

    model: SecurityModel = HTTPBase(scheme="basic")
    scheme_name = "APIClient"


class AnyClientGuard(_Guard):
    """Lets those pass that authenticate with a secret, or are a public client, which has none."""

    async def __call__(self, request: Request) -> ApiClient:
        return await _by_secret(request, request.headers.getlist("authorization"))


class ClientWith(_Guard):
    """Lets those clients pass that have the scope, by secret or by an access token of their own."""

    def __init__(self, scope: ClientScope) -> None:
        self.scope = scope

    async def __call__(self, request: Request) -> ApiClient:
        given = request.headers.getlist("authorization")
        if _scheme(given) == "bearer":
            if "client_secret" in await _form(request):
                raise InputInvalid(_BOTH)
            client = await services(request).client_authentication.authenticate_token(bearer_token(request) or "")
        else:
            client = await _by_secret(request, given)
        if self.scope not in client.scopes:
            raise ClientNotPermitted
        return client


@lru_cache
def client_with(scope: ClientScope) -> ClientWith:
    """`Annotated[ApiClient, Depends(client_with(ClientScope.REVOCATIONS))]`; such a route states `Access.CLIENT`."""
    return ClientWith(scope)


async def _by_secret(request: Request, given: list[str]) -> ApiClient:
    named = await _named(request, given)
    if named is None:
        _refuse("no client authentication")
    if named.secret is None:
        return await services(request).client_authentication.identify_public(named.client_id)
    return await services(request).client_authentication.authenticate(named.client_id, named.secret)


async def _named(request: Request, given: list[str]) -> _Named | None:
    """
    The client's name and secret as the request gives them.

    Raises:
        InputInvalid: by two methods at once, or two different names.
        ClientRejected: an `Authorization` header that is no HTTP Basic with a name and a secret.
    """
    form = await _form(request)
    in_form = form.get("client_id")
    if given:
        named = _basic(given)
        if "client_secret" in form:
            raise InputInvalid(_BOTH)
        if in_form is not None and in_form != named.client_id:
            raise InputInvalid("The client_id of the form is another than the one that authenticates.")
        return named
    if in_form is None:
        return None
    return _Named(in_form, form.get("client_secret"))


async def _form(request: Request) -> dict[str, str]:
    """The form of a request that has one; other bodies are their route's to read."""
    return await read_form(request) if is_form(request) else {}


def _scheme(given: list[str]) -> str:
    return given[0].partition(" ")[0].lower() if len(given) == 1 else ""


def _basic(given: list[str]) -> _Named:
    """Name and secret are form-encoded inside (RFC 6749 section 2.3.1), so that any character can stand in them."""
    if _scheme(given) != "basic":
        _refuse("authorization header")
    try:
        name, colon, secret = (
            base64.b64decode(given[0].partition(" ")[2].strip(" "), validate=True).decode().partition(":")
        )
        named = _Named(unquote_plus(name, errors="strict"), unquote_plus(secret, errors="strict"))
    except (binascii.Error, ValueError):
        _refuse("malformed HTTP Basic")
    if not colon:
        _refuse("malformed HTTP Basic")
    return named


def _refuse(why: str) -> NoReturn:
    raise ClientRejected(why=why)


any_client = AnyClientGuard()

AnyClient = Annotated[ApiClient, Depends(any_client)]
