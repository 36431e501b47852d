"""The public keys by which others verify our access tokens."""

from typing import Any

from fastapi import APIRouter, Depends, Response

from app.api.dependencies import Services, anyone

router = APIRouter(tags=["standards"], dependencies=[Depends(anyone)])


@router.get("/.well-known/jwks.json")
async def key_set(services: Services, response: Response) -> dict[str, list[dict[str, Any]]]:
    """The key set (RFC 7517): the previous, the current and the next 30 days' keys."""
    response.headers["Cache-Control"] = "public, max-age=3600"
    return {"keys": [key.jwk for key in services.signing_keys.published(services.clock.on_host())]}
