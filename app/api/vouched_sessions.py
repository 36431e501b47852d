"""Sessions for people whom a client has authenticated itself: single sign-on, passkeys, several factors."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request

from app.api.client_auth import client_with
from app.api.client_schemas import VouchedRequest
from app.api.dependencies import Access, services, stated
from app.api.parameters import refuse_other_parameters
from app.api.schemas import TokenAnswer
from app.domain.api_clients import ApiClient, ClientScope
from app.domain.errors import UserDisabled
from app.domain.events import Actor, ActorKind
from app.http.bodies import Kind, read_body
from app.http.clients import client_context
from app.services.opening import Terms

router = APIRouter(prefix="/admin/users", tags=["API clients"])

Vouching = Annotated[ApiClient, Depends(client_with(ClientScope.SESSIONS))]


@router.post(
    "/{user_id}/sessions", openapi_extra=stated(Access.CLIENT, VouchedRequest, Kind.JSON, refuses=(UserDisabled,))
)
async def open_session(user_id: UUID, request: Request, api_client: Vouching) -> TokenAnswer:
    """
    Open a session for a person you have authenticated. Needs the scope `sessions`, which is trust in all accounts.

    Only you can refresh it, at `/oauth2/token`. 404 for an unknown, 409 for a disabled user.
    """
    refuse_other_parameters(request)
    body = await read_body(request, VouchedRequest, Kind.JSON)
    terms = Terms(
        client_id=api_client.client_id,
        scope=body.granted(api_client),
        amr=" ".join(dict.fromkeys(body.amr)),
        acr=body.acr,
        actor=Actor(ActorKind.CLIENT, api_client.id),
        authenticated_at=body.authenticated_at,
    )
    person = body.person_at(client_context(request).request_id)
    return TokenAnswer.of(await services(request).sign_in.vouched(user_id, terms, client=person))
