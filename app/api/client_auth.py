"""
Which API client calls, as RFC 6749 section 2.3 lets it say so.

A secret comes by HTTP Basic or in the form, never by both; a client may instead show an access token that it got by
the client credentials grant (RFC 6750).
"""

import base64
import binascii
from dataclasses import dataclass
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


class _BasicInDocs(SecurityBase):
    """Only shows in the API docs how a client authenticates; the guards read the request."""

    def __init__(self) -> None:
        self.model: SecurityModel = HTTPBase(scheme="basic")
        self.scheme_name = "API client"

    async def __call__(self) -> None:
        """Nothing: it is there for its model."""


_documented = _BasicInDocs()


@dataclass(frozen=True, slots=True)
class _Named:
    """How a client names itself."""

    client_id: str
    secret: str | None


async def any_client(request: Request, _: Annotated[None, Depends(_documented)]) -> ApiClient:
    """Lets those pass that authenticate with a secret, or are a public client, which has none."""
    named = await _named(request)
    if named is None:
        _refuse("no client authentication")
    if named.secret is None:
        return await services(request).client_authentication.identify_public(named.client_id)
    return await services(request).client_authentication.authenticate(named.client_id, named.secret)


@dataclass(frozen=True, slots=True)
class ClientWith:
    """A guard: lets those clients pass that have the scope, by secret or by an access token of their own."""

    scope: ClientScope

    async def __call__(self, request: Request, _: Annotated[None, Depends(_documented)]) -> ApiClient:
        if _scheme(request) == "bearer":
            if (await _form(request)).keys() & {"client_secret"}:
                raise InputInvalid(_BOTH)
            token = bearer_token(request)
            client = await services(request).client_authentication.authenticate_token(token or "")
        else:
            client = await any_client(request, None)
        if self.scope not in client.scopes:
            raise ClientNotPermitted
        return client


def client_with(scope: ClientScope) -> ClientWith:
    """`Annotated[ApiClient, Depends(client_with(ClientScope.REVOCATIONS))]`; such a route states `Access.CLIENT`."""
    return ClientWith(scope)


async def _named(request: Request) -> _Named | None:
    """
    The client's name and secret as the request gives them.

    Raises:
        InputInvalid: by two methods at once, or two different names.
        ClientRejected: an `Authorization` header that is no HTTP Basic with a name and a secret.
    """
    form = await _form(request)
    in_form = form.get("client_id")
    if request.headers.getlist("authorization"):
        named = _basic(request)
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


def _scheme(request: Request) -> str:
    given = request.headers.getlist("authorization")
    return given[0].partition(" ")[0].lower() if len(given) == 1 else ""


def _basic(request: Request) -> _Named:
    """Name and secret are form-encoded inside (RFC 6749 section 2.3.1), so that any character can stand in them."""
    given = request.headers.getlist("authorization")
    if _scheme(request) != "basic":
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


AnyClient = Annotated[ApiClient, Depends(any_client)]
