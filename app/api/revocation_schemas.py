"""What goes in and comes out at `/admin/sessions/revocations`."""

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import BaseModel, Field, StrictBool

from app.api.parameters import Cursor, Moment, Parameters
from app.api.session_filters import SessionFilters
from app.domain.families import EndReason, Family
from app.domain.revocations import WHY_CHARACTERS, Order, Revocation, RevocationState
from app.domain.session_filters import SessionFilter
from app.http.bodies import Body, Text
from app.http.errors import BodyInvalid
from app.services.revocations import Seen
from app.services.trail import Trail

Why = Annotated[Text, Field(min_length=WHY_CHARACTERS.start, max_length=WHY_CHARACTERS.stop - 1)]


class RevocationRequest(Body):
    """
    `filter` has the members of `GET /admin/sessions`' filters; `{}` is every session. Or `issued_before`: everything
    that was created before a moment.
    """

    filter: SessionFilters | None = None
    issued_before: Moment | None = None
    dry_run: StrictBool = False
    fingerprint: Annotated[Text, Field(min_length=1, max_length=200)] | None = None
    reason: Why | None = None
    include_own_session: StrictBool = False

    async def to_order(self, trail: Trail) -> Order:
        """
        Which sessions are meant.

        Raises:
            InputInvalid: nothing is said about that, or two different things.
        """
        if self.filter is None and self.issued_before is None:
            raise missing("filter")
        wanted = SessionFilter() if self.filter is None else await self.filter.to_filter(trail)
        return Order(wanted, self.issued_before)


def missing(name: str) -> BodyInvalid:
    return BodyInvalid([{"loc": [name], "type": "missing", "msg": "Field required"}])


class RevocationQuery(Parameters):
    after: Cursor | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 25


class SampledSession(BaseModel):
    id: UUID
    user_id: UUID
    username: str | None
    created_at: datetime
    last_used_at: datetime
    client_id: str
    device: str | None
    browser: str | None
    os: str | None
    first_ip: str | None
    last_ip: str | None

    @classmethod
    def of(cls, family: Family, username: str | None) -> Self:
        return cls(
            id=family.id,
            user_id=family.user_id,
            username=username,
            created_at=family.created_at,
            last_used_at=family.rotated_at or family.created_at,
            client_id=family.client_id,
            device=family.device,
            browser=family.browser,
            os=family.os,
            first_ip=None if family.created_ip is None else str(family.created_ip),
            last_ip=None if family.last_ip is None else str(family.last_ip),
        )


class DryRunAnswer(BaseModel):
    """
    What would end. `count` and `users` are exact unless `at_least`. `own_session`: yours is among them; it is counted,
    and ends only if `include_own_session` says so. `fingerprint` is good until `expires_at`, for you and this filter.
    """

    dry_run: bool = True
    count: int
    users: int
    at_least: bool
    own_session: bool
    sample: list[SampledSession]
    cut: datetime
    fingerprint: str | None
    expires_at: datetime

    @classmethod
    def of(cls, seen: Seen) -> Self:
        return cls(
            count=seen.dry_run.count,
            users=seen.users,
            at_least=seen.at_least,
            own_session=seen.own_session,
            sample=[SampledSession.of(family, seen.names.get(family.user_id)) for family in seen.sample],
            cut=seen.dry_run.cut,
            fingerprint=seen.fingerprint,
            expires_at=seen.expires_at,
        )


class RevocationAnswer(BaseModel):
    """
    A bulk end. `filter` shows names and addresses as keyed hashes. Sessions created after `cut` live; `expected` is
    what the dry run counted, `ended` what has ended so far, each with its event, whose `request_id` is this `id`.
    """

    id: UUID
    state: RevocationState
    filter: dict[str, Any]
    cut: datetime
    reason: str
    end_reason: EndReason
    requested_by: UUID | None
    own_session_kept: bool
    expected: int
    ended: int
    looked_at: int
    created_at: datetime
    started_at: datetime | None
    worked_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, revocation: Revocation) -> Self:
        return cls(
            id=revocation.id,
            state=revocation.state,
            filter=dict(revocation.shown),
            cut=revocation.cut,
            reason=revocation.why,
            end_reason=revocation.end_reason,
            requested_by=revocation.requested_by,
            own_session_kept=revocation.spared is not None,
            expected=revocation.expected,
            ended=revocation.ended,
            looked_at=revocation.looked_at,
            created_at=revocation.created_at,
            started_at=revocation.started_at,
            worked_at=revocation.worked_at,
            finished_at=revocation.finished_at,
        )


class RevocationPage(BaseModel):
    """`next` is the `after` of the next page, null on the last."""

    items: list[RevocationAnswer]
    next: str | None
