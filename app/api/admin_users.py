"""Accounts, for auditors to see and for administrators to act on."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, status

from app.api.dependencies import Access, Administering, Auditing, services, stated
from app.api.user_schemas import (
    AdminUser,
    AdminUserPage,
    ChangedUser,
    InvitedUser,
    InviteRequest,
    PasswordTokenAnswer,
    ResetRequest,
    SelfQuery,
    UnblockedUser,
    UserChangeRequest,
    UserQuery,
)
from app.domain.errors import (
    InputInvalid,
    LastAdministrator,
    OwnAccount,
    TooBusy,
    UserDeleted,
    UserDisabled,
    UsernameRefused,
    UsernameTaken,
)
from app.domain.user_changes import UserChange
from app.domain.user_filters import UserFilter
from app.domain.users import name_prefix
from app.http.bodies import Kind, read_body
from app.http.clients import client_context
from app.services.acting import Acting
from app.services.authentication import Caller

router = APIRouter(prefix="/admin/users", tags=["users"])

ACTING = (UserDeleted, LastAdministrator, OwnAccount)


@router.get("", openapi_extra=stated(Access.AUDITOR))
async def list_users(request: Request, caller: Auditing, query: Annotated[UserQuery, Query()]) -> AdminUserPage:
    """
    Users that match all filters, newest first unless `order=oldest`.

    `prefix` is the beginning of a name in any case; every character stands for itself. `created_from` and `created_to`
    are inclusive. Deleted users are listed with `deleted=true` only. `next` goes on with the same filter and order
    only. That you asked is an event itself.
    """
    seen = await services(request).user_queries.search(
        UserFilter(
            prefix=name_prefix(query.prefix) if query.prefix is not None else None,
            role=query.role,
            disabled=query.disabled,
            created_from=query.created_from,
            created_to=query.created_to,
            has_active_sessions=query.has_active_sessions,
            deleted=query.deleted,
        ),
        newest_first=query.order == "newest",
        cursor=query.after,
        limit=query.limit,
        actor=caller.as_admin,
        client=client_context(request),
    )
    return AdminUserPage.of(seen)


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    openapi_extra=stated(Access.ADMIN, InviteRequest, Kind.JSON, refuses=(UsernameTaken, UsernameRefused, TooBusy)),
)
async def create_user(request: Request, caller: Administering) -> InvitedUser:
    """
    Make an account for somebody. You never choose or see the password that they will have.

    `credential`: a `one_time_password`, which is good for setting another one only; a `set_password_token`, for
    `PUT /password`; or `none`, for people who sign in elsewhere. The answer shows it this once; it is good for a day.
    """
    body = await read_body(request, InviteRequest, Kind.JSON)
    invited = await services(request).credentials.invite(
        body.username, role=body.role, credential=body.credential, by=_acting(request, caller)
    )
    return InvitedUser.of(invited)


@router.get("/{user_id}", openapi_extra=stated(Access.AUDITOR))
async def show_user(user_id: UUID, request: Request, caller: Auditing) -> AdminUser:
    """One user, deleted or not. That you asked is an event itself."""
    seen = await services(request).user_queries.get(user_id, actor=caller.as_admin, client=client_context(request))
    return AdminUser.of(seen)


@router.patch(
    "/{user_id}",
    openapi_extra=stated(Access.ADMIN, UserChangeRequest, Kind.JSON, refuses=(*ACTING, UsernameTaken, UsernameRefused)),
)
async def change_user(
    user_id: UUID, request: Request, caller: Administering, query: Annotated[SelfQuery, Query()]
) -> ChangedUser:
    """
    Rename a user, shut them out or let them in (`disabled`), give them another role: all of it or none.

    All their sessions end when they are shut out or get another role. The last administrator can be neither disabled
    nor demoted; you yourself only with `allow_self=true`.
    """
    body = await read_body(request, UserChangeRequest, Kind.JSON)
    if not body.model_fields_set:
        raise InputInvalid("Say what to change: username, role or disabled.")
    wanted = UserChange(username=body.username, role=body.role, disabled=body.disabled)
    changed = await services(request).users.change(
        user_id, wanted, by=_acting(request, caller, allow_self=query.allow_self)
    )
    return ChangedUser.after(await services(request).user_queries.look(changed.user), changed)


@router.delete("/{user_id}", openapi_extra=stated(Access.ADMIN, refuses=ACTING))
async def delete_user(
    user_id: UUID, request: Request, caller: Administering, query: Annotated[SelfQuery, Query()]
) -> ChangedUser:
    """
    Delete a user: no sign-in ever again, all their sessions end, the name is free.

    What the trail says of them stays, and whose it is; `rota users erase` removes that too. The last administrator
    cannot be deleted; you yourself only with `allow_self=true`.
    """
    changed = await services(request).users.delete(user_id, by=_acting(request, caller, allow_self=query.allow_self))
    return ChangedUser.after(await services(request).user_queries.look(changed.user), changed)


@router.post(
    "/{user_id}/password-token",
    status_code=status.HTTP_201_CREATED,
    openapi_extra=stated(Access.ADMIN, ResetRequest, Kind.JSON, required=False, refuses=(*ACTING, UserDisabled)),
)
async def issue_password_token(
    user_id: UUID, request: Request, caller: Administering, query: Annotated[SelfQuery, Query()]
) -> PasswordTokenAnswer:
    """
    A token with which the user sets a new password, in the place of any token before it.

    The present password stays until then, unless `forget_password` is true: it is good for nothing from now on, and all
    sessions end, for when somebody else knows it.
    """
    body = await read_body(request, ResetRequest, Kind.JSON)
    token, ended = await services(request).credentials.reset(
        user_id, forget=body.forget_password, by=_acting(request, caller, allow_self=query.allow_self)
    )
    return PasswordTokenAnswer.of(token, ended)


@router.delete("/{user_id}/login-throttle", openapi_extra=stated(Access.ADMIN, refuses=ACTING))
async def unblock_user(user_id: UUID, request: Request, caller: Administering) -> UnblockedUser:
    """
    Forget a user's failed sign-ins, so that a new device need not wait. Nobody is told the password by this.

    `changed` is false if there were none.
    """
    changed = await services(request).throttling.unblock(user_id, by=_acting(request, caller))
    return UnblockedUser(id=user_id, changed=changed)


def _acting(request: Request, caller: Caller, *, allow_self: bool = False) -> Acting:
    return Acting(caller.as_admin, client_context(request), caller, allow_self)
