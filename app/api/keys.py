"""What others need to know of us: the keys that verify our access tokens, and where what is."""

import json
from typing import Any, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response, status
from pydantic import BaseModel

from app.api.dependencies import Access, services, stated
from app.domain.api_clients import ClientGrant, ClientScope
from app.http.errors import PathNotFound
from app.http.kept import kept

# HEAD too (RFC 9110 section 9.1): caches and people look at headers with it. The server leaves the body out.
router = APIRouter(tags=["standards"])

# A key is published thirty days before it signs. A secret that was appended should be left there for this long before
# it is moved to the front: then nobody's copy of the key set lacks it.
KEPT_SECONDS: Final = 3600

_SECRETS: Final = ["client_secret_basic", "client_secret_post"]
_METADATA: Final = "/.well-known/oauth-authorization-server"
_HEADERS: Final = {
    "ETag": {"required": True, "description": "RFC 9110 section 8.8.3.", "schema": {"type": "string"}},
    "Cache-Control": {"required": True, "description": "For how long it may be kept.", "schema": {"type": "string"}},
}
_KEPT: Final[dict[int | str, dict[str, Any]]] = {
    200: {"headers": _HEADERS},
    304: {"description": "It is what you have: `If-None-Match` named its ETag.", "headers": _HEADERS},
}


class Key(BaseModel):
    """RFC 7517 section 4, RFC 7518 section 6.2.1."""

    kty: str
    crv: str
    x: str
    y: str
    alg: str
    use: str
    kid: str


class KeySet(BaseModel):
    """RFC 7517 section 5."""

    keys: list[Key]


class Metadata(BaseModel):
    """RFC 8414 section 2."""

    issuer: str
    token_endpoint: str
    revocation_endpoint: str
    introspection_endpoint: str
    jwks_uri: str
    scopes_supported: list[str]
    grant_types_supported: list[str]
    response_types_supported: list[str]
    token_endpoint_auth_methods_supported: list[str]
    revocation_endpoint_auth_methods_supported: list[str]
    introspection_endpoint_auth_methods_supported: list[str]


@router.head("/.well-known/jwks.json", openapi_extra=stated(Access.ANYONE), include_in_schema=False)
@router.get("/.well-known/jwks.json", openapi_extra=stated(Access.ANYONE), response_model=KeySet, responses=_KEPT)
async def key_set(request: Request) -> Response:
    """The key set (RFC 7517): the previous, the current and the next 30 days' keys. With an ETag."""
    keys = services(request).signing_keys.published(services(request).clock.on_host())
    return _kept(request, {"keys": [key.jwk for key in keys]})


@router.head(_METADATA, openapi_extra=stated(Access.ANYONE), include_in_schema=False)
@router.get(_METADATA, openapi_extra=stated(Access.ANYONE), response_model=Metadata, responses=_KEPT)
async def metadata(request: Request) -> Response:
    """Where what is, and what it can (RFC 8414). All addresses begin with `ROTA_ISSUER`."""
    return _kept(request, _describe(services(request).settings.issuer))


@router.head(_METADATA + "/{path:path}", openapi_extra=stated(Access.ANYONE), include_in_schema=False)
@router.get(_METADATA + "/{path:path}", openapi_extra=stated(Access.ANYONE), response_model=Metadata, responses=_KEPT)
async def metadata_of_path(path: str, request: Request) -> Response:
    """The same where the issuer has a path, which then stands behind (RFC 8414 section 3.1)."""
    issuer = services(request).settings.issuer
    if not path or urlsplit(issuer).path.strip("/") != path:
        raise PathNotFound
    return _kept(request, _describe(issuer))


def _describe(issuer: str) -> dict[str, Any]:
    at = issuer.rstrip("/")
    return {
        "issuer": issuer,
        "token_endpoint": f"{at}/oauth2/token",
        "revocation_endpoint": f"{at}/oauth2/revoke",
        "introspection_endpoint": f"{at}/oauth2/introspect",
        "jwks_uri": f"{at}/.well-known/jwks.json",
        "scopes_supported": [scope.value for scope in ClientScope],
        "grant_types_supported": [grant.value for grant in ClientGrant],
        # There is no authorization endpoint, but the member is required, and an empty list may not be sent (RFC 8414
        # sections 2 and 3.2). `none` is the registered value for an answer that holds no token.
        "response_types_supported": ["none"],
        "token_endpoint_auth_methods_supported": [*_SECRETS, "none"],
        "revocation_endpoint_auth_methods_supported": [*_SECRETS, "none"],
        "introspection_endpoint_auth_methods_supported": [*_SECRETS, "Bearer"],
    }


def _kept(request: Request, content: dict[str, Any]) -> Response:
    """An answer that may be kept, or that it is what the asker has (RFC 9110 section 13.1.2)."""
    body = json.dumps(content, separators=(",", ":")).encode()
    return kept(request, body, "application/json", f"public, max-age={KEPT_SECONDS}")
