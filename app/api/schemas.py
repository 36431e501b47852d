"""What goes in and comes out over HTTP."""

import json
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.domain.families import LABEL_CHARACTERS, Family, SessionState
from app.domain.passwords import MAXIMUM_BYTES, MAXIMUM_CHARACTERS, is_presentable
from app.domain.users import USERNAME_CHARACTERS, User
from app.http.bodies import Body, Text
from app.repositories.audit import StoredEvent
from app.services.tokens import IssuedTokens

Username = Annotated[Text, Field(min_length=1, max_length=USERNAME_CHARACTERS)]
NEW_PASSWORD_CHARACTERS = 8192  # beyond what may be set, so that the refusal is the rules' own, with its reason


def _presentable(password: str) -> str:
    if not is_presentable(password):
        raise ValueError(f"must have at most {MAXIMUM_BYTES} bytes")
    return password


Password = Annotated[Text, Field(min_length=1, max_length=MAXIMUM_CHARACTERS), AfterValidator(_presentable)]
# What else is wrong with one, NUL among it, the rules for passwords say.
NewPassword = Annotated[str, Field(max_length=NEW_PASSWORD_CHARACTERS)]
PresentedToken = Annotated[Text, Field(min_length=1, max_length=8192)]


class RegisterRequest(Body):
    username: Username
    password: NewPassword


class Place(StrEnum):
    """Where the refresh token goes. A script can read a body, and only the browser a cookie."""

    BODY = "body"
    COOKIE = "cookie"


class TokenRequest(Body):
    """The fields of RFC 6749 sections 4.3.2 and 6, and one of ours. What is needed depends on `grant_type`."""

    grant_type: Annotated[Text, Field(max_length=200, json_schema_extra={"enum": ["password", "refresh_token"]})] = (
        "password"
    )
    username: Username | None = None
    password: Password | None = None
    scope: Annotated[Text, Field(max_length=2000)] = ""
    refresh_token: PresentedToken | None = None
    device_token: PresentedToken | None = None
    refresh_token_in: Place = Place.BODY


class RefreshRequest(Body):
    """Without a token in it, the one of the cookie is meant."""

    refresh_token: PresentedToken | None = None


class LogoutRequest(Body):
    refresh_token: PresentedToken | None = None


class LabelRequest(Body):
    label: Annotated[Text, Field(min_length=1, max_length=LABEL_CHARACTERS)] | None


class PasswordChangeRequest(Body):
    current_password: Password
    new_password: NewPassword


class PasswordTokenRequest(Body):
    token: PresentedToken
    new_password: NewPassword


def _in_cookie_or_body(schema: dict[str, Any]) -> None:
    schema["required"].remove("refresh_token")


class TokenAnswer(BaseModel):
    """RFC 6749 section 5.1. Lifetimes are seconds. `refresh_token` is not there when it is in the cookie."""

    model_config = ConfigDict(json_schema_extra=_in_cookie_or_body)

    access_token: str
    token_type: str = "bearer"  # noqa: S105 - a scheme
    expires_in: int
    refresh_token: str
    refresh_expires_in: int
    session_id: UUID
    scope: str

    @classmethod
    def of(cls, issued: IssuedTokens) -> Self:
        return cls(
            access_token=issued.access_token,
            expires_in=issued.expires_in,
            refresh_token=issued.refresh_token,
            refresh_expires_in=issued.refresh_expires_in,
            session_id=issued.session_id,
            scope=issued.scope,
        )


class SignInAnswer(TokenAnswer):
    """`device_token` comes with a sign-in of a device that had none: keep it, and present it at the next sign-in."""

    device_token: str | None = None

    @classmethod
    def of(cls, issued: IssuedTokens) -> Self:
        return cls(**TokenAnswer.of(issued).model_dump(), device_token=issued.device_token)


class EndAnswer(BaseModel):
    """`ended` is false if the session was over before."""

    message: str
    session_id: UUID
    ended: bool


class EndOthersAnswer(BaseModel):
    message: str
    sessions_ended: int


class UserAnswer(BaseModel):
    id: UUID
    username: str
    role: str
    created_at: datetime

    @classmethod
    def of(cls, user: User) -> Self:
        return cls(id=user.id, username=user.username, role=user.role.value, created_at=user.created_at)


class MeAnswer(UserAnswer):
    password_changed_at: datetime
    session_id: UUID

    @classmethod
    def of_session(cls, user: User, session_id: UUID) -> Self:
        return cls(
            id=user.id,
            username=user.username,
            role=user.role.value,
            created_at=user.created_at,
            password_changed_at=user.password_changed_at,
            session_id=session_id,
        )


class SessionAnswer(BaseModel):
    """
    A session. `state` is `lapsed` when a limit has passed and the end is not written yet; `end_reason` tells which.
    `last_used_at` is the last refresh, or the sign-in.
    """

    id: UUID
    current: bool
    state: SessionState
    label: str | None
    device: str | None
    browser: str | None
    os: str | None
    user_agent: str | None
    client_id: str
    scope: str
    first_ip: str | None
    last_ip: str | None
    created_at: datetime
    last_used_at: datetime
    idle_expires_at: datetime
    expires_at: datetime
    ended_at: datetime | None
    end_reason: str | None

    @classmethod
    def of(cls, family: Family, *, now: datetime, current: UUID) -> Self:
        return cls(
            id=family.id,
            current=family.id == current,
            state=family.state(now),
            label=family.label,
            device=family.device,
            browser=family.browser,
            os=family.os,
            user_agent=family.user_agent,
            client_id=family.client_id,
            scope=family.scope,
            first_ip=_text(family.created_ip),
            last_ip=_text(family.last_ip),
            created_at=family.created_at,
            last_used_at=family.rotated_at or family.created_at,
            idle_expires_at=family.idle_expires_at,
            expires_at=family.expires_at,
            ended_at=family.ended_at,
            end_reason=family.end_reason or family.expiry(now),
        )


class SessionPage(BaseModel):
    """`next` is the `after` of the next page, null on the last."""

    items: list[SessionAnswer]
    next: str | None


class EventAnswer(BaseModel):
    id: UUID
    occurred_at: datetime
    action: str
    outcome: str
    reason: str | None
    actor_kind: str
    actor_id: UUID | None
    session_id: UUID | None
    family_seq: int | None
    generation: int | None
    ip: str | None
    user_agent: str | None
    request_id: UUID | None
    detail: dict[str, Any]

    @classmethod
    def of(cls, event: StoredEvent) -> Self:
        return cls(
            id=event.id,
            occurred_at=event.occurred_at,
            action=event.action,
            outcome=event.outcome,
            reason=event.reason,
            actor_kind=event.actor_kind,
            actor_id=event.actor_id,
            session_id=event.family_id,
            family_seq=event.family_seq,
            generation=event.generation,
            ip=_text(event.ip),
            user_agent=event.user_agent,
            request_id=event.request_id,
            detail=json.loads(event.detail) if event.detail else {},
        )


class EventPage(BaseModel):
    """`next` is the `after` of the next page, null on the last."""

    items: list[EventAnswer]
    next: str | None


def _text(value: object) -> str | None:
    return None if value is None else str(value)
