"""What goes in and comes out at `/admin/users`."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StrictBool, field_validator
from pydantic.json_schema import SkipJsonSchema

from app.api.dependencies import PAGE_LIMIT
from app.api.parameters import Cursor, Moment, Parameters
from app.api.schemas import Username
from app.domain.users import USERNAME_CHARACTERS, Credential, Role, User
from app.http.bodies import Body, Text
from app.services.credentials import Invited, IssuedToken
from app.services.user_queries import SeenUser, SeenUsers
from app.services.users import Changed


class UserQuery(Parameters):
    prefix: Annotated[Text, Field(min_length=1, max_length=USERNAME_CHARACTERS)] | None = None
    role: Role | None = None
    disabled: bool | None = None
    created_from: Moment | None = None
    created_to: Moment | None = None
    has_active_sessions: bool | None = None
    deleted: bool = False
    order: Literal["newest", "oldest"] = "newest"
    after: Cursor | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE_LIMIT)] = 50


class SelfQuery(Parameters):
    """`allow_self`: you mean it, also where it is your own account that you would lose."""

    allow_self: bool = False


class InviteRequest(Body):
    username: Username
    role: Role = Role.USER
    credential: Credential = Credential.ONE_TIME_PASSWORD


class UserChangeRequest(Body):
    """What is left out stays as it is; at least one member."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    username: Username | SkipJsonSchema[None] = None
    role: Role | SkipJsonSchema[None] = None
    disabled: StrictBool | SkipJsonSchema[None] = None

    @field_validator("username", "role", "disabled", mode="before")
    @classmethod
    def _no_null(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("must not be null: leave it out to leave it as it is")
        return value


class ResetRequest(Body):
    forget_password: StrictBool = False


class AdminUser(BaseModel):
    """
    A user. `has_password` and `must_change_password` together: a password of their own (true, false), a one-time
    password (true, true), a set-password token is waited for (false, true), they sign in elsewhere (false, false).
    `active_sessions` stops at 100; `active_sessions_is_exact` says so.
    """

    id: UUID
    username: str
    role: Role
    created_at: datetime
    disabled_at: datetime | None
    deleted_at: datetime | None
    password_changed_at: datetime | None
    has_password: bool
    must_change_password: bool
    active_sessions: int
    active_sessions_is_exact: bool

    @classmethod
    def of(cls, seen: SeenUser, **more: Any) -> Self:
        user = seen.user
        return cls(
            **_members(user),
            active_sessions=seen.active_sessions,
            active_sessions_is_exact=seen.is_exact,
            **more,
        )


class AdminUserPage(BaseModel):
    """`next` is the `after` of the next page, null on the last."""

    items: list[AdminUser]
    next: str | None

    @classmethod
    def of(cls, seen: SeenUsers) -> Self:
        return cls(items=[AdminUser.of(one) for one in seen.items], next=seen.next)


class ChangedUser(AdminUser):
    """The user afterwards. `changed` is false if it was all so before; nothing was written then."""

    changed: bool
    sessions_ended: int

    @classmethod
    def after(cls, seen: SeenUser, changed: Changed) -> Self:
        return cls.of(seen, changed=changed.changed, sessions_ended=changed.sessions_ended)


class InvitedUser(BaseModel):
    """A new user, and what to hand to them. It is shown this once, and good until `expires_at`."""

    id: UUID
    username: str
    role: Role
    created_at: datetime
    credential: Credential
    one_time_password: str | None
    password_token: str | None
    expires_at: datetime | None

    @classmethod
    def of(cls, invited: Invited) -> Self:
        user = invited.user
        return cls(
            id=user.id,
            username=user.username,
            role=user.role,
            created_at=user.created_at,
            credential=invited.credential,
            one_time_password=invited.one_time_password,
            password_token=invited.password_token,
            expires_at=invited.expires_at,
        )


class PasswordTokenAnswer(BaseModel):
    """Shown this once. Whoever has it sets the user's password, at `PUT /password`, once, until `expires_at`."""

    password_token: str
    expires_at: datetime
    sessions_ended: int

    @classmethod
    def of(cls, token: IssuedToken, sessions_ended: int) -> Self:
        return cls(password_token=token.token, expires_at=token.expires_at, sessions_ended=sessions_ended)


class UnblockedUser(BaseModel):
    id: UUID
    changed: bool


def _members(user: User) -> dict[str, Any]:
    return {
        "id": user.id,
        "username": user.username,
        "role": user.role,
        "created_at": user.created_at,
        "disabled_at": user.disabled_at,
        "deleted_at": user.deleted_at,
        "password_changed_at": user.password_changed_at if user.password_hash is not None else None,
        "has_password": user.password_hash is not None,
        "must_change_password": user.must_change_password,
    }
