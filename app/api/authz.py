"""Forward authentication: a proxy asks for each request whether to let it through, and as whom."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from app.api.dependencies import Access, SignedIn, stated
from app.domain.errors import NotPermitted
from app.domain.users import Role
from app.observability.logs import get_logger
from app.services.authentication import Caller

log = get_logger()

REQUIREMENTS_MAXIMUM: Final = 32
_SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]{1,128}", re.ASCII)  # RFC 6749 section 3.3
_HEADER_VALUE: Final = re.compile(r"[\x21-\x7E]*( [\x21-\x7E]+)*", re.ASCII)  # one line, whatever a client is called


class AnyMethodRoute(APIRoute):
    """Matches every method, also those nobody has registered: some proxies ask with the method they are asked with."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        return (Match.FULL if match is Match.PARTIAL else match), child

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


router = APIRouter(tags=["integration"], route_class=AnyMethodRoute)


class Identity(Response):
    """An empty 200 whose headers say who it is. Made without Starlette's headers, which take longer than the rest."""

    def __init__(self, headers: list[tuple[bytes, bytes]]) -> None:
        self.status_code = 200
        self.body = b""
        self.background = None
        self.raw_headers = headers


@dataclass(frozen=True, slots=True)
class Requirement:
    """Any of the roles, if any are named, and all of the scopes."""

    roles: frozenset[Role]
    scopes: frozenset[str]

    def permits(self, caller: Caller) -> bool:
        if self.roles and caller.role not in self.roles:
            return False
        return not self.scopes or self.scopes <= set(caller.scope.split(" "))


@router.get("/authz", response_class=Response, openapi_extra=stated(Access.SIGNED_IN, refuses=(NotPermitted,)))
async def authorise(request: Request, caller: SignedIn) -> Response:
    """
    Whether to let a request through: 200 with the identity in headers, 401, or 403. By any method; a body is not read.

    `role` (repeatable) asks for any of these roles, `scope` for all of these scopes. A requirement that cannot be read
    is met by nobody: 403. Trouble with the database is 503.
    """
    if query := request.scope["query_string"]:
        requirement = _read(query)
        if requirement is None:
            log.warning("authz.requirement_unreadable")  # the proxy is configured wrongly
            raise NotPermitted(why="unreadable requirement")
        if not requirement.permits(caller):
            raise NotPermitted(why="requirement not met")
    return Identity(_headers(caller))


@lru_cache(maxsize=256)
def _read(query: bytes) -> Requirement | None:
    """`None`: an unknown role or parameter, or not well-formed; who wrote it wanted something that is not met."""
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=REQUIREMENTS_MAXIMUM,
        )
        roles = frozenset(Role(value) for name, value in pairs if name == "role")
    except ValueError:
        return None
    scopes = [scope for name, value in pairs if name == "scope" for scope in value.split(" ")]
    if not all(name in {"role", "scope"} for name, _ in pairs) or not all(map(_SCOPE_TOKEN.fullmatch, scopes)):
        return None
    return Requirement(roles, frozenset(scopes))


def _headers(caller: Caller) -> list[tuple[bytes, bytes]]:
    """
    All of them each time, empty ones too, so that a proxy that copies them replaces whatever the client had sent.

    A person's name is not among them: the token does not have it, and asking would be a query.
    """
    user, role = str(caller.user_id).encode(), caller.role.encode()
    return [
        (b"x-auth-request-user", user),
        (b"x-auth-request-session", str(caller.session_id).encode()),
        (b"x-auth-request-roles", role),
        (b"x-auth-request-groups", role),
        (b"x-auth-request-client", _line(caller.client_id)),
        (b"x-auth-request-scope", _line(caller.scope)),
        (b"remote-user", user),
        (b"remote-groups", role),
        (b"content-length", b"0"),
    ]


def _line(text: str) -> bytes:
    return text.encode() if _HEADER_VALUE.fullmatch(text) else b""
