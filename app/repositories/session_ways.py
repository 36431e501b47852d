"""
Ways into the table of sessions: each an index that leads to the sessions of some values, in order of creation.

The order of an index on a column and the id is asked for in full, and the value by a comparison of rows: then no other
index will do, whatever the planner thinks of its own estimates.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Text, Uuid, cast, func, literal, literal_column, select, true, tuple_
from sqlalchemy.dialects.postgresql import ARRAY, INET
from sqlalchemy.types import TypeEngine

from app.domain.families import FIRST_PARTY_CLIENT, EndReason, SessionState
from app.domain.session_filters import SessionFilter
from app.domain.users import Role
from app.models import FamilyRow

F = FamilyRow

# An id begins with its host's time, `created_at` is the database's. Ids only bound the walk; the times decide.
CLOCKS_APART: Final = timedelta(hours=1)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_TIME_BITS: Final = 80  # that follow the milliseconds in a UUIDv7
_LAST: Final = 2**128 - 1


@dataclass(frozen=True, slots=True)
class Span:
    """Between which ids a walk goes, both included, and in which direction."""

    low: UUID
    high: UUID
    newest_first: bool

    def after(self, place: UUID | None) -> "Span | None":
        """What is left of it beyond a place; `None`: nothing."""
        if place is None:
            return self
        if self.newest_first:
            high = min(self.high.int, place.int - 1)
            return replace(self, high=UUID(int=high)) if high >= self.low.int else None
        low = max(self.low.int, place.int + 1)
        return replace(self, low=UUID(int=low)) if low <= self.high.int else None

    def order(self, column: Any) -> Any:
        return column.desc() if self.newest_first else column.asc()

    def farther(self, one: UUID, other: UUID) -> bool:
        """Whether one is farther from where the walk begins."""
        return one < other if self.newest_first else one > other


Walk = Callable[[Span, int], Select[Any]]
"""The ids of the next so many sessions of a way, in order, as a statement."""


@dataclass(frozen=True, slots=True)
class Way:
    """
    Args:
        of_network: Whether it holds the sessions of the filter's network and no others.
    """

    name: str
    walk: Walk
    of_network: bool = False


def span_of(wanted: SessionFilter, *, newest_first: bool, longest_life: timedelta | None) -> Span:
    """Between which ids all that match must lie, by the times that are asked for."""
    since = [wanted.created_from] if wanted.created_from else []
    if wanted.last_used_from is not None and longest_life is not None:
        since.append(_earlier(wanted.last_used_from, longest_life))
    until = [at for at in (wanted.created_to, wanted.last_used_to) if at is not None]
    low, high = 0, _LAST
    if since:
        low = (max(0, (max(since) - _EPOCH - CLOCKS_APART) // _MILLISECOND)) << _TIME_BITS
    if until:
        high = max(0, ((min(until) - _EPOCH + CLOCKS_APART) // _MILLISECOND + 1 << _TIME_BITS) - 1)
    return Span(UUID(int=low), UUID(int=max(low, high)), newest_first)


def by_equality(wanted: SessionFilter) -> Iterator[Way]:
    """The ways of those conditions that name one value. What nearly all sessions have is in no index."""
    if wanted.user_id is not None:
        yield by_user("user", [wanted.user_id], wanted)
    if wanted.client_id is not None and wanted.client_id != FIRST_PARTY_CLIENT:
        others = F.client_id != literal_column(f"'{FIRST_PARTY_CLIENT}'")
        yield by_value("client", F.client_id, Text(), [wanted.client_id], others)
    if wanted.role is not None and wanted.role is not Role.USER:
        others = F.role != literal_column(f"'{Role.USER.value}'")
        yield by_value("role", F.role, Text(), [wanted.role.value], others)
    if wanted.device is not None:
        yield by_value("device", F.device, Text(), [wanted.device])
    if wanted.end_reason is not None:
        yield by_value("end_reason", F.end_reason, Text(), [wanted.end_reason.value], F.end_reason.is_not(None))
    if wanted.ended_by is not None:
        yield by_value("ended_by", F.ended_by, Uuid(), [wanted.ended_by], F.ended_by.is_not(None))


def by_user(name: str, users: Sequence[UUID], wanted: SessionFilter) -> Way:
    """The sessions of some users; only the live ones, of which there are few, if no others can match."""
    live = [F.ended_at.is_(None)] if wanted.state in {SessionState.ACTIVE, SessionState.LAPSED} else []
    return by_value(name, F.user_id, Uuid(), users, *live)


def by_state(wanted: SessionFilter) -> Iterator[Way]:
    """The way of a state. Those that have ended for one reason are fewer than all that have."""
    if wanted.state in {SessionState.ACTIVE, SessionState.LAPSED}:
        yield Way("live", lambda span, length: _walk(span, length, F.ended_at.is_(None)))
    if wanted.state is SessionState.ENDED and wanted.end_reason is None:
        yield by_value("ended", F.end_reason, Text(), [reason.value for reason in EndReason], F.end_reason.is_not(None))


def everything() -> Way:
    """All sessions: where no condition has an index."""
    return Way("all", _walk)


def by_address(network_address: str) -> Way:
    return by_value("ip", F.created_ip, INET(), [network_address], of_network=True)


def by_value(
    name: str,
    column: Any,
    kind: TypeEngine[Any],
    values: Sequence[object],
    *within: ColumnElement[bool],
    of_network: bool = False,
) -> Way:
    """
    The way of some values of a column, whose index goes on with the id.

    Args:
        within: The condition of a partial index, as it stands there.
    """

    def walk(span: Span, length: int) -> Select[Any]:
        given = func.unnest(cast(list(values), ARRAY(kind))).table_valued("value").render_derived(name="given")
        one = (
            select(F.id.label("id"))
            .where(
                tuple_(column, F.id) >= tuple_(given.c.value, literal(span.low)),
                tuple_(column, F.id) <= tuple_(given.c.value, literal(span.high)),
                *within,
            )
            .order_by(span.order(column), span.order(F.id))
            .limit(length)
            .lateral("one")
        )
        merged = select(one.c.id).select_from(given).join(one, true())
        return merged.order_by(span.order(one.c.id)).limit(length)

    return Way(name, walk, of_network)


def by_set(name: str, ids: Select[Any]) -> Way:
    """The way of a set of sessions that is small enough to be sorted: a statement of their ids."""

    def walk(span: Span, length: int) -> Select[Any]:
        known = ids.cte("known").prefix_with("MATERIALIZED")
        within = select(known.c.id).where(known.c.id >= span.low, known.c.id <= span.high)
        return within.order_by(span.order(known.c.id)).limit(length)

    return Way(name, walk, of_network=True)


def by_ids(name: str, ids: Iterable[UUID]) -> Way:
    """The way of sessions that are known already."""
    known = sorted(ids)

    def walk(span: Span, length: int) -> Select[Any]:
        first, beyond = bisect_left(known, span.low), bisect_right(known, span.high)
        within = known[max(first, beyond - length) : beyond] if span.newest_first else known[first:beyond][:length]
        given = func.unnest(cast(within, ARRAY(Uuid()))).table_valued("id").render_derived(name="given")
        return select(given.c.id).order_by(span.order(given.c.id)).limit(length)

    return Way(name, walk, of_network=True)


def last_of(way: Way, span: Span, length: int) -> Select[Any]:
    """How far a way gets with so many sessions: the id of the last of them, none if it has fewer."""
    walked = way.walk(span, length).subquery()
    return select(walked.c.id).order_by(span.order(walked.c.id)).offset(length - 1).limit(1)


def _walk(span: Span, length: int, *within: ColumnElement[bool]) -> Select[Any]:
    found = select(F.id.label("id")).where(F.id >= span.low, F.id <= span.high, *within)
    return found.order_by(span.order(F.id)).limit(length)


def _earlier(at: datetime, by: timedelta) -> datetime:
    """So much earlier, or as early as a time can be."""
    try:
        return at - by
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)
