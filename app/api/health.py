"""For whoever runs us."""

from fastapi import APIRouter, Request

from app.api.dependencies import Access, services, stated

router = APIRouter(tags=["operation"])


@router.get("/livez", openapi_extra=stated(Access.ANYONE))
async def live() -> dict[str, str]:
    """The process answers. Never asks the database."""
    return {"status": "ok"}


@router.get("/readyz", openapi_extra=stated(Access.ANYONE))
async def ready(request: Request) -> dict[str, str]:
    """The database takes writes; otherwise 503."""
    await services(request).housekeeping.check_writable()
    return {"status": "ok"}
