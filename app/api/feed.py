"""The feed of ended sessions, for services that verify access tokens themselves."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.client_auth import client_with
from app.api.dependencies import Access, services, stated
from app.domain.api_clients import ApiClient, ClientScope
from app.domain.errors import FeedCursorGone, FeedCursorInvalid, TooManyStreams
from app.domain.session_ends import ReasonClass
from app.domain.snapshots import CURSOR_CHARACTERS
from app.http.deadline import allow_longer
from app.http.event_stream import EventStream
from app.http.watching import WAITING
from app.services.feed import FeedPage

WAIT_SECONDS: Final = 30
PAGE_LIMIT: Final = 1000

router = APIRouter(prefix="/revocations", tags=["integration"])

_guard = client_with(ClientScope.REVOCATIONS)
Following = Annotated[ApiClient, Depends(_guard)]
Cursor = Annotated[str, Field(min_length=1, max_length=CURSOR_CHARACTERS)]


class FeedQuery(BaseModel):
    """Unknown parameters are refused."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    after: Cursor | None = None
    sets: bool = True


class PageQuery(FeedQuery):
    limit: Annotated[int, Field(ge=1, le=PAGE_LIMIT)] = PAGE_LIMIT


class PollQuery(PageQuery):
    wait: Annotated[float, Field(ge=0, le=WAIT_SECONDS, allow_inf_nan=False)] = 0


class Revoked(BaseModel):
    """
    One ended session. `session` and `user` are `sid` and `sub` of its access tokens; `exp`: from this second on it may
    be forgotten; `set`: the same as a signed Security Event Token, left out with `sets=false`.
    """

    session: str
    user: str
    ended_at: str
    reason: ReasonClass
    exp: int
    jti: str
    set: str | None = None


class FeedAnswer(BaseModel):
    """`next` goes on, at once where there is `more`, in `/revocations`, `/revocations/stream` or the snapshot alike."""

    entries: list[Revoked]
    next: str
    more: bool


_EVENT: Final = {
    "type": "object",
    "description": "One event; `data` is a `Revoked`, `id` a cursor.",
    "required": ["event", "id", "data"],
    "properties": {
        "event": {"const": "session-revoked"},
        "id": {"type": "string"},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}
_STREAM: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "Events `session-revoked`", "content": {"text/event-stream": {"schema": _EVENT}}}
}


@router.get(
    "", openapi_extra=stated(Access.CLIENT, refuses=(FeedCursorGone, TooManyStreams)), response_model=FeedAnswer
)
async def poll(request: Request, client: Following, query: Annotated[PollQuery, Query()]) -> Response:
    """
    Sessions that have ended since a cursor, in order of their commits; none is ever left out, one may come twice.

    Without `after`, all those whose access tokens may still be going round. With `wait` the answer comes when there is
    something, or after so many seconds.
    """
    if query.wait:
        setattr(request.state, WAITING, True)
        allow_longer(request, query.wait)
        page = await services(request).feed.wait(
            query.after,
            seconds=query.wait,
            limit=query.limit,
            with_tokens=query.sets,
            client=client.id,
            check=lambda: _guard(request),
        )
    else:
        page = await services(request).feed.page(query.after, limit=query.limit, with_tokens=query.sets)
    return _answer(page)


@router.get("/snapshot", openapi_extra=stated(Access.CLIENT, refuses=(FeedCursorGone,)), response_model=FeedAnswer)
async def snapshot(request: Request, client: Following, query: Annotated[PageQuery, Query()]) -> Response:  # noqa: ARG001 - a guard
    """
    All ended sessions whose access tokens may still be going round, in pages: ask with `after=next` while there is
    `more`, then follow `/revocations` or `/revocations/stream` from `next`. Nothing is lost in between.
    """
    return _answer(await services(request).feed.page(query.after, limit=query.limit, with_tokens=query.sets))


@router.get(
    "/stream",
    openapi_extra=stated(Access.CLIENT, refuses=(FeedCursorGone, TooManyStreams)),
    responses=_STREAM,
    response_class=Response,
)
async def stream(request: Request, client: Following, query: Annotated[FeedQuery, Query()]) -> Response:
    """
    The same as server-sent events, from `Last-Event-ID`, else `after`, else all that still matters.

    Comments keep the connection open; `: current TIME` says that all which had ended by then has been sent.
    """
    feed = services(request).feed
    follower = feed.follow(
        _last_event_id(request) or query.after,
        client=client.id,
        check=lambda: _guard(request),
        with_tokens=query.sets,
    )
    try:
        await follower.begin()
    except BaseException:
        feed.hub.remove(follower)
        raise
    return EventStream(feed, follower)


def _last_event_id(request: Request) -> str | None:
    """
    What a client that reconnects has seen last; it stands above `after`, which is in the address and does not change.

    Raises:
        FeedCursorInvalid: it stands twice, or is too long to be ours.
    """
    given = request.headers.getlist("last-event-id")
    if len(given) > 1 or any(len(each) > CURSOR_CHARACTERS for each in given):
        raise FeedCursorInvalid
    return given[0] if given else None


def _answer(page: FeedPage) -> Response:
    entries = b",".join(page.entries)
    more = b"true" if page.more else b"false"
    body = b'{"entries":[%s],"next":"%s","more":%s}' % (entries, page.next.encode(), more)
    return Response(body, media_type="application/json")
