"""The filters of sessions as they come in: as query parameters, or as the same members of a JSON body."""

from typing import Annotated
from uuid import UUID

from pydantic import Field

from app.api.parameters import Moment, Network, Person, Prefix
from app.domain.families import EndReason, SessionState
from app.domain.session_filters import AddressScope, SessionFilter, read_user
from app.domain.users import Role
from app.http.bodies import Body, Text
from app.services.trail import Trail

NOBODY_AT_ALL = UUID(int=1)  # nobody has this id, so nothing matches
WORD_CHARACTERS = 200

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
