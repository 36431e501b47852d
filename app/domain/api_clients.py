"""Programs that speak to Rota in their own name: what they may do, what their secrets look like."""

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from app.domain.errors import InputInvalid
from app.domain.families import FIRST_PARTY_CLIENT

SECRET_PREFIX: Final = "rota_cs_"  # noqa: S105 - what secret scanners look for
NAME_CHARACTERS: Final = 100
SCOPES_MAXIMUM: Final = 64
SCOPE_CHARACTERS: Final = 1000
OVERLAP: Final = timedelta(days=1)  # for which a secret works on after its successor was made
OVERLAP_MAXIMUM: Final = timedelta(days=90)

_SECRET_BYTES: Final = 32
_CLIENT_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,63}", re.ASCII)
_SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+", re.ASCII)  # RFC 6749 section 3.3


class ClientScope(StrEnum):
    """What a client may do at Rota. The list is closed; the table repeats it as a CHECK."""

    INTROSPECT = "introspect"  # ask whether any token is live
    REVOKE = "revoke"  # end sessions of our own sign-in routes; its own sessions each client may end
    REVOCATIONS = "revocations"  # follow the feed of ended sessions
    AUTHZ = "authz"  # ask as a proxy
    SESSIONS = "sessions"  # open sessions for people it has authenticated itself
    NOTIFICATIONS = "notifications"  # read and acknowledge what people are to be told


class ClientGrant(StrEnum):
    """What a client may ask the token endpoint for. Closed likewise."""

    PASSWORD = "password"  # noqa: S105 - a grant type; for first-party clients only
    REFRESH_TOKEN = "refresh_token"  # noqa: S105 - likewise
    CLIENT_CREDENTIALS = "client_credentials"


class SecretPlace(StrEnum):
    """A client has two secrets at most, so that a rotation needs no moment at which all its processes change."""

    CURRENT = "current"
    FORMER = "former"


@dataclass(frozen=True, slots=True)
class NewClient:
    """
    A client as it is asked for.

    Raises:
        InputInvalid: a combination that must not be.
    """

    name: str
    client_id: str | None = None  # made up if left out
    scopes: frozenset[ClientScope] = frozenset()
    grants: frozenset[ClientGrant] | None = None
    session_scopes: tuple[str, ...] = ()
    first_party: bool = False
    public: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.name) <= NAME_CHARACTERS or not self.name.isprintable():
            raise InputInvalid(f"name must have 1 to {NAME_CHARACTERS} printable characters.", field="name")
        if self.client_id is not None:
            check_client_id(self.client_id)
        if self.public and (not self.first_party or self.scopes):
            raise InputInvalid(
                "A public client must be first-party and can have no scopes: anybody can say it is it.", field="public"
            )
        if self.public and ClientGrant.CLIENT_CREDENTIALS in self.all_grants:
            raise InputInvalid(
                "A public client has no credentials to ask with: grants cannot have client_credentials.", field="grants"
            )
        if ClientGrant.PASSWORD in self.all_grants and not self.first_party:
            raise InputInvalid(
                "Only a first-party client may handle passwords: grants cannot have password.", field="grants"
            )
        read_scope(" ".join(self.session_scopes))

    @property
    def all_grants(self) -> frozenset[ClientGrant]:
        """As asked for, else all but passwords, which nobody gets unasked."""
        if self.grants is not None:
            return self.grants
        return frozenset({ClientGrant.REFRESH_TOKEN} | ({ClientGrant.CLIENT_CREDENTIALS} if not self.public else set()))


@dataclass(frozen=True, slots=True)
class ApiClient:
    """
    One row of `api_clients`, but for its secrets' hashes.

    Args:
        client_id: The name it speaks by; sessions opened through it have it too.
        session_scopes: What its sessions may be granted.
        first_party: Ours: it may handle people's passwords if `grants` has that.
        public: It has no secret (a browser or mobile app): who uses its name proves nothing by it.
    """

    id: UUID
    client_id: str
    name: str
    scopes: frozenset[ClientScope]
    grants: frozenset[ClientGrant]
    session_scopes: tuple[str, ...]
    first_party: bool
    public: bool
    created_at: datetime
    disabled_at: datetime | None
    secret_created_at: datetime | None
    former_secret_created_at: datetime | None
    former_secret_expires_at: datetime | None  # `None` beside a former secret: until it is revoked


@dataclass(frozen=True, slots=True)
class SecretHash:
    """A keyed hash, and the byte that names the server secret it was made under."""

    digest: bytes
    key_id: int


@dataclass(frozen=True, slots=True)
class StoredClient:
    """A client with the hashes of those of its secrets that work at the moment of the read."""

    client: ApiClient
    current: SecretHash | None
    former: SecretHash | None


def check_client_id(client_id: str) -> None:
    """
    Whether a client may be named so.

    An id never looks like a user's: the `sub` of a client's own token must not be taken for a person (RFC 9068
    section 5).

    Raises:
        InputInvalid: it may not.
    """
    if not _CLIENT_ID.fullmatch(client_id) or client_id == FIRST_PARTY_CLIENT or _is_uuid(client_id):
        raise InputInvalid(
            "client_id must have 3 to 64 letters, digits, dots, dashes or underscores, begin with a letter or digit, "
            f"and be neither a UUID nor {FIRST_PARTY_CLIENT}."
        )


def new_client_id() -> str:
    return f"client-{secrets.token_hex(8)}"


def new_secret() -> str:
    """256 random bits with a prefix by which scanners find it: 51 characters that need no encoding in HTTP Basic."""
    return SECRET_PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def read_scope(text: str) -> tuple[str, ...]:
    """
    The values of a `scope` parameter, each once, in their order.

    Raises:
        InputInvalid: not a scope of RFC 6749 section 3.3, or more than anybody needs.
    """
    values = tuple(dict.fromkeys(text.split(" "))) if text else ()
    if len(text) > SCOPE_CHARACTERS or len(values) > SCOPES_MAXIMUM or not all(map(_SCOPE_TOKEN.fullmatch, values)):
        raise InputInvalid(
            "scope must be words of printable ASCII without quotes and backslashes, one space between.", field="scope"
        )
    return values


def write_scope(values: Iterable[str]) -> str:
    return " ".join(values)


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
