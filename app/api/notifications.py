"""What people are to be told, for the program that tells them."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field

from app.api.client_auth import client_with
from app.api.dependencies import Access, services, stated
from app.api.parameters import Parameters, refuse_other_parameters
from app.domain.api_clients import ApiClient, ClientScope
from app.domain.events import Actor, ActorKind
from app.domain.notifications import ACKNOWLEDGE_MAXIMUM, Notification, NotificationKind
from app.http.bodies import Body, Kind, read_body
from app.http.clients import client_context

router = APIRouter(prefix="/notifications", tags=["integration"])

Mailing = Annotated[ApiClient, Depends(client_with(ClientScope.NOTIFICATIONS))]


class NotificationQuery(Parameters):
    after: UUID | None = None
    limit: Annotated[int, Field(ge=1, le=ACKNOWLEDGE_MAXIMUM)] = 100


class NotificationAnswer(BaseModel):
    """`username` as it is now: after a renaming, the new one."""

    id: UUID
    user_id: UUID
    username: str
    kind: NotificationKind
    created_at: datetime

    @classmethod
    def of(cls, notification: Notification) -> Self:
        return cls(
            id=notification.id,
            user_id=notification.user_id,
            username=notification.username,
            kind=notification.kind,
            created_at=notification.created_at,
        )


class NotificationPage(BaseModel):
    """`next` is the `after` of the next page, null on the last."""

    items: list[NotificationAnswer]
    next: UUID | None


class AcknowledgeRequest(Body):
    ids: Annotated[list[UUID], Field(min_length=1, max_length=ACKNOWLEDGE_MAXIMUM)]


class AcknowledgeAnswer(BaseModel):
    """How many were pending; the others of the request were acknowledged before."""

    acknowledged: int


@router.get("", openapi_extra=stated(Access.CLIENT))
async def list_notifications(
    request: Request, _: Mailing, query: Annotated[NotificationQuery, Query()]
) -> NotificationPage:
    """
    What people are to be told, oldest first. Needs the scope `notifications`.

    Each stays until it is acknowledged. Begin without `after` each time you look for new ones; `after` only goes past
    those that you cannot tell now.
    """
    refuse_other_parameters(request)
    found, following = await services(request).notifications.list_pending(after=query.after, limit=query.limit)
    return NotificationPage(items=[NotificationAnswer.of(each) for each in found], next=following)


@router.post("/ack", openapi_extra=stated(Access.CLIENT, AcknowledgeRequest, Kind.JSON))
async def acknowledge(request: Request, api_client: Mailing) -> AcknowledgeAnswer:
    """
    Say that you have told them: they are not handed out again. Needs the scope `notifications`.

    To acknowledge twice is harmless, and so are ids that are not there.
    """
    refuse_other_parameters(request)
    body = await read_body(request, AcknowledgeRequest, Kind.JSON)
    done = await services(request).notifications.acknowledge(
        body.ids, actor=Actor(ActorKind.CLIENT, api_client.id), client=client_context(request)
    )
    return AcknowledgeAnswer(acknowledged=done)
