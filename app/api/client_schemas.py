"""What goes in and comes out where API clients are spoken to, and spoken of."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt

from app.api.parameters import Cursor, Parameters
from app.api.schemas import Password, PresentedToken, Username
from app.domain.api_clients import (
    NAME_CHARACTERS,
    OVERLAP,
    OVERLAP_MAXIMUM,
    SCOPE_CHARACTERS,
    SCOPES_MAXIMUM,
    ApiClient,
    ClientGrant,
    ClientScope,
    NewClient,
    read_scope,
    write_scope,
)
from app.domain.clients import USER_AGENT_BYTES, ClientContext, clean_user_agent
from app.domain.errors import InputInvalid
from app.domain.users import Role
from app.http.bodies import WHOLE, Body, Text
from app.services.api_clients import ClientList, MadeClient

CLIENTS_LIMIT: Final = 100
METHODS_MAXIMUM: Final = 16


class GrantRequest(Body):
    """The fields of RFC 6749 sections 4.3.2, 4.4.2 and 6. What is needed depends on `grant_type`."""

    model_config = ConfigDict(json_schema_extra={"required": ["grant_type"]})

    grant_type: Annotated[Text, Field(max_length=200, json_schema_extra={"enum": [*ClientGrant]})] | None = None
    username: Username | None = None
    password: Password | None = None
    scope: Annotated[Text, Field(max_length=2000)] = ""
    refresh_token: PresentedToken | None = None
    device_token: PresentedToken | None = None


class PresentedRequest(Body):
    """RFC 7009 section 2.1, RFC 7662 section 2.1. The token says itself what it is: the hint is not needed."""

    model_config = ConfigDict(json_schema_extra={"required": ["token"]})

    token: Annotated[Text, Field(max_length=16_384, json_schema_extra={"minLength": 1})] | None = None
    token_type_hint: Text | None = None


class GrantAnswer(BaseModel):
    """RFC 6749 section 5.1. Without `refresh_token` and what belongs to it where a client asks for itself."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: int
    scope: str | None = None
    refresh_token: str | None = None
    refresh_expires_in: int | None = None
    session_id: UUID | None = None


class IntrospectionAnswer(BaseModel):
    """RFC 7662 section 2.2. Of a token that is not live only that."""

    active: bool
    token_use: Literal["access_token", "refresh_token"] | None = None
    token_type: Literal["Bearer"] | None = None
    sub: str | None = None
    sid: UUID | None = None
    client_id: str | None = None
    scope: str | None = None
    roles: list[Role] | None = None
    aud: str | None = None
    iss: str | None = None
    iat: int | None = None
    exp: int | None = None
    auth_time: int | None = None
    amr: list[str] | None = None
    acr: str | None = None
    jti: str | None = None


