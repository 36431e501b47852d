"""API clients, for administrators; auditors read."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, status

from app.api.client_schemas import (
    ChangedClientAnswer,
    ClientAnswer,
    ClientPage,
    ClientQuery,
    ClientRequest,
    MadeClientAnswer,
    RotationRequest,
)
from app.api.dependencies import Access, Administering, Auditing, services, stated
from app.domain.api_clients import SecretPlace
from app.domain.errors import ClientHasNoSecrets, ClientIdTaken
from app.http.bodies import Kind, read_body
from app.http.clients import client_context

router = APIRouter(prefix="/admin/clients", tags=["API clients"])

# By id, or by the name that the client speaks by; a name is never a UUID.
Reference = Annotated[UUID | Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{2,63}$")], Path()]


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    openapi_extra=stated(Access.ADMIN, ClientRequest, Kind.JSON, refuses=(ClientIdTaken,)),
)
async def create_client(request: Request, caller: Administering) -> MadeClientAnswer:
    """Make a client. Its secret is in this answer and nowhere else."""
    body = await read_body(request, ClientRequest, Kind.JSON)
    made = await services(request).api_clients.create(
        body.read(), actor=caller.as_admin, client=client_context(request)
    )
    return MadeClientAnswer.made(made)


@router.get("", openapi_extra=stated(Access.AUDITOR))
async def list_clients(request: Request, caller: Auditing, query: Annotated[ClientQuery, Query()]) -> ClientPage:
    """All clients, newest first."""
    page = await services(request).api_clients.list_page(
        after=query.after, limit=query.limit, actor=caller.as_admin, client=client_context(request)
    )
    return ClientPage.of(page)


@router.get("/{client}", openapi_extra=stated(Access.AUDITOR))
async def show_client(client: Reference, request: Request, caller: Auditing) -> ClientAnswer:
    """One client, by `id` or `client_id`."""
    found = await services(request).api_clients.view(client, actor=caller.as_admin, client=client_context(request))
    return ClientAnswer.of(found)


@router.post(
    "/{client}/secrets",
    openapi_extra=stated(Access.ADMIN, RotationRequest, Kind.JSON, required=False, refuses=(ClientHasNoSecrets,)),
)
async def rotate_secret(client: Reference, request: Request, caller: Administering) -> MadeClientAnswer:
    """
    A new secret, which is in this answer and nowhere else. The one before works on for `overlap_seconds`, by default a
    day; one that was former already ends now.
    """
    body = await read_body(request, RotationRequest, Kind.JSON)
    made = await services(request).api_clients.rotate_secret(
        client, body.read(), actor=caller.as_admin, client=client_context(request)
    )
    return MadeClientAnswer.made(made)


@router.delete("/{client}/secrets/{which}", openapi_extra=stated(Access.ADMIN, refuses=(ClientHasNoSecrets,)))
async def revoke_secret(
    client: Reference, which: SecretPlace, request: Request, caller: Administering
) -> ChangedClientAnswer:
    """End the `former` or the `current` secret now. A former one that works takes the place of a current one."""
    found, changed = await services(request).api_clients.revoke_secret(
        client, which, actor=caller.as_admin, client=client_context(request)
    )
    return ChangedClientAnswer.after(found, changed)


@router.post("/{client}/disable", openapi_extra=stated(Access.ADMIN))
async def disable_client(client: Reference, request: Request, caller: Administering) -> ChangedClientAnswer:
    """Shut a client out, within a second in every process. Its sessions stay, and cannot be refreshed until then."""
    found, changed = await services(request).api_clients.disable(
        client, actor=caller.as_admin, client=client_context(request)
    )
    return ChangedClientAnswer.after(found, changed)


@router.post("/{client}/enable", openapi_extra=stated(Access.ADMIN))
async def enable_client(client: Reference, request: Request, caller: Administering) -> ChangedClientAnswer:
    """Let a disabled client come again."""
    found, changed = await services(request).api_clients.enable(
        client, actor=caller.as_admin, client=client_context(request)
    )
    return ChangedClientAnswer.after(found, changed)
