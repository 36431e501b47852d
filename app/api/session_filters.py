"""The filters of sessions as they come in: as query parameters, or as the same members of a JSON body."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Request
from pydantic import AfterValidator, BeforeValidator, Field

from app.domain.errors import InputInvalid
from app.domain.event_filters import IpNetwork, read_moment, read_network
from app.domain.families import EndReason, SessionState
from app.domain.session_filters import AddressScope, SessionFilter, read_user, read_username_prefix
from app.domain.users import USERNAME_CHARACTERS, Role
from app.http.bodies import Body, Text
from app.http.errors import BodyInvalid
from app.services.trail import Trail

NOBODY_AT_ALL = UUID(int=1)  # nobody has this id, so nothing matches
WORD_CHARACTERS = 200


def _read(reader: Callable[[str], Any]) -> Callable[[Any], Any]:
    """A reader whose refusal is the fault of one field, and names it."""

    def read(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return reader(value)
        except InputInvalid as refused:
            raise ValueError(refused.message) from None

    return read


def _checked(reader: Callable[[str], Any]) -> Callable[[str], str]:
    """The text as it is, if the reader takes it."""

    def check(text: str) -> str:
        _read(reader)(text)
        return text

    return check


Moment = Annotated[datetime, BeforeValidator(_read(read_moment))]
Network = Annotated[IpNetwork, BeforeValidator(_read(read_network))]
Person = Annotated[Text, Field(min_length=1, max_length=USERNAME_CHARACTERS), AfterValidator(_checked(read_user))]
Prefix = Annotated[
    Text, Field(min_length=1, max_length=USERNAME_CHARACTERS), AfterValidator(_read(read_username_prefix))
]
Word = Annotated[Text, Field(min_length=1, max_length=WORD_CHARACTERS)]


class SessionFilters(Body):
    """
    Unknown members are refused: a filter that is misspelt must not widen the answer, and still less what is ended.

    `user` is an id or a username; `ip` an address or a network; `browser` and `os` go with or without their version.
    Both ends of a range belong to it.
    """

    state: SessionState | None = None
    user: Person | None = None
    username_prefix: Prefix | None = None
    client: Word | None = None
    role: Role | None = None
    ip: Network | None = None
    ip_scope: AddressScope = AddressScope.FIRST
    device: Word | None = None
    browser: Word | None = None
    os: Word | None = None
    created_from: Moment | None = None
    created_to: Moment | None = None
    last_used_from: Moment | None = None
    last_used_to: Moment | None = None
    end_reason: EndReason | None = None
    ended_by: Person | None = None

    async def to_filter(self, trail: Trail) -> SessionFilter:
        """
        What is asked for, with the names in it looked up.

        Raises:
            InputInvalid: a range ends before it begins.
        """
        user_id, username = (None, None) if self.user is None else read_user(self.user)
        ended_by = None if self.ended_by is None else await trail.find_person(self.ended_by) or NOBODY_AT_ALL
        return SessionFilter(
            state=self.state,
            user_id=user_id,
            username=username,
            username_prefix=self.username_prefix,
            client_id=self.client,
            role=self.role,
            network=self.ip,
            scope=self.ip_scope,
            device=self.device,
            browser=self.browser,
            os=self.os,
            created_from=self.created_from,
            created_to=self.created_to,
            last_used_from=self.last_used_from,
            last_used_to=self.last_used_to,
            end_reason=self.end_reason,
            ended_by=ended_by,
        )


def refuse_repeated(request: Request) -> None:
    """
    One value a parameter: of two, the framework would drop one unseen.

    Raises:
        BodyInvalid: a parameter stands twice. Its name is known to be one of ours by then.
    """
    names = [name for name, _ in request.query_params.multi_items()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BodyInvalid([{"loc": ["query", name], "type": "repeated", "msg": "must stand once"} for name in twice])
