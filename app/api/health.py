"""For whoever runs us."""

from fastapi import APIRouter, Depends

from app.api.dependencies import Services, anyone

router = APIRouter(tags=["operation"], dependencies=[Depends(anyone)])


@router.get("/livez")
async def live() -> dict[str, str]:
    """The process answers. Never asks the database."""
    return {"status": "ok"}


@router.get("/readyz")
async def ready(services: Services) -> dict[str, str]:
    """The database takes writes; otherwise 503."""
    await services.housekeeping.check_writable()
    return {"status": "ok"}
