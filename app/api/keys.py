"""The public keys by which others verify our access tokens."""

from typing import Any

from fastapi import APIRouter, Request, Response

from app.api.dependencies import Access, services, stated

router = APIRouter(tags=["standards"])


@router.get("/.well-known/jwks.json", openapi_extra=stated(Access.ANYONE))
async def key_set(request: Request, response: Response) -> dict[str, list[dict[str, Any]]]:
    """The key set (RFC 7517): the previous, the current and the next 30 days' keys."""
    response.headers["Cache-Control"] = "public, max-age=3600"
    keys = services(request).signing_keys.published(services(request).clock.on_host())
    return {"keys": [key.jwk for key in keys]}
