"""For whoever runs us."""

from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from app.api.dependencies import Access, is_operator, services, stated
from app.domain.errors import Unavailable
from app.domain.readiness import Report

router = APIRouter(tags=["operation"])


class CheckAnswer(BaseModel):
    name: str
    ok: bool
    why: str | None


class ReadyAnswer(BaseModel):
    """`checks`: for the operator only."""

    status: str
    checks: list[CheckAnswer] | None = None


_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {200: {"model": ReadyAnswer}, 503: {"model": ReadyAnswer}}


@router.get("/livez", openapi_extra=stated(Access.ANYONE))
async def live() -> dict[str, str]:
    """The process answers. Never asks the database."""
    return {"status": "ok"}


@router.get("/readyz", openapi_extra=stated(Access.ANYONE, optionally=Access.OPERATOR), responses=_ANSWERS)
async def ready(request: Request) -> Response:
    """
    200 if this process should be given requests, 503 otherwise.

    With the operator's token the answer names the checks, and says of each that failed why.
    """
    report = await services(request).readiness.report()
    if is_operator(request):
        return _checks(report)
    if not report.ready:
        raise Unavailable(why=report.failed)
    return JSONResponse({"status": "ok"})


def _checks(report: Report) -> JSONResponse:
    checks = [{"name": each.check, "ok": each.ok, "why": each.why} for each in report.findings]
    status, headers = (200, {}) if report.ready else (503, {"Retry-After": str(Unavailable.retry_after_seconds)})
    return JSONResponse({"status": "ok" if report.ready else "unavailable", "checks": checks}, status, headers)
