"""For the system that watches us."""

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST

from app.api.dependencies import Access, operating, services, stated

router = APIRouter(tags=["operation"])


@router.get(
    "/metrics",
    openapi_extra=stated(Access.OPERATOR),
    dependencies=[Depends(operating)],
    response_class=Response,
    responses={200: {"description": "Text format of Prometheus", "content": {"text/plain": {}}}},
)
async def metrics(request: Request) -> Response:
    """All processes of this server together, and what the database says of the whole installation."""
    services(request).watching.standing.sample()
    text = await services(request).watching.facts.exposition(request.app.state.duties)
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})
