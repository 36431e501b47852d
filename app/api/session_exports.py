"""Sessions as a download."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app.api.dependencies import Access, Auditing, services, stated
from app.api.session_schemas import ExportQuery
from app.container import Container
from app.domain.errors import AccessTokenRejected, RotaError
from app.domain.session_exports import ExportFormat
from app.http.clients import client_context
from app.services.authentication import Caller
from app.services.session_exports import Export

router = APIRouter(prefix="/admin/sessions", tags=["administration"])

MEDIA_TYPES: Final = {
    ExportFormat.CSV: "text/csv; charset=utf-8; header=present",
    ExportFormat.NDJSON: "application/x-ndjson",
}
_CONTENT: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"text/csv": {"schema": {"type": "string"}}, "application/x-ndjson": {"schema": {}}}}
}

CHECK_PIECES: Final = 50
CHECK_SECONDS: Final = 1.0  # where few match, or somebody reads slowly, fifty pieces take long

_finishing: set[asyncio.Task[None]] = set()  # the loop itself keeps only weak references


class _Download(StreamingResponse):
    """A stream whose end is written down, also when the client has hung up."""

    def __init__(self, container: Container, export: Export, content: AsyncIterator[str], **options: Any) -> None:
        super().__init__(content, **options)
        self._container = container
        self._export = export

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # In a task of its own: this one may be cancelled, again and again, until it is gone.
            task = asyncio.create_task(self._container.session_exports.finish(self._export))
            _finishing.add(task)
            task.add_done_callback(_finishing.discard)


@router.get("/export", openapi_extra=stated(Access.AUDITOR), response_class=StreamingResponse, responses=_CONTENT)
async def export_sessions(
    request: Request, caller: Auditing, query: Annotated[ExportQuery, Query()]
) -> StreamingResponse:
    """
    All sessions that match the filters of the list, as one JSON object a line or as CSV, oldest first unless
    `order=newest`.

    In CSV a value that a spreadsheet would take for a formula begins with an apostrophe. What begins or ends meanwhile
    may or may not be in it. It ends when your session does; a download that is not whole breaks off. That you exported
    is an event, with how many there were.
    """
    container = services(request)
    export = await container.session_exports.begin(
        await query.to_filter(container.trail),
        query.format,
        newest_first=query.order == "newest",
        actor=caller.as_admin,
        client=client_context(request),
    )
    pieces = container.session_exports.pieces(export)
    try:
        begun = [await anext(pieces)]
        if (piece := await anext(pieces, None)) is not None:  # what is refused is refused before anything is sent
            begun.append(piece)
    except RotaError:
        await container.session_exports.finish(export)
        raise
    return _Download(
        container,
        export,
        _while_permitted(container, caller, begun, pieces),
        media_type=MEDIA_TYPES[query.format],
        headers={"Content-Disposition": f'attachment; filename="sessions.{query.format}"'},
    )


async def _while_permitted(
    container: Container, caller: Caller, begun: list[str], rest: AsyncIterator[str]
) -> AsyncIterator[str]:
    """The stream, as long as the session lives that asked for it: a role that is lost ends it."""
    for piece in begun:
        yield piece
    sent, clock = 0, asyncio.get_running_loop().time
    asked_at = clock()
    async for piece in rest:
        sent += 1
        if sent % CHECK_PIECES == 0 or clock() - asked_at >= CHECK_SECONDS:
            if not await container.authentication.lives(caller):
                raise AccessTokenRejected(why="session over amid an export")
            asked_at = clock()
        yield piece