def _listed(value: object) -> object:
    """JSON has lists, not sets: each item once."""
    if isinstance(value, list) and len({str(item) for item in value}) != len(value):
        raise ValueError("must have each item once")
    return frozenset(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else value


class ClientRequest(Body):
    """
    A new client. `client_id` is made up if left out; `grants` is then all that it can have, but `password`.

    `session_scopes` is what sessions opened through it may be granted.
    """

    name: Annotated[Text, Field(min_length=1, max_length=NAME_CHARACTERS)]
    client_id: Annotated[Text, Field(min_length=3, max_length=64)] | None = None
    scopes: Annotated[frozenset[ClientScope], BeforeValidator(_listed)] = frozenset()
    grants: Annotated[frozenset[ClientGrant], BeforeValidator(_listed)] | None = None
    session_scopes: Annotated[tuple[Annotated[Text, Field(min_length=1)], ...], Field(max_length=SCOPES_MAXIMUM)] = ()
    first_party: StrictBool = False
    public: StrictBool = False

    def read(self) -> NewClient:
        """
        Raises:
            InputInvalid: a combination that must not be.
        """
        if any(" " in scope for scope in self.session_scopes):
            raise InputInvalid("session_scopes must be a list of single words.", field="session_scopes")
        return NewClient(
            name=self.name,
            client_id=self.client_id,
            scopes=self.scopes,
            grants=self.grants,
            session_scopes=tuple(dict.fromkeys(self.session_scopes)),
            first_party=self.first_party,
            public=self.public,
        )


class RotationRequest(Body):
    """For how long the former secret works on; null: until it is revoked."""

    overlap_seconds: Annotated[StrictInt, Field(ge=0, le=int(OVERLAP_MAXIMUM.total_seconds())), WHOLE] | None = int(
        OVERLAP.total_seconds()
    )

    def read(self) -> timedelta | None:
        return None if self.overlap_seconds is None else timedelta(seconds=self.overlap_seconds)


class ClientQuery(Parameters):
    after: Cursor | None = None
    limit: Annotated[int, Field(ge=1, le=CLIENTS_LIMIT)] = 25


class ClientAnswer(BaseModel):
    """`former_secret_expires_at` is null beside a former secret that works until it is revoked."""

    id: UUID
    client_id: str
    name: str
    scopes: list[str]
    grants: list[str]
    session_scopes: list[str]
    first_party: bool
    public: bool
    created_at: datetime
    disabled_at: datetime | None
    secret_created_at: datetime | None
    former_secret_created_at: datetime | None
    former_secret_expires_at: datetime | None

    @classmethod
    def of(cls, client: ApiClient) -> Self:
        return cls(
            id=client.id,
            client_id=client.client_id,
            name=client.name,
            scopes=sorted(client.scopes),
            grants=sorted(client.grants),
            session_scopes=list(client.session_scopes),
            first_party=client.first_party,
            public=client.public,
            created_at=client.created_at,
            disabled_at=client.disabled_at,
            secret_created_at=client.secret_created_at,
            former_secret_created_at=client.former_secret_created_at,
            former_secret_expires_at=client.former_secret_expires_at,
        )


class MadeClientAnswer(ClientAnswer):
    """`client_secret` is shown this once; nobody can read it again."""

    client_secret: str | None

    @classmethod
    def made(cls, made: MadeClient) -> Self:
        return cls(**ClientAnswer.of(made.client).model_dump(), client_secret=made.secret)


class ChangedClientAnswer(ClientAnswer):
    """`changed` is false if it was so already."""

    changed: bool

    @classmethod
    def after(cls, client: ApiClient, changed: bool) -> Self:  # noqa: FBT001 - handed through
        return cls(**ClientAnswer.of(client).model_dump(), changed=changed)


class ClientPage(BaseModel):
    """`next` is the `after` of the next page, null on the last."""

    items: list[ClientAnswer]
    next: str | None

    @classmethod
    def of(cls, page: ClientList) -> Self:
        return cls(items=[ClientAnswer.of(client) for client in page.items], next=page.next)


_ADDRESS: Final[dict[str, Any]] = {"anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}


class VouchedRequest(Body):
    """
    How a client has authenticated a person, and from where they came.

    `amr` as RFC 8176 names it; `auth_time` in seconds since 1970, if it was not just now; `ip` and `user_agent` are
    the person's, not the client's.
    """

    amr: Annotated[
        list[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:+/-]{0,63}$")]],
        Field(min_length=1, max_length=METHODS_MAXIMUM),
    ]
    acr: Annotated[str, Field(pattern=r"^[\x21-\x7E]{1,200}$")] | None = None
    auth_time: Annotated[StrictInt, Field(ge=0, le=253_402_300_799), WHOLE] | None = None
    ip: Annotated[Text, Field(max_length=64, json_schema_extra=_ADDRESS)] | None = None
    user_agent: Annotated[Text, Field(max_length=4 * USER_AGENT_BYTES)] | None = None
    scope: Annotated[Text, Field(max_length=SCOPE_CHARACTERS)] = ""

    @property
    def authenticated_at(self) -> datetime | None:
        return None if self.auth_time is None else datetime.fromtimestamp(self.auth_time, UTC)

    def granted(self, client: ApiClient) -> str:
        """
        The scope of the session. Whoever vouches for people says what they may, within what is registered, if it is.

        Raises:
            InputInvalid: malformed, or more than the client's sessions may be granted.
        """
        wanted = read_scope(self.scope)
        if client.session_scopes and not set(wanted) <= set(client.session_scopes):
            raise InputInvalid("scope must be within the client's session_scopes.", field="scope")
        return write_scope(wanted or client.session_scopes)

    def person_at(self, request_id: UUID | None) -> ClientContext:
        """
        Where the person came from; it stands in the session and its event.

        Raises:
            InputInvalid: no address.
        """
        agent = clean_user_agent(self.user_agent.encode()) if self.user_agent else None
        try:
            address = ip_address(self.ip) if self.ip is not None else None
        except ValueError:
            address = None
        if self.ip is not None and (address is None or "%" in self.ip):
            raise InputInvalid("ip must be an address.", field="ip")
        mapped = getattr(address, "ipv4_mapped", None)
        return ClientContext(ip=mapped or address, user_agent=agent, request_id=request_id)
